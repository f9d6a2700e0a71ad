"""The library: documented, typed, light to import, and the pictures of the command line."""

import inspect
import io
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import vdsr_cli as vdsr
from vdsr_cli.consistency import degrade_adjoint
from vdsr_cli.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def model(tiny_path):
    return vdsr.load(str(tiny_path), device="cpu", dtype="float32")


def test_the_names_are_sorted_documented_and_there():
    assert vdsr.__all__ == sorted(vdsr.__all__)
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    for name in set(vdsr.__all__) - {"__version__"}:
        found = getattr(vdsr, name)
        assert inspect.getdoc(found), name
        assert found.__doc__ and f"`{name}" in page, f"docs/library.md says nothing of {name}"
        if inspect.isclass(found):
            public = [m for n, m in inspect.getmembers(found) if not n.startswith("_")]
            assert all(inspect.getdoc(member) for member in public if callable(member)), name
    assert set(vdsr.__all__) <= set(dir(vdsr))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vdsr.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("mode", "temperature", "edges"),
    [("RGB", 0.7, "repeat"), ("L", "0.7,8:0.2", "mirror"), ("RGBA", "16:0", "repeat")],
)
def test_the_picture_is_that_of_the_command(
    vdsr, tiny_path, model, tmp_path, save_picture, mode, temperature, edges
):
    source = save_picture(tmp_path / "a.png", 30, 22, mode=mode)
    options = ["--model", tiny_path, "--device", "cpu", "--dtype", "float32"]
    options += ["--temperature", temperature, "--seed", 5, "--edges", edges]
    assert vdsr("upscale", source, *options, "-o", tmp_path / "command.png").code == 0
    assert vdsr("sample-diverse", source, "-n", 2, *options, "-o", tmp_path / "d.png").code == 0
    sr = model.upscale(source, temperature=temperature, seed=5, edges=edges)
    sr.save(tmp_path / "library.png")
    command = (tmp_path / "command.png").read_bytes()
    assert (tmp_path / "library.png").read_bytes() == command == sr._repr_png_()
    drawn = model.sample(source, n=2, temperature=temperature, seed=5, edges=edges)
    for sample in drawn:
        sample.save(tmp_path / "s.png")
        same = tmp_path / f"d_s{sample.index}.png"
        assert (tmp_path / "s.png").read_bytes() == same.read_bytes()
    drawn.mean.save(tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes() == (tmp_path / "d_mean.png").read_bytes()


def test_pictures_come_from_anywhere(model, tmp_path, save_picture):
    path = save_picture(tmp_path / "a.png", 12, 10)
    image = Image.open(path)
    wanted = np.asarray(model.upscale(path))
    assert wanted.shape == (4 * image.height, 4 * image.width, 3)
    sources = [str(path), io.BytesIO(path.read_bytes()), image, np.asarray(image), vdsr.read(path)]
    for source in sources:
        assert np.array_equal(np.asarray(model.upscale(source)), wanted)
    deep = np.asarray(image)[:, :, 0].astype(np.uint16) * 257
    assert model.upscale(deep).levels.dtype == np.uint16
    assert model.upscale(deep).levels.shape[2] == 1
    turned = Image.fromarray(np.asarray(image).swapaxes(0, 1)[::-1].copy())
    exif = turned.getexif()
    exif[274] = 6  # stored a quarter to the left
    turned.save(tmp_path / "t.png", exif=exif)
    assert np.array_equal(vdsr.read(Image.open(tmp_path / "t.png")).rgb, vdsr.read(path).rgb)


@pytest.mark.parametrize(
    "odd", [np.zeros((4, 4)), np.zeros((4, 4, 5), np.uint8), np.zeros(3), b"GIF89a", [[1, 2]], None]
)
def test_what_is_no_picture_is_told(odd):
    with pytest.raises(vdsr.VdsrError, match=r"picture"):
        vdsr.read(odd)


def test_a_file_may_know_nothing_but_reading(tmp_path, save_picture):
    class Pipe:
        def __init__(self, content):
            self.read = io.BytesIO(content).read

    path = save_picture(tmp_path / "a.png", 12, 10)
    assert torch.equal(vdsr.read(Pipe(path.read_bytes())).rgb, vdsr.read(path).rgb)


def test_what_cannot_be_read_is_the_users_to_mend(tmp_path, save_picture):
    closed = save_picture(tmp_path / "a.png", 64, 64).open("rb")
    closed.close()
    cut = io.BytesIO((tmp_path / "a.png").read_bytes()[:600])
    with Image.open(tmp_path / "a.png") as left:
        pass
    for odd in ("a\0b", closed, Image.open(cut), left):
        with pytest.raises(InputError):
            vdsr.read(odd)


def test_models_are_named_by_paths_too(tiny_path):
    assert vdsr.load(tiny_path, device="cpu").scale == 4
    for odd in (None, 3):
        with pytest.raises(vdsr.VdsrError, match="a string or a path"):
            vdsr.load(odd)


@pytest.mark.parametrize("wrap", ["x", "y", "xy"])
def test_a_periodic_picture_is_faithful_around_its_edges(model, wrap):
    """Edges of noise do not meet: a periodic result is faithful to it only where it is seen so."""
    lr = torch.randint(40, 215, (1, 3, 12, 14), dtype=torch.uint8)
    picture = vdsr.read(lr[0].permute(1, 2, 0).numpy())
    for result in (model.upscale(picture, wrap=wrap), model.sample(picture, 1, wrap=wrap)[0]):
        hr = torch.from_numpy(np.asarray(result)).permute(2, 0, 1)[None]
        assert vdsr.lr_psnr(hr, lr, scale=4, wrap=wrap) > 50 > vdsr.lr_psnr(hr, lr, scale=4)
    with pytest.raises(vdsr.VdsrError, match="wrap"):
        model.upscale(picture, wrap="both")


def test_tensors_in_tensors_out(model, save_picture, tmp_path):
    lr = torch.cat([vdsr.read(save_picture(tmp_path / f"{i}.png", 12, 10)).rgb for i in (0, 1)])
    hr = model(lr, temperature=0.8, seed=3)
    assert hr.shape == (2, 3, 4 * lr.shape[2], 4 * lr.shape[3])
    assert hr.min() >= 0 and hr.max() <= 1 and hr.dtype == torch.float32
    again = model.upscale(tmp_path / "1.png", temperature=0.8, seed=3)
    assert (hr[1].permute(1, 2, 0).numpy() * 255 - np.asarray(again)).__abs__().max() <= 1.01
    assert (vdsr.degrade(hr, 4) - lr).abs().max() < 1 / 255
    assert vdsr.lr_psnr(hr, lr, scale=4) > 50
    assert vdsr.psnr_y(hr, hr, shave=4) == float("inf")
    assert vdsr.ssim_y(hr[0], hr[0], shave=4) == pytest.approx(1)
    for odd in (lr[0], lr[:0], lr[:, :, :0]):
        with pytest.raises(vdsr.VdsrError, match="lr must be"):
            model(odd)


def test_values_beyond_black_and_white_are_clipped(model):
    lr = 1.4 * torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.2
    assert model(lr).equal(model(lr.clamp(0, 1)))


def test_settings_that_are_none_are_refused(model):
    with pytest.raises(vdsr.VdsrError, match="a batch of -3 tiles"):
        model.upscale(np.zeros((8, 8, 3), np.uint8), batch_size=-3)
    with pytest.raises(vdsr.VdsrError, match="not 'median'"):
        model.upscale(np.zeros((8, 8, 3), np.uint8), pixels="median")


@pytest.mark.parametrize(
    ("height", "count", "shave"), [(60, 2, 4), (64, 1, 4), (64, 0, 4), (64, 2, -1), (64, 2, 40)]
)
def test_pictures_that_are_no_pairs_have_no_scores(height, count, shave):
    sr, hr = torch.zeros(2, 3, 64, 64), torch.zeros(count, 3, height, 64)
    for score in (vdsr.psnr_y, vdsr.ssim_y):
        with pytest.raises(vdsr.VdsrError):
            score(sr, hr, shave=shave)
    with pytest.raises(vdsr.VdsrError, match="leaves less than 11"):
        vdsr.ssim_y(sr, sr, shave=27)
    for scale in (0, -1, 2, 5):
        with pytest.raises(vdsr.VdsrError):
            vdsr.lr_psnr(sr, torch.zeros(2, 3, 16, 16), scale=scale)


def test_samples_are_a_sequence(model, save_picture, tmp_path):
    drawn = model.sample(save_picture(tmp_path / "a.png", 12, 10), n=3)
    assert len(drawn) == 3 and [sample.index for sample in drawn] == [0, 1, 2]
    assert drawn[1].lr_psnr > 75 and drawn.mean.lr_psnr > 75 and drawn.mean.index is None
    assert drawn.std.shape == (drawn[0].height, drawn[0].width) and drawn.std.max() > 0
    assert model.upscale(tmp_path / "a.png", scale=2.3).lr_psnr is None
    with pytest.raises(vdsr.VdsrError, match="n must be"):
        model.sample(tmp_path / "a.png", n=0)


def test_a_panorama_is_measured_all_around(model, save_picture, tmp_path):
    source = vdsr.read(save_picture(tmp_path / "a.png", 32, 16))
    panorama = replace(source, metadata=replace(source.metadata, is_panorama=True))
    drawn = model.sample(panorama, n=2)
    assert min(r.lr_psnr for r in (*drawn, drawn.mean, model.upscale(panorama, scale=8))) > 75


def test_the_likelihood_is_that_of_the_bench(model):
    hr = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    lr = vdsr.degrade(hr, 4).clamp(0, 1)
    found = model.elbo(hr, lr)
    assert found.bits_per_dim == pytest.approx(found.distortion_bits + found.rate_bits)
    assert found.bits_per_dim > 0
    with pytest.raises(vdsr.VdsrError, match="is not x4"):
        model.elbo(hr, hr)
    for several in (0, 1):
        with pytest.raises(vdsr.VdsrError, match="no pairs"):
            model.elbo(hr, lr[:several])


def test_frames_come_one_by_one_and_are_those_of_the_command(model, request, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    first, second = map(Image.fromarray, levels)
    first.save(tmp_path / "a.png", save_all=True, append_images=[second], duration=50)
    made = [np.asarray(model.upscale(frame)) for frame in vdsr.frames(tmp_path / "a.png")]
    options = ("-m", model.name, "--device", "cpu", "--dtype", "float32")
    run = request.getfixturevalue("vdsr")  # whose name is the library's here
    assert run("upscale", tmp_path / "a.png", "-o", tmp_path / "b.png", *options).code == 0
    with Image.open(tmp_path / "b.png") as image:
        found = [np.asarray(frame) for frame in ImageSequence.Iterator(image)]
    np.testing.assert_array_equal(made, found)
    first.save(tmp_path / "one.png")
    assert len(list(vdsr.frames(tmp_path / "one.png"))) == 1
    with pytest.raises(vdsr.VdsrError, match="animated"):
        vdsr.read(tmp_path / "a.png")


def test_what_is_there_is_kept_where_that_is_asked(model, save_picture, tmp_path):
    path = save_picture(tmp_path / "a.png", 8, 8)
    before = path.read_bytes()
    with pytest.raises(vdsr.VdsrError, match="exists already"):
        model.upscale(path).save(path, overwrite=False)
    assert path.read_bytes() == before
    (tmp_path / "device.png").symlink_to("/dev/null")
    model.upscale(path).save(tmp_path / "device.png", overwrite=False)
    assert (tmp_path / "device.png").is_char_device()


def test_numbers_are_those_of_any_library(model, save_picture, tmp_path):
    path = save_picture(tmp_path / "a.png", 8, 8)
    made = model.upscale(path, scale=np.float32(2), temperature=np.float32(0.5), seed=np.int64(3))
    found = model.upscale(path, scale=2, temperature=0.5, seed=3)
    np.testing.assert_array_equal(made, found)
    hr, lr = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 16, 16)
    assert model.elbo(hr, lr, seed=np.uint8(1)) == model.elbo(hr, lr, seed=1)


@pytest.mark.parametrize(
    "option",
    [
        {"seed": "3"},
        {"seed": 1.5},
        {"seed": None},
        {"scale": "4"},
        {"temperature": None},
        {"tile": "64"},
        {"overlap": "3"},
        {"batch_size": "auto"},
    ],
    ids=str,
)
def test_what_is_no_number_is_refused_in_one_line(model, save_picture, tmp_path, option):
    path = save_picture(tmp_path / "a.png", 8, 8)
    with pytest.raises(vdsr.VdsrError, match=f"{next(iter(option))} must be a"):
        model.upscale(path, **option)


def test_no_other_files_and_no_other_quality(model, save_picture, tmp_path):
    with pytest.raises(vdsr.VdsrError, match="no binary file"):
        vdsr.read(io.StringIO("text"))
    with pytest.raises(vdsr.VdsrError, match="no binary file"):
        list(vdsr.frames(None))
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(vdsr.VdsrError, match="closed"):
        vdsr.read(closed)
    made = model.upscale(save_picture(tmp_path / "a.png", 8, 8))
    with pytest.raises(vdsr.VdsrError, match="whole number"):
        made.save(tmp_path / "b.jpg", quality="90")
    for path in (None, "a\0.png"):
        with pytest.raises(vdsr.VdsrError, match="is no path"):
            made.save(path)
    for quality in (0, 101):
        with pytest.raises(vdsr.VdsrError, match="1 to 100"):
            made.save(tmp_path / "b.jpg", quality=quality)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_an_image_whose_white_nobody_knows_is_refused(mode):
    with pytest.raises(vdsr.VdsrError, match=f"mode {mode} has no white"):
        vdsr.read(Image.new(mode, (8, 8)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda x: x * torch.nan, "from nan to nan"),
        (lambda x: x.index_fill(-1, torch.tensor([3]), torch.inf), "to inf"),
        (lambda x: x * 255, "to 255"),
        (lambda x: 2 * x - 1, "from -1 "),
        (lambda x: (255 * x).int(), "not torch.int32"),
    ],
)
def test_tensors_that_are_no_pictures_get_no_score(model, change, problem):
    hr, lr = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 16, 16)
    for each in (hr, lr):
        each[..., :2] = torch.tensor([0.0, 1.0])
    for score in (
        lambda x: vdsr.psnr_y(x, hr, shave=4),
        lambda x: vdsr.ssim_y(hr, x, shave=4),
        lambda x: vdsr.lr_psnr(x, lr, scale=4),
        lambda x: model.elbo(x, lr),
    ):
        with pytest.raises(vdsr.VdsrError, match=problem):
            score(change(hr))
        with pytest.raises(vdsr.VdsrError, match="is no tensor of pictures"):
            score(change(hr).numpy())
    if change(lr).is_floating_point():
        with pytest.raises(vdsr.VdsrError, match=problem):
            model(change(lr))


def test_degrade_has_the_gradient_of_its_adjoint():
    generator = torch.Generator().manual_seed(0)
    hr, weights = (
        torch.rand(1, 3, side, side, dtype=torch.float64, generator=generator) for side in (32, 8)
    )
    with torch.inference_mode():
        vdsr.degrade(hr, 4)
    leaf = hr.clone().requires_grad_()
    reduced = vdsr.degrade(leaf, 4)
    assert torch.equal(reduced, vdsr.degrade(hr, 4))
    (gradient,) = torch.autograd.grad((reduced * weights).sum(), leaf)
    torch.testing.assert_close(gradient, degrade_adjoint(weights, 4))


@pytest.mark.parametrize(
    ("hr", "scale"),
    [
        (torch.full((3, 16, 16), 200, dtype=torch.uint8), 4),
        (torch.rand(3, 16, 16), 0),
        (torch.rand(3, 16, 16), 2.5),
        (torch.rand(3, 15, 16), 4),
        (torch.rand(3, 0, 16), 4),
    ],
)
def test_what_cannot_be_reduced_is_refused(hr, scale):
    with pytest.raises(vdsr.VdsrError):
        vdsr.degrade(hr, scale)


def test_progress_is_a_bar_on_stderr(model, save_picture, tmp_path, capfd):
    path = save_picture(tmp_path / "a.png", 8, 8)
    model.upscale(path)
    assert capfd.readouterr().err == ""
    model.upscale(path, progress=True)
    assert "1/1" in capfd.readouterr().err


def test_auto_looks_at_the_picture(save_picture, tmp_path):
    model = vdsr.load("auto", device="cpu")
    sr = model.upscale(save_picture(tmp_path / "a.png", 12, 10))
    assert sr.model.startswith("vdvae-sr-x4")
    with pytest.raises(vdsr.VdsrError, match="by its name"):
        model(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "chosen"), [("a.png", "cvdvae-x4"), ("a.jpg", "vdvae-sr-x4-real")]
)
def test_auto_samples_by_the_model_of_the_command(request, tmp_path, name, chosen):
    with Image.open(ROOT / "tests" / "data" / "street.png") as street:
        street.convert("RGB").crop((100, 100, 148, 132)).save(tmp_path / name, quality=55)
    run = request.getfixturevalue("vdsr")  # whose name is the library's here
    assert run("sample-diverse", tmp_path / name, "-n", 2, "-o", tmp_path / "d.png").code == 0
    for sample in vdsr.load("auto").sample(tmp_path / name, n=2):
        assert sample.model == chosen
        assert sample._repr_png_() == (tmp_path / f"d_s{sample.index}.png").read_bytes()


def test_the_snippet_of_the_docs_runs(monkeypatch, tmp_path, save_picture, capsys):
    text = (Path(__file__).parents[1] / "docs" / "library.md").read_text()
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "photo.jpg", 24, 16)
    exec(text.partition("```python\n")[2].partition("```")[0], {})
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert (tmp_path / "photo_x4.png").is_file()


def test_the_example_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["library.py", str(ROOT / "examples" / "detail.png")])
    runpy.run_path(str(ROOT / "examples" / "library.py"), run_name="__main__")
    assert (tmp_path / "detail_x4.png").is_file() and "bits" in capsys.readouterr().out

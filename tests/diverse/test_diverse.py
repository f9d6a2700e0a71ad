"""The use case behind ``vdsr sample-diverse``, on a tiny model with random weights."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loaded import CPU
from PIL import Image
from safetensors import safe_open

from vdsr_cli.consistency import degrade
from vdsr_cli.diverse.inputs import check_latents
from vdsr_cli.diverse.outputs import measure_file
from vdsr_cli.diverse.records import (
    DiverseRequest,
    OutputNames,
    Walk,
    parse_pick,
)
from vdsr_cli.diverse.run import sample_diverse
from vdsr_cli.errors import InputError, OutputError, UsageError
from vdsr_cli.figures.viridis import viridis
from vdsr_cli.images import ReadOptions, read_picture
from vdsr_cli.loading import LoadedModel
from vdsr_cli.metrics.streaming import (
    LrFidelity,
    PairwiseDistances,
    farthest,
    mean_of_pairs,
    medoid,
)
from vdsr_cli.outputs import Existing
from vdsr_cli.paths import Source
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.sampling.latents import (
    MaskedNoise,
    WalkNoise,
    latent_grid,
    layer_angles,
    load_latents,
    save_latents,
)
from vdsr_cli.sampling.noise import NoiseField
from vdsr_cli.weights import load_records

SMALL = SamplingSettings(tile=16, overlap=4)


@pytest.fixture
def loaded(tiny_model):
    return LoadedModel(
        name="tiny", model=tiny_model, record=None, card={"degradation": "bicubic"}, parameters=0
    )


@pytest.fixture
def draw(tmp_path, loaded, save_picture):
    """``draw(folder, **request)``: a run on one small picture; its result."""
    picture = save_picture(tmp_path / "face.png", 22, 18)

    def run(folder="out", *, source=picture, **options):
        options = {"settings": SMALL, **options}
        return sample_diverse(
            Source(path=source),
            OutputNames(base=tmp_path / folder / "face_x4.png"),
            loaded,
            DiverseRequest(**options),
            CPU,
            stdin=sys.stdin.buffer if hasattr(sys.stdin, "buffer") else None,
        )

    return run


def levels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def pictures(result, index=0):
    return {p.name: levels(p.file) for p in result.sets[index].pictures}


def test_writes_all_that_it_names(draw, tmp_path):
    result = draw(samples=3)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    samples = [f"face_x4_s{i}.png" for i in range(3)]
    assert written == sorted(
        [*samples, *(f"face_x4_{n}.png" for n in ("mean", "std", "std16", "sheet"))]
    )
    assert (result.width, result.height) == (88, 72)
    assert levels(tmp_path / "out" / "face_x4_std.png").shape == (72, 88, 3)
    json.dumps(result.as_json(), allow_nan=False)


def test_a_sample_is_the_same_for_any_number(draw):
    few, many = pictures(draw("few", samples=2)), pictures(draw("many", samples=6))
    for name in ("s0", "s1"):
        assert np.array_equal(few[name], many[name])
    assert not np.array_equal(many["s0"], many["s1"])


def test_the_encoder_runs_once_for_all_samples(draw, loaded):
    calls = []
    encoder = loaded.model.lr_encoder
    hook = encoder.register_forward_hook(lambda module, args, out: calls.append(args[0].shape[0]))
    try:
        settings = replace(SMALL, batch_size=1)
        one = draw("one", samples=1, settings=settings).tiles
        assert sum(calls) == one
        calls.clear()
        draw("five", samples=5, settings=settings)
        assert sum(calls) == one
    finally:
        hook.remove()


def test_mean_and_deviation_are_those_of_the_samples(draw):
    result = draw(samples=4)
    files = pictures(result)
    stack = np.stack([files[f"s{i}"] for i in range(4)])
    assert np.abs(files["mean"] - stack.mean(0)).max() <= 1.6
    expected = np.sqrt(stack.var(0, ddof=1).mean(-1))
    values = levels(result.sets[0].std_values_file) / 257
    assert np.abs(values - expected).max() < 1
    assert result.sets[0].std_mean == pytest.approx(values.mean(), abs=0.01)


def test_temperature_zero_has_no_deviation(draw):
    result = draw(samples=3, temperatures=(0.0,))
    assert levels(result.sets[0].std_values_file).max() == 0
    assert result.sets[0].apd_mse == 0


def test_lr_psnr_is_that_of_the_file(draw, tmp_path):
    result = draw(samples=2)
    lr = read_picture(tmp_path / "face.png").rgb
    for picture in result.sets[0].pictures:
        file = torch.from_numpy(levels(picture.file) / 255).permute(2, 0, 1)[None]
        mse = (degrade(file, 4) - lr.double()).square().mean().item()
        assert picture.lr_psnr == pytest.approx(-10 * np.log10(mse), abs=0.1)
        assert picture.lr_psnr > 75
        assert picture.lr_psnr_float > 82
        assert picture.lr_same == 1


@pytest.mark.parametrize("wrap", ["x", "y", "xy"])
@pytest.mark.parametrize("is_masked", [False, True])
def test_a_periodic_picture_is_measured_as_one(draw, tmp_path, save_picture, wrap, is_masked):
    picture = save_picture(tmp_path / "tile.png", 30, 32)
    mask = np.zeros((32, 30), np.uint8)
    mask[:6, :] = mask[:, :6] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = {"source": picture, "samples": 2, "settings": replace(SMALL, wrap=wrap)}
    if is_masked:
        options["mask"] = tmp_path / "mask.png"
    result = draw(report=tmp_path / "r.html", **options)
    assert result.wrap == wrap and "periodic" in (tmp_path / "r.html").read_text()
    lr = read_picture(picture).rgb.double()
    beyond = [2 * (axis in wrap) for axis in "xy"]
    padding = [side for beside in beyond for side in (beside, beside)]
    for picture in result.sets[0].pictures:
        file = torch.from_numpy(levels(picture.file) / 255).permute(2, 0, 1)[None]
        around = degrade(F.pad(file, [4 * p for p in padding], mode="circular"), 4)
        reduced = around[:, :, beyond[1] : beyond[1] + 32, beyond[0] : beyond[0] + 30]
        mse = (reduced - lr).square().mean().item()
        assert picture.lr_psnr == pytest.approx(-10 * np.log10(mse), abs=0.1)
        assert picture.lr_psnr > (60 if is_masked else 75)
        assert picture.lr_psnr_float > (60 if is_masked else 82)
        assert picture.lr_same > (0.99 if is_masked else 0.9999)


@pytest.mark.parametrize("periodic", ["", "x", "y", "xy"])
@pytest.mark.parametrize(("height", "strips"), [(20, (1, 2, 3, 14)), (20, (20,)), (3, (1, 2))])
def test_strips_give_the_fidelity_of_the_whole(periodic, height, strips):
    """That of the middle of nine copies, where it is periodic."""
    hr = torch.rand(2, 3, 4 * height, 24, generator=torch.Generator().manual_seed(6))
    copies = hr.repeat(1, 1, *(3 if axis in periodic else 1 for axis in "yx"))
    (top, left) = ((height, 6)[i] if axis in periodic else 0 for i, axis in enumerate("yx"))
    lr = degrade(copies, 4)[0, :, top : top + height, left : left + 6]
    fidelity = LrFidelity(lr, 2, 4, periodic=periodic)
    for rows in hr.split([4 * s for s in strips], dim=2):
        fidelity.add(rows)
    assert fidelity.psnr()[0] > 130 and fidelity.same()[0] == 1
    assert fidelity.psnr()[1] < 30 and fidelity.same()[1] < 0.2


def test_without_projection_the_figure_says_so(draw):
    result = draw(samples=2, consistency=False)
    assert result.consistency is False
    assert all(p.lr_psnr < 60 for p in result.sets[0].pictures)


def test_a_lossy_file_is_measured_as_it_is(draw, tmp_path, loaded):
    result = sample_diverse(
        Source(path=tmp_path / "face.png"),
        OutputNames(base=tmp_path / "lossy" / "face.jpg"),
        loaded,
        DiverseRequest(samples=1, settings=SMALL, quality=60),
        CPU,
        stdin=None,
    )
    (picture,) = result.sets[0].pictures
    assert picture.lr_psnr < 60 < picture.lr_psnr_float


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_grey_alpha_and_deep_pictures(draw, tmp_path, save_picture, mode):
    path = tmp_path / "other.png"
    if mode == "I;16":
        Image.fromarray(
            (np.random.default_rng(0).random((12, 16)) * 40000 + 9000).astype(np.uint16)
        ).save(path)
    else:
        save_picture(path, 16, 12, mode=mode)
        if mode == "RGBA":
            image = Image.new("RGBA", (16, 12), (180, 90, 40))
            image.putalpha(Image.linear_gradient("L").resize((16, 12)))
            image.save(path)
    result = draw(f"out{mode[0]}", source=path, samples=2)
    with Image.open(result.sets[0].pictures[0].file) as file:
        assert file.size == (64, 48)
        assert file.mode == mode
    if mode != "RGBA":
        assert result.sets[0].pictures[0].lr_psnr > 75


def test_a_transparent_input_is_compared_and_shown_on_white(draw, tmp_path):
    """Where the file has no alpha, and on the sheet, as the samples are."""
    path = tmp_path / "clear.png"
    image = Image.new("RGBA", (16, 12), (30, 60, 40))
    image.putalpha(Image.new("L", (16, 12), 64))
    image.save(path)
    result = draw(source=path, samples=2)
    flat = tmp_path / "flat.bmp"
    with Image.open(result.sets[0].pictures[0].file) as made:
        Image.alpha_composite(Image.new("RGBA", made.size, "white"), made).save(flat)
    psnr, _ = measure_file(flat, read_picture(path), SMALL)
    assert psnr > 45
    with Image.open(result.sheet) as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20)}
    on_black, on_white = ({round(c / 4 + w * 0.75) for c in (30, 60, 40)} for w in (0, 255))
    assert any(set(colour) == on_white for colour in colours)
    assert not any(set(colour) == on_black for colour in colours)


def test_several_temperatures_make_sets_and_one_sheet(draw, tmp_path):
    result = draw(samples=2, temperatures=(0.2, 0.8))
    assert [entry.temperature for entry in result.sets] == [0.2, 0.8]
    assert (tmp_path / "out" / "face_x4_t0.2_s1.png").exists()
    assert result.sets[0].apd_mse < result.sets[1].apd_mse
    assert result.sheet == str(tmp_path / "out" / "face_x4_sheet.png")


def test_picks(draw, tmp_path):
    all_of_them = pictures(draw("all", samples=5))
    assert list(pictures(draw("mean", samples=5, pick=parse_pick("mean")))) == ["mean"]
    medoid_run = draw("medoid", samples=5, pick=parse_pick("medoid"))
    (chosen,) = medoid_run.sets[0].pictures
    assert np.array_equal(levels(chosen.file), all_of_them[f"s{chosen.sample}"])
    assert len(list((tmp_path / "medoid").iterdir())) == 1
    far = draw("far", samples=5, pick=parse_pick("farthest-3"))
    assert [p.name for p in far.sets[0].pictures] == ["far1", "far2", "far3"]
    assert len({p.sample for p in far.sets[0].pictures}) == 3


@pytest.mark.parametrize("text", ["best", "farthest", "farthest-1", "farthest-x", ""])
def test_unknown_picks_are_refused(text):
    with pytest.raises(UsageError):
        parse_pick(text)


def test_more_picks_than_samples_are_refused(draw):
    with pytest.raises(UsageError):
        draw(samples=2, pick=parse_pick("farthest-3"))


def test_a_mask_leaves_the_rest_to_the_bit(draw, tmp_path):
    mask = np.zeros((72, 88), np.uint8)
    mask[20:50, 30:63] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    plain = pictures(draw("plain", samples=2))
    result = draw("masked", samples=3, mask=tmp_path / "mask.png")
    masked = pictures(result)
    assert np.array_equal(masked["s0"], plain["s0"])
    for name in ("s1", "s2"):
        assert np.array_equal(masked[name][mask == 0], plain["s0"][mask == 0])
        assert not np.array_equal(masked[name][mask > 0], plain["s0"][mask > 0])
    assert all(p.lr_psnr > 60 for p in result.sets[0].pictures)


def test_a_mask_may_be_of_the_inputs_size(draw, tmp_path):
    mask = np.zeros((18, 22), np.uint8)
    mask[4:9, 5:11] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = pictures(draw(samples=2, mask=tmp_path / "mask.png"))
    changed = (files["s0"] != files["s1"]).any(-1)
    assert changed[16:36, 20:44].any()
    changed[16:36, 20:44] = False
    assert not changed.any()


def test_a_mask_has_the_limit_of_the_input_or_the_pixels_of_the_result(draw, tmp_path):
    reading = ReadOptions(max_pixels=22 * 18)
    for size, told in (((88, 72), None), ((89, 72), "too many pixels|more than"), ((5, 5), "5x5")):
        Image.new("L", size, 255).save(tmp_path / "mask.png")
        with nullcontext() if told is None else pytest.raises(InputError, match=told):
            draw(samples=2, mask=tmp_path / "mask.png", reading=reading)


@pytest.mark.parametrize(("size", "value"), [((5, 5), 255), ((22, 18), 0)])
def test_useless_masks_are_refused(draw, tmp_path, size, value):
    Image.new("L", size, value).save(tmp_path / "mask.png")
    with pytest.raises(InputError):
        draw(samples=2, mask=tmp_path / "mask.png")


def test_latents_round_trip_to_the_bit(draw, tmp_path, tiny_model):
    file = tmp_path / "z.safetensors"
    saved = pictures(draw("saved", samples=3, save_latents=file))
    read = pictures(draw("read", from_latents=file, settings=replace(SMALL, seed=99)))
    assert saved.keys() == read.keys()
    assert all(np.array_equal(saved[name], read[name]) for name in saved)
    again = tmp_path / "again.safetensors"
    draw("again", from_latents=file, save_latents=again)
    grid = latent_grid(tiny_model, 18, 22, SMALL)
    first, second = (load_latents(f, grid) for f in (file, again))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a.layers[k], b.layers[k]) for k in a.layers)


def stored_seed(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["vdsr_latents"])["seed"]


def test_the_seed_of_latents_is_the_one_that_gives_them(draw, tmp_path):
    file, other = tmp_path / "z.safetensors", tmp_path / "other.safetensors"
    saved = draw("saved", samples=3, save_latents=file, settings=replace(SMALL, seed=7))
    assert saved.seed == stored_seed(file) == 7
    read = draw("read", from_latents=file, save_latents=other, report=tmp_path / "r.html")
    assert read.seed == stored_seed(other) == 7
    again = draw("again", samples=3, settings=replace(SMALL, seed=read.seed))
    first, second = pictures(read), pictures(again)
    assert all(np.array_equal(first[name], second[name]) for name in ("s0", "s1", "s2", "mean"))
    walk = Walk(start=0, end=2, steps=3)
    assert draw("walk", from_latents=file, walk=walk, save_latents=tmp_path / "w.st").seed == 7
    assert stored_seed(tmp_path / "w.st") is None
    assert draw("walked", from_latents=tmp_path / "w.st", report=tmp_path / "w.html").seed is None
    assert "unknown" in (tmp_path / "w.html").read_text()


@pytest.mark.parametrize("seed", [{}, {"seed": 8}, {"seed": "7"}, {"seed": -(10**40)}])
def test_a_seed_that_does_not_give_the_latents_is_not_told(draw, tmp_path, tiny_model, seed):
    file = tmp_path / "z.safetensors"
    noises = [NoiseField(seed=7, sample=index) for index in range(2)]
    save_latents(file, noises, latent_grid(tiny_model, 18, 22, SMALL), seed)
    assert draw(from_latents=file).seed is None


@pytest.mark.parametrize(
    ("stored", "is_told"),
    [("tiny", False), (None, False), ("elsewhere/tiny.safetensors", True), ("cvdvae-x4", True)],
)
def test_latents_of_a_model_of_another_name_are_told(
    draw, tmp_path, tiny_model, loaded, stored, is_told
):
    """Files and runs may move; two published models are two."""
    file = tmp_path / "z.safetensors"
    grid = latent_grid(tiny_model, 18, 22, SMALL)
    save_latents(file, [NoiseField(seed=0)], grid, {"model": stored} if stored else {})
    assert any("may be another model" in n for n in draw(from_latents=file).notes) is is_told
    published = replace(loaded, name="vdvae-sr-x4", record=load_records()["vdvae-sr-x4"])
    if stored == "cvdvae-x4":
        with pytest.raises(InputError, match="its latents are of cvdvae-x4, not of vdvae-sr-x4"):
            check_latents(file, published)
    else:
        check_latents(file, published)


def test_fewer_of_the_latents_may_be_used_not_more(draw, tmp_path):
    file = tmp_path / "z.safetensors"
    draw("saved", samples=2, save_latents=file)
    assert draw("one", from_latents=file, samples=1).sets[0].samples == 1
    with pytest.raises(UsageError):
        draw("three", from_latents=file, samples=3)


def test_latents_of_another_picture_are_refused(draw, tmp_path, save_picture):
    file = tmp_path / "z.safetensors"
    draw("saved", samples=1, save_latents=file)
    other = save_picture(tmp_path / "other.png", 40, 18)
    with pytest.raises(InputError, match="another size"):
        draw("other", source=other, from_latents=file)


def test_files_that_hold_no_latents_are_refused(draw, tmp_path):
    (tmp_path / "z.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError):
        draw(from_latents=tmp_path / "z.safetensors")
    with pytest.raises(InputError):
        draw(from_latents=tmp_path / "missing.safetensors")


def test_a_walk_starts_and_ends_at_samples(draw):
    samples = pictures(draw("plain", samples=4))
    walk = pictures(draw("walk", walk=Walk(start=1, end=3, steps=4)))
    assert list(walk) == ["w0", "w1", "w2", "w3"]
    assert np.array_equal(walk["w0"], samples["s1"])
    assert np.array_equal(walk["w3"], samples["s3"])
    near, far = (np.abs(walk[name] - samples["s1"]).mean() for name in ("w1", "w2"))
    assert 0 < near < far


def test_a_walk_keeps_the_length_of_noise(tiny_model):
    grid = latent_grid(tiny_model, 32, 32, SMALL)
    a, b = NoiseField(seed=0, sample=0), NoiseField(seed=0, sample=1)
    middle = WalkNoise(a, b, 0.5, layer_angles(a, b, grid))
    for shape in grid.shapes:
        lengths = [grid.draw(noise, shape).norm().item() for noise in (a, middle, b)]
        assert (
            min(lengths[0], lengths[2]) * 0.99 <= lengths[1] <= max(lengths[0], lengths[2]) * 1.01
        )


def test_masked_noise_takes_each_where_it_should(tiny_model):
    grid = latent_grid(tiny_model, 16, 16, SMALL)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[5, 33] = True
    a, b = NoiseField(seed=0, sample=0), NoiseField(seed=0, sample=1)
    mixed = MaskedNoise(a, b, mask, grid.shapes)
    for shape in grid.shapes:
        is_a = (grid.draw(mixed, shape) == grid.draw(a, shape)).all(-1)
        assert is_a.sum() == 1
        assert is_a[5 // shape.cell, 33 // shape.cell]


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 0},
        {"temperatures": ()},
        {"temperatures": (0.5, 0.5)},
        {"temperatures": (3.0,)},
        {"walk": Walk(start=0, end=1), "pick": parse_pick("mean")},
    ],
)
def test_impossible_requests_are_refused(options):
    with pytest.raises(UsageError):
        DiverseRequest(**options)


def test_existing_outputs_are_kept_unless_told_otherwise(draw, tmp_path):
    draw(samples=2)
    with pytest.raises(OutputError, match="exists already"):
        draw(samples=2)
    assert draw(samples=2, existing=Existing.skip).status == "skipped"
    (tmp_path / "out" / "face_x4_s1.png").unlink()
    (tmp_path / "out" / "face_x4_sheet.png").write_bytes(b"precious")
    assert draw(samples=2, existing=Existing.skip).status == "done"
    assert (tmp_path / "out" / "face_x4_s1.png").exists()
    assert (tmp_path / "out" / "face_x4_sheet.png").read_bytes() == b"precious"
    assert draw(samples=2, existing=Existing.overwrite).status == "done"


def test_without_lpips_weights_there_is_a_note(draw, tmp_path):
    result = draw(samples=2, metric_weights=tmp_path)
    assert result.sets[0].apd_lpips is None
    assert any("lpips_alex" in note for note in result.notes)


def test_writes_a_report(draw, tmp_path):
    result = draw(samples=2, temperatures=(0.3, 0.9), report=tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text()
    assert "t 0.3, s1" in page
    assert "up to" in page
    assert result.report == str(tmp_path / "out.html")


def test_pairwise_distances_are_mean_squares():
    rows = torch.rand(4, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    distances = PairwiseDistances(4)
    distances.add(rows[:, :, :3])
    distances.add(rows[:, :, 3:])
    expected = (rows[:, None] - rows[None]).double().square().mean(dim=(2, 3, 4))
    assert torch.allclose(distances.matrix(), expected)
    assert mean_of_pairs(distances.matrix()) == pytest.approx(expected.sum().item() / 12)


def test_medoid_and_farthest():
    points = torch.tensor([0.0, 1.0, 1.1, 5.0, -4.0]).double()
    distances = (points[:, None] - points[None]).square()
    assert medoid(distances) == 1
    assert farthest(distances, 2) == (3, 4)
    assert farthest(torch.cat([distances, distances]).repeat(1, 2), 9)
    many = torch.arange(40.0).double()
    chosen = farthest((many[:, None] - many[None]).square(), 5)
    assert len(set(chosen)) == 5
    assert {0, 39} <= set(chosen)


def test_viridis_ends():
    colours = viridis(np.array([[0.0, 0.5, 1.0, 9.0]]), largest=1.0)
    assert colours[0, 0].tolist() == [68, 1, 84]
    assert colours[0, 2].tolist() == [253, 231, 36]
    assert colours[0, 3].tolist() == [253, 231, 36]


def test_saved_latents_name_their_layers(tmp_path, tiny_model):
    grid = latent_grid(tiny_model, 8, 8, SMALL)
    file = tmp_path / "z.safetensors"
    save_latents(file, [NoiseField(seed=1)], grid, {"model": "tiny"})
    (stored,) = load_latents(file, grid)
    for shape in grid.shapes:
        assert torch.equal(grid.draw(stored, shape), grid.draw(NoiseField(seed=1), shape))

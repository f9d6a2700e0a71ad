"""Whole pictures: sizes, stages, alpha, depth, grey and faithfulness to the input."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from loaded import CPU
from PIL import Image

from vdsr_cli.consistency import degrade
from vdsr_cli.errors import OutputError, UsageError
from vdsr_cli.images import Metadata, Picture, read_picture
from vdsr_cli.loading import LoadedModel
from vdsr_cli.models.sampling import AnySizeSampling
from vdsr_cli.outputs import Existing
from vdsr_cli.paths import STDIN, Source
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.sampling.pipeline import stage_sizes
from vdsr_cli.services.upscale import (
    UpscaleRequest,
    plan_picture,
    upscale_file,
    upscale_picture,
)

SCALES = [1, 1.5, 2, 3, 4, 8, 16]


@pytest.fixture(scope="module")
def loaded(tiny_model) -> LoadedModel:
    card = {"degradation": "bicubic"}
    return LoadedModel(name="tiny", model=tiny_model, record=None, card=card, parameters=1)


def colours(height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    """A smooth picture (1, 3, h, w) between 0.35 and 0.65, from which nothing saturates."""
    rough = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(rough, size=(height, width), mode="bilinear") * 0.3 + 0.35


def picture(height: int = 12, width: int = 10, *, alpha=None, **facts) -> Picture:
    rgb = colours(height, width)
    if facts.get("is_grey"):
        rgb = rgb.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    if alpha is not None:
        rgb = rgb * alpha
    return Picture(rgb=rgb, alpha=alpha, metadata=Metadata(**facts))


def request(scale: float = 4, **options) -> UpscaleRequest:
    fields = {field.name for field in dataclasses.fields(SamplingSettings)}
    sampling = {name: value for name, value in options.items() if name in fields}
    rest = {name: value for name, value in options.items() if name not in fields}
    chosen = SamplingSettings(**{"tile": 16, "overlap": 4, "temperature": 0.5, **sampling})
    return UpscaleRequest(scale=scale, settings=chosen, **rest)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("height", "width"), [(12, 10), (1, 1), (1, 7)])
@pytest.mark.parametrize("consistency", [True, False])
def test_sizes_are_the_input_times_the_scale(loaded, scale, height, width, consistency):
    told = []
    wanted = request(scale, consistency=consistency)
    source = picture(height, width)
    canvas = upscale_picture(source, loaded, wanted, CPU, on_tiles=told.append)
    assert (canvas.height, canvas.width) == (round(height * scale), round(width * scale))
    assert canvas.levels().shape[2] == 3
    assert sum(told) == plan_picture(source, loaded, wanted, CPU).tiles


@given(
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    native=st.sampled_from([2, 3, 4, 8]),
    scale=st.sampled_from([1, 2, 3, 4, 8, 16]) | st.floats(1, 16),
)
def test_stages_end_at_the_size_wanted(height, width, native, scale):
    sizes = stage_sizes(height, width, native=native, scale=scale)
    assert sizes[-1] == (max(1, round(height * scale)), max(1, round(width * scale)))
    assert len(sizes) == (1 if scale <= native else 2)


@pytest.mark.parametrize("scale", SCALES)
def test_the_result_is_the_picture_and_not_a_shifted_one(loaded, scale):
    """Near a plain bicubic enlargement of the same input, and nearer than to one moved aside."""
    source = picture(24, 20)
    canvas = upscale_picture(source, loaded, request(scale, temperature=0.0), CPU)
    result = torch.from_numpy(canvas.levels().copy()).permute(2, 0, 1)[None].float() / 255
    plain = F.interpolate(
        source.rgb, size=result.shape[2:], mode="bicubic", antialias=True, align_corners=False
    )
    assert (result - plain).abs().mean() < 0.06
    for axis in (2, 3):
        for shift in (-2, 2):
            moved = torch.roll(plain, round(shift * scale), axis)
            assert (result - plain).square().mean() < (result - moved).square().mean()


@pytest.mark.parametrize("scale", SCALES)
def test_a_ramp_stays_in_its_place(loaded, scale):
    """Pixel centres are half-way: output pixel i shows the input at (i + 1/2) / scale - 1/2."""
    ramp = torch.linspace(0.2, 0.8, 40)
    source = Picture(rgb=ramp.expand(1, 3, 40, 40) * 1.0, metadata=Metadata(bit_depth=16))
    bicubic = dataclasses.replace(loaded, model=BaseOnly(loaded.model))
    canvas = upscale_picture(source, bicubic, request(scale, tile=0, consistency=False), CPU)
    row = canvas.levels()[canvas.height // 2, :, 0] / 65535
    place = (np.arange(canvas.width) + 0.5) / scale - 0.5
    inner = (place > 6) & (place < 33)
    assert np.abs(row - (0.2 + 0.6 * place / 39))[inner].max() < 1e-3


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_the_result_degrades_to_the_input(loaded, scale, temperature, bit_depth):
    source = picture(12, 10, bit_depth=bit_depth)
    canvas = upscale_picture(source, loaded, request(scale, temperature=temperature), CPU)
    full = 2**bit_depth - 1
    levels = torch.from_numpy(canvas.levels().astype(np.float64)).permute(2, 0, 1)[None]
    error = degrade(levels / full, scale) - source.rgb
    # Each pixel was rounded by half a level at most; A averages, with some negative weights.
    assert error.abs().max() < 0.8 / full + 2e-5


def test_without_consistency_it_does_not(loaded):
    source = picture()
    canvas = upscale_picture(source, loaded, request(consistency=False), CPU)
    levels = torch.from_numpy(canvas.levels().astype(np.float64)).permute(2, 0, 1)[None]
    assert (degrade(levels / 255, 4) - source.rgb).abs().max() > 3 / 255


@pytest.mark.parametrize(("card", "is_projected"), [({}, False), ({"degradation": "real"}, False)])
def test_consistency_is_the_models_to_choose(loaded, card, is_projected):
    other = dataclasses.replace(loaded, card=card)
    source = picture()
    by_default = upscale_picture(source, other, request(), CPU).levels()
    told = upscale_picture(source, loaded, request(consistency=is_projected), CPU).levels()
    assert np.array_equal(by_default, told)


@settings(max_examples=6)
@given(height=st.integers(1, 90), width=st.integers(1, 20))
def test_tiles_do_not_show_in_the_projection(loaded, height, width):
    """Strip by strip or whole, tall or flat, the projected picture is the same."""
    source = picture(height, width)
    one = upscale_picture(source, loaded, request(tile=0, batch_size=1), CPU).levels()
    again = upscale_picture(source, loaded, request(tile=0, batch_size=16), CPU).levels()
    assert np.abs(one.astype(int) - again).max() <= 1
    wide = {"overlap": 8, "temperature": 0.0}
    tiled = upscale_picture(source, loaded, request(tile=16, **wide), CPU).levels()
    whole = upscale_picture(source, loaded, request(tile=0, **wide), CPU).levels()
    assert np.abs(tiled.astype(int) - whole).mean() < 2


def test_16_bits_are_used(loaded):
    deep = upscale_picture(picture(bit_depth=16), loaded, request(), CPU).levels()
    flat = upscale_picture(picture(bit_depth=8), loaded, request(), CPU).levels()
    assert deep.dtype == np.uint16 and flat.dtype == np.uint8
    assert np.abs(deep / 65535 - flat / 255).max() < 1.1 / 255
    assert len(np.unique(deep)) > 256


def test_a_grey_picture_stays_grey(loaded):
    grey = upscale_picture(picture(is_grey=True), loaded, request(), CPU).levels()
    assert grey.shape == (48, 40, 1)


def opaque_disc(height: int, width: int) -> torch.Tensor:
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 3) ** 2
    return inside.float()[None, None]


def test_alpha_is_upscaled_and_colours_have_no_fringe(loaded):
    height = width = 16
    alpha = opaque_disc(height, width)
    rgb = torch.tensor([0.4, 0.6, 0.5]).view(1, 3, 1, 1).expand(1, 3, height, width) * alpha
    source = Picture(rgb=rgb, alpha=alpha, metadata=Metadata())

    told = []
    wanted = request(temperature=0.0, consistency=False)
    bicubic = dataclasses.replace(loaded, model=BaseOnly(loaded.model))
    canvas = upscale_picture(source, bicubic, wanted, CPU, on_tiles=told.append)
    levels = canvas.levels()
    assert levels.shape == (64, 64, 4)
    assert sum(told) == plan_picture(source, bicubic, wanted, CPU).tiles
    cover = levels[:, :, 3] / 255
    assert cover[0, 0] == 0 and cover[32, 32] == 1
    assert abs(cover.mean() - float(alpha.mean())) < 0.01
    visible = cover > 0.1
    assert np.abs(levels[visible][:, :3] / 255 - [0.4, 0.6, 0.5]).max() < 0.03


class BaseOnly(AnySizeSampling):
    """The tests' model reduced to its bicubic picture."""

    def __init__(self, model) -> None:
        self.model = model
        self.scale, self.lr_multiple = model.scale, model.lr_multiple
        self.latent_shapes: list = []

    def sample(self, lr, noise, temperature, *, repeats=1):
        base = self.model.base(lr).repeat_interleave(repeats, 0)
        return torch.cat([base, torch.full_like(base, -7.0)], 1)


def test_alpha_does_not_depend_on_the_temperature_or_the_seed(loaded):
    source = picture(16, 16, alpha=opaque_disc(16, 16))
    first = upscale_picture(source, loaded, request(temperature=0.8), CPU).levels()
    other = upscale_picture(source, loaded, request(temperature=0.8, seed=1), CPU).levels()
    assert np.array_equal(first[:, :, 3], other[:, :, 3])
    assert not np.array_equal(first[:, :, :3], other[:, :, :3])


@pytest.mark.parametrize("scale", [0.99, 16.01, 0, -4, float("nan"), float("inf")])
def test_scales_out_of_range_are_refused(scale):
    with pytest.raises(UsageError, match="--scale"):
        UpscaleRequest(scale=scale)


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf"), -float("inf"), 99])
def test_temperatures_out_of_range_are_refused(temperature):
    with pytest.raises(UsageError, match="--temperature"):
        request(temperature=temperature)


def size_of(file) -> tuple[int, int]:
    with Image.open(file) as opened:
        opened.load()
        return opened.size


def upscale_path(path: Path, output: Path | None, loaded, wanted=None, stdin=b""):
    stdout = io.BytesIO()
    source = STDIN if path is None else Source(path=path)
    result = upscale_file(
        source, output, loaded, wanted or request(), CPU, stdin=io.BytesIO(stdin), stdout=stdout
    )
    return result, stdout.getvalue()


def test_a_file_becomes_a_file_and_a_result(loaded, tmp_path, save_picture):
    path, out = save_picture(tmp_path / "a.png"), tmp_path / "sub" / "b.png"
    result, _ = upscale_path(path, out, loaded)
    assert size_of(out) == (48, 32)
    facts = result.as_json()
    assert facts["status"] == "done" and facts["exit_code"] == 0
    assert (facts["width"], facts["height"], facts["scale"]) == (48, 32, 4)
    assert facts["seed"] == 0 and facts["consistency"] is True and facts["seconds"] > 0
    assert "error" not in facts and "hint" not in facts


@pytest.mark.parametrize(
    ("device", "cores", "threads"), [("cpu", 16, 1), ("meta", 16, 8), ("meta", 2, 2)]
)
def test_threads_encode_where_the_model_leaves_the_cores(
    loaded, tmp_path, save_picture, monkeypatch, device, cores, threads
):
    seen = []

    def open_file(*args, threads, **options):
        seen.append(threads)
        raise OutputError("enough")

    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("vdsr_cli.services.upscale.open_picture_file", open_file)
    runtime = dataclasses.replace(CPU, device=torch.device(device))
    path, streams = (
        save_picture(tmp_path / "a.png"),
        {"stdin": io.BytesIO(), "stdout": io.BytesIO()},
    )
    out = tmp_path / "b.png"
    upscale_file(Source(path=path), out, loaded, UpscaleRequest(), runtime, **streams)
    assert seen == [threads]


def test_streams_in_and_out(loaded, tmp_path, save_picture):
    content = save_picture(tmp_path / "a.png").read_bytes()
    result, out = upscale_path(None, None, loaded, stdin=content)
    assert result.exit_code == 0
    assert size_of(io.BytesIO(out)) == (48, 32)


def test_a_failure_is_a_result_and_leaves_nothing(loaded, tmp_path):
    path = tmp_path / "bad.png"
    path.write_bytes(b"no picture")
    result, _ = upscale_path(path, tmp_path / "out.png", loaded)
    assert (result.status, result.exit_code, result.output) == ("failed", 3, None)
    assert str(path) in result.error
    assert list(tmp_path.iterdir()) == [path]


def test_existing_outputs_are_refused_skipped_or_replaced(loaded, tmp_path, save_picture):
    path, out = save_picture(tmp_path / "a.png"), tmp_path / "b.png"
    out.write_bytes(b"precious")
    refused, _ = upscale_path(path, out, loaded)
    assert refused.exit_code == 6 and "exists" in refused.error and out.read_bytes() == b"precious"
    skipped, _ = upscale_path(path, out, loaded, request(existing=Existing.skip))
    assert skipped.exit_code == 0 and skipped.status == "skipped"
    assert out.read_bytes() == b"precious"
    replaced, _ = upscale_path(path, out, loaded, request(existing=Existing.overwrite))
    assert replaced.status == "done" and size_of(out) == (48, 32)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("existing", Existing)
def test_an_output_that_appears_meanwhile(loaded, tmp_path, save_picture, suffix, existing):
    """It is kept unless it may be replaced, and the one that lost says so."""
    path, out = save_picture(tmp_path / "a.png"), tmp_path / f"b{suffix}"
    result = upscale_file(
        Source(path=path),
        out,
        loaded,
        request(existing=existing),
        CPU,
        stdin=io.BytesIO(),
        stdout=io.BytesIO(),
        on_start=lambda tiles: out.write_bytes(b"another"),
    )
    assert sorted(place.name for place in tmp_path.iterdir()) == ["a.png", out.name]
    if existing is Existing.overwrite:
        assert result.status == "done" and size_of(out) == (48, 32)
        return
    assert out.read_bytes() == b"another"
    if existing is Existing.skip:
        assert result.status == "skipped"
    else:
        assert result.exit_code == 6 and f"{out} has appeared meanwhile" in result.error


def test_the_resolution_is_kept(loaded, tmp_path, save_picture):
    path = tmp_path / "a.png"
    with Image.open(save_picture(tmp_path / "plain.png")) as plain:
        plain.save(path, dpi=(300, 300))
    upscale_path(path, tmp_path / "b.png", loaded)
    assert read_picture(tmp_path / "b.png").metadata.dpi == pytest.approx((300, 300), abs=1)

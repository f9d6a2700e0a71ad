"""The sampling engine: what comes out does not depend on how the work was cut."""

import dataclasses
import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from loaded import CPU, smooth

from vdsr_cli.errors import DeviceError, UsageError
from vdsr_cli.models.protocol import LatentShape
from vdsr_cli.models.sampling import AnySizeSampling
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling import engine
from vdsr_cli.sampling.engine import SamplingSettings, Strip, plan_picture, sample_strips
from vdsr_cli.sampling.latents import StoredNoise, latent_grid
from vdsr_cli.sampling.noise import PIXEL_LAYER, NoiseField


def upscaled(model, lr: torch.Tensor, runtime: Runtime = CPU, **options) -> torch.Tensor:
    """All strips, one below the other: (samples, 3, H, W)."""
    chosen = SamplingSettings(**{"tile": 16, "overlap": 8, **options})
    return torch.cat([s.pixels for s in sample_strips(model, lr, chosen, runtime)], dim=2)


class Bicubic(AnySizeSampling):
    """A model without latents: the bicubic picture, whose reach is two LR pixels."""

    scale = 4
    lr_multiple = 4
    latent_shapes: tuple[LatentShape, ...] = ()

    def sample(self, lr, noise, temperature, *, repeats=1):
        up = F.interpolate(lr.float(), scale_factor=self.scale, mode="bicubic", align_corners=False)
        mean = (2 * up - 1).repeat_interleave(repeats, 0)
        return torch.cat([mean, torch.full_like(mean, -4.0)], dim=1)


class Echo(Bicubic):
    """The bicubic picture plus the noise of every layer, laid out as the layers lie: no reach."""

    latent_shapes = (
        LatentShape(layer=0, channels=3, cell=16),
        LatentShape(layer=1, channels=4, cell=8),
        LatentShape(layer=2, channels=3, cell=2),
    )

    def sample(self, lr, noise, temperature, *, repeats=1):
        out = super().sample(lr, noise, temperature, repeats=repeats)
        for shape in self.latent_shapes:
            drawn = F.interpolate(noise(shape), scale_factor=shape.cell, mode="nearest")
            assert drawn.shape[2:] == out.shape[2:] and len(drawn) == len(out)
            out[:, :3] += 0.1 * temperature * drawn[:, :3]
        return out


class MarginEcho(Echo):
    """The same with a margin all around, which is cut off."""

    margin = 8


CUTS = st.fixed_dictionaries(
    {
        "tile": st.sampled_from([0, 8, 16, 24, 40, 64]),
        "overlap": st.just(4),
        "batch_size": st.sampled_from([24, 1, 2, 3, 16]),
    }
)
WIDE_CUTS = st.fixed_dictionaries(
    {
        "tile": st.sampled_from([0, 16, 24, 40, 64]),
        "overlap": st.just(8),
        "batch_size": st.sampled_from([24, 1, 5, 16]),
    }
)


@given(height=st.integers(1, 50), width=st.integers(1, 50), cut=WIDE_CUTS)
def test_tiles_of_a_local_model_leave_no_trace(height, width, cut):
    lr = smooth(height, width)
    padded = plan_picture(
        height, width, cell=4, settings=SamplingSettings(tile=0, overlap=0)
    ).padding.apply(lr)
    whole = (Bicubic().sample(padded[None], None, 0)[:, :3] + 1) / 2
    tiled = upscaled(Bicubic(), lr, temperature=0.0, **cut)
    assert tiled.shape == (1, 3, 4 * height, 4 * width)
    assert torch.allclose(tiled, whole[:, :, : 4 * height, : 4 * width], atol=1e-5)


@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    cut=CUTS,
    seed=st.integers(-(2**40), 2**40),
    samples=st.lists(st.integers(0, 50), min_size=1, max_size=3),
)
def test_noise_is_that_of_the_place_however_the_work_is_cut(height, width, cut, seed, samples):
    lr = torch.zeros(3, height, width)
    settings_ = {"seed": seed, "samples": tuple(samples), "temperature": 0.8}
    tiled = upscaled(Echo(), lr, **settings_, **cut)
    expected = torch.zeros(len(samples), 3, 4 * height, 4 * width)
    for pixels, sample in zip(expected, samples, strict=True):
        for shape in Echo.latent_shapes:
            rows, columns = (
                torch.arange(side, dtype=torch.int32) // shape.cell
                for side in (4 * height, 4 * width)
            )
            field = NoiseField(seed=seed, sample=sample)
            drawn = field.normal(shape.layer, rows, columns, shape.channels)
            pixels += 0.1 * 0.8 * drawn.permute(2, 0, 1)[:3] / 2
    assert torch.allclose(tiled, expected, atol=1e-5)


def test_the_model_gets_the_picture_as_precise_as_it_is():
    low = Runtime(device=torch.device("cpu"), dtype=torch.bfloat16)
    assert torch.equal(upscaled(Bicubic(), smooth(), low), upscaled(Bicubic(), smooth()))


@pytest.mark.parametrize("batch_size", [1, 2, 24])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_tile_and_batch_hardly_matter(tiny_model, temperature, batch_size):
    """The rest is the zero padding that reaches past the quarter overlap of a batch's edge."""
    whole = upscaled(tiny_model, smooth(), tile=0, overlap=16, temperature=temperature)
    cut = {"tile": 32, "overlap": 16, "batch_size": batch_size}
    tiled = upscaled(tiny_model, smooth(), **cut, temperature=temperature)
    texture = (whole - upscaled(Bicubic(), smooth(), temperature=0.0)).abs().mean()
    assert (tiled - whole).abs().mean() < 0.05 * texture


def test_several_samples_in_one_pass_equal_single_ones(tiny_model):
    together = upscaled(tiny_model, smooth(), samples=(0, 1, 7))
    for pixels, index in zip(together, (0, 1, 7), strict=True):
        alone = upscaled(tiny_model, smooth(), samples=(index,))
        assert torch.allclose(pixels, alone[0], atol=1e-5)
    assert (together[0] - together[1]).abs().mean() > 0.005


def test_temperature_0_does_not_depend_on_seed_or_sample(tiny_model):
    first = upscaled(tiny_model, smooth(), temperature=0.0, seed=0)
    assert torch.equal(first, upscaled(tiny_model, smooth(), temperature=0.0, seed=9))
    assert torch.equal(first, upscaled(tiny_model, smooth(), temperature=0.0, samples=(5,)))


@pytest.mark.parametrize("output", ["mean", "sample"])
def test_one_seed_gives_the_same_bits_and_another_does_not(tiny_model, output):
    first = upscaled(tiny_model, smooth(), seed=3, output=output)
    assert torch.equal(first, upscaled(tiny_model, smooth(), seed=3, output=output))
    other = upscaled(tiny_model, smooth(), seed=4, output=output)
    assert (first - other).abs().mean() > 0.005


def test_global_random_state_is_neither_read_nor_changed(tiny_model):
    torch.manual_seed(1)
    first = upscaled(tiny_model, smooth(), output="sample")
    drawn = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(first, upscaled(tiny_model, smooth(), output="sample"))
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))


def test_more_temperature_is_more_texture(tiny_model):
    mean = upscaled(tiny_model, smooth(), temperature=0.0)
    away = [
        (upscaled(tiny_model, smooth(), temperature=t) - mean).abs().mean() for t in (0.2, 0.5, 1)
    ]
    assert 0 < away[0] < away[1] < away[2]


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 20),
    tile=st.sampled_from([0, 8, 16, 32]),
)
def test_strips_cover_the_picture_in_order(height, width, tile):
    chosen = SamplingSettings(tile=tile, overlap=4, temperature=0.0)
    expected_top = 0
    for strip in sample_strips(Bicubic(), smooth(height, width), chosen, CPU):
        assert isinstance(strip, Strip) and strip.top == expected_top
        assert strip.pixels.shape[:2] == (1, 3) and strip.pixels.shape[2] > 0
        assert strip.pixels.shape[3] == 4 * width and strip.pixels.dtype == torch.float32
        expected_top += strip.pixels.shape[2]
    assert expected_top == 4 * height


def test_every_tile_is_told_once(tiny_model):
    lr, told = smooth(), []
    chosen = SamplingSettings(tile=16, overlap=8, batch_size=3)
    for _ in sample_strips(tiny_model, lr, chosen, CPU, on_tiles=told.append):
        pass
    plan = plan_picture(*lr.shape[1:], cell=4, settings=chosen)
    assert sum(told) == plan.tiles > 9 and max(told) <= 3


def test_a_strip_leaves_before_the_next_row_of_tiles_is_drawn():
    """Memory is that of one row of tiles, not of the picture."""
    lr, told = smooth(400, 24), []
    chosen = SamplingSettings(tile=16, overlap=8, temperature=0.0, batch_size=2)
    plan = plan_picture(400, 24, cell=4, settings=chosen)
    columns = len(plan.columns.starts)
    strips = sample_strips(Bicubic(), lr, chosen, CPU, on_tiles=told.append)
    for row, strip in enumerate(strips):
        assert sum(told) == (row + 1) * columns
        assert strip.pixels.shape[2] <= 16 * 4


class Failing(Bicubic):
    """Runs out of memory on batches of more than ``room`` tiles of 16 that share 8."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error, self.batches = room, error, []

    def sample(self, lr, noise, temperature, *, repeats=1):
        self.batches.append((lr.shape[3] - 16) // 8 + 1)
        if self.batches[-1] * repeats > self.room:
            raise self.error
        return super().sample(lr, noise, temperature, repeats=repeats)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_out_of_memory_halves_the_batch_and_goes_on(error, room):
    model = Failing(room, error)
    told = []
    chosen = SamplingSettings(tile=16, overlap=8, temperature=0.0, batch_size=16)
    lr = smooth(30, 100)
    strips = list(sample_strips(model, lr, chosen, CPU, on_tiles=told.append))
    done = torch.cat([s.pixels for s in strips], 2)
    assert torch.allclose(done, upscaled(Bicubic(), lr, temperature=0.0), atol=1e-5)
    assert sum(told) == plan_picture(30, 100, cell=4, settings=chosen).tiles
    done = [b for b in model.batches if b <= room]
    assert max(done) > room / 2, "the batch is halved, not given up"


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_with_one_tile_is_a_device_error(error):
    with pytest.raises(DeviceError, match=r"16x16 .*does not fit into memory") as caught:
        upscaled(Failing(0, error), smooth(), batch_size=1)
    assert caught.value.hint == "try --device cpu"
    with pytest.raises(DeviceError, match=r"does not fit into memory") as caught:
        upscaled(Failing(0, error), smooth())
    assert caught.value.hint == "try --batch-size 1"


@pytest.mark.parametrize("side", [40, 44, 68, 76, 200])
def test_the_hint_for_too_little_memory_works(side):
    """The hint must be a tile that the engine takes."""
    with pytest.raises(DeviceError) as caught:
        upscaled(Failing(0, OUT_OF_MEMORY[0]), smooth(side, side), tile=0, overlap=8)
    tile = int(caught.value.hint.split("--tile ")[1].split()[0])
    assert tile < side
    upscaled(Bicubic(), smooth(side, side), tile=tile, overlap=8)


def test_other_errors_are_not_taken_for_memory():
    bug = RuntimeError("shape mismatch")
    with pytest.raises(RuntimeError, match="shape mismatch"):
        upscaled(Failing(0, bug), smooth())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tile_that_is_not_finite_fails_the_picture(value, dtype):
    """The hint is to compute in float32, where that is not done already."""

    class Broken(Bicubic):
        def sample(self, lr, noise, temperature, *, repeats=1):
            out = super().sample(lr, noise, temperature, repeats=repeats)
            out[-1, 0, 3, 3] = value
            return out

    with pytest.raises(DeviceError, match="not finite") as caught:
        upscaled(Broken(), smooth(), Runtime(device=CPU.device, dtype=getattr(torch, dtype)))
    hint = {"float32": None, "bfloat16": "try --dtype float32"}
    assert caught.value.hint == hint[dtype]


def test_pixels_can_be_drawn_from_the_likelihood():
    lr = smooth() * 0.2 + 0.4
    mean = upscaled(Bicubic(), lr, temperature=0.0)
    drawn = upscaled(Bicubic(), lr, temperature=0.0, output="sample", seed=5)
    rows, columns = (torch.arange(4 * side, dtype=torch.int32) for side in lr.shape[1:])
    noise = NoiseField(seed=5).logistic(PIXEL_LAYER, rows, columns, 3).permute(2, 0, 1)
    expected = (mean[0] + torch.tensor(-4.0).exp() * noise / 2).clamp(0, 1)
    assert torch.allclose(drawn[0], expected, atol=1e-5)


def test_drawn_pixels_stay_in_range_and_differ_from_sample_to_sample(tiny_model):
    drawn = upscaled(tiny_model, smooth(), output="sample", samples=(0, 1))
    assert drawn.min() >= -1e-6 and drawn.max() <= 1 + 1e-6
    assert not torch.equal(drawn[0], drawn[1])


class Grainy(Bicubic):
    """One whose colours and neighbouring pixels depend on each other."""

    def sample(self, lr, noise, temperature, *, repeats=1):
        plain = super().sample(lr, noise, temperature, repeats=repeats)
        return torch.cat([plain, plain.new_full((len(plain), 15, *plain.shape[2:]), 0.4)], dim=1)


@pytest.mark.parametrize("kind", [Bicubic, Grainy])
def test_drawn_pixels_are_those_of_the_whole_picture_in_any_tiles(kind):
    whole = upscaled(kind(), smooth(), output="sample", tile=0)
    for options in ({"tile": 24, "batch_size": 1}, {"tile": 16, "overlap": 8}):
        tiled = upscaled(kind(), smooth(), output="sample", **options)
        assert torch.allclose(tiled, whole, atol=1e-5)


def test_half_precision_gives_nearly_the_same(make_tiny):
    half = dataclasses.replace(CPU, dtype=torch.bfloat16)
    exact = upscaled(make_tiny(), smooth(), temperature=0.8)
    rounded = upscaled(half.place(make_tiny()), smooth(), half, temperature=0.8)
    assert (exact - rounded).abs().mean() < 0.02


@pytest.mark.parametrize(("tile", "overlap"), [(18, 8), (16, 6), (16, 12)])
def test_tiles_that_do_not_fit_the_model_are_refused(tiny_model, tile, overlap):
    with pytest.raises(UsageError):
        upscaled(tiny_model, smooth(), tile=tile, overlap=overlap)


def test_gradients_are_not_recorded(tiny_model, make_tiny):
    model = make_tiny().requires_grad_(True)
    assert not upscaled(model, smooth()).requires_grad
    assert torch.equal(upscaled(model, smooth()), upscaled(tiny_model, smooth()))


@settings(max_examples=8)
@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_the_smallest_pictures(tiny_model, height, width):
    out = upscaled(tiny_model, smooth(height, width), tile=64, overlap=16)
    assert out.shape == (1, 3, 4 * height, 4 * width) and out.isfinite().all()


@pytest.mark.parametrize(("height", "width"), [(13, 22), (4, 40), (1, 1)])
def test_a_margin_leaves_the_noise_where_it_is(height, width):
    lr = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))
    plain = upscaled(Echo(), lr, temperature=1.0)[..., 8:-8, 8:-8]
    margined = upscaled(MarginEcho(), lr, temperature=1.0)
    torch.testing.assert_close(margined[..., 8:-8, 8:-8], plain, atol=1e-5, rtol=0)
    grid = latent_grid(MarginEcho(), height, width, SamplingSettings())
    field = NoiseField(seed=0)
    stored = StoredNoise({shape.layer: grid.draw(field, shape) for shape in grid.shapes})
    settings = SamplingSettings(tile=16, overlap=8, temperature=1.0)
    strips = sample_strips(MarginEcho(), lr, settings, CPU, noises=[stored])
    assert torch.equal(torch.cat([strip.pixels for strip in strips], dim=2), margined)


def test_what_a_tile_takes_is_measured_once_and_forgotten_with_its_model(monkeypatch):
    measured = []

    def bytes_of(model, tile, runtime):
        measured.append(tile)
        return tile**2

    monkeypatch.setattr(engine, "_measured_bytes", bytes_of)
    model = Echo()
    assert [engine._tile_bytes(model, tile, CPU) for tile in (16, 16, 32, 16)] == [
        256,
        256,
        1024,
        256,
    ]
    assert measured == [16, 32]
    gone = weakref.ref(model)
    del model
    assert gone() is None

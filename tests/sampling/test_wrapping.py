"""Periodic pictures: beyond an edge is the opposite one, for tiles, noise and projection."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loaded import CPU, loaded_as, smooth

from vdsr_cli.errors import UsageError
from vdsr_cli.images import Metadata, Picture
from vdsr_cli.loading import load
from vdsr_cli.models.protocol import LatentShape, Sampler
from vdsr_cli.models.sampling import AnySizeSampling
from vdsr_cli.sampling.engine import SamplingSettings, plan_for
from vdsr_cli.sampling.noise import NoiseField
from vdsr_cli.sampling.pipeline import draw_rows, plan_upscale
from vdsr_cli.sampling.strips import sampled_strips
from vdsr_cli.sampling.wrapping import surroundings


class BlurredNoise(AnySizeSampling):
    """The bicubic picture and blurred noise: a pixel sees one LR pixel of noise, two of lr."""

    scale = 4
    lr_multiple = 4
    latent_shapes = (
        LatentShape(layer=0, channels=3, cell=16),
        LatentShape(layer=1, channels=3, cell=2),
    )

    def sample(self, lr, noise, temperature, *, repeats=1):
        up = F.interpolate(lr.float(), scale_factor=4, mode="bicubic").repeat_interleave(repeats, 0)
        mean = 2 * up - 1
        if noise is not None:
            drawn = [
                F.interpolate(noise(shape), scale_factor=shape.cell, mode="nearest")
                for shape in self.latent_shapes
            ]
            mean = mean + 0.1 * temperature * F.avg_pool2d(sum(drawn), 9, stride=1, padding=4)
        return torch.cat([mean, torch.full_like(mean, -4.0)], dim=1)


def sampled(model, lr: torch.Tensor, **options) -> torch.Tensor:
    """The picture at the model's scale (3, H, W), its surroundings cut off."""
    settings = SamplingSettings(**{"tile": 16, "overlap": 8, **options})
    around = surroundings(model, *lr.shape[1:], settings)
    noises = [around.noise(NoiseField(seed=settings.seed), model)]
    plan = plan_for(model, *around.size, settings)
    source = sampled_strips(
        model, around.around(lr), plan, settings, noises, CPU, lambda tiles: None
    )
    source = source.mapped(partial(around.seamless, scale=model.scale))
    return torch.cat(list(source.cropped(*around.pixels(model.scale)).draw(0)), dim=2)[0]


def drawn(model, lr, *, scale=4.0, size=None, consistency=True, **options) -> torch.Tensor:
    """What ``vdsr upscale`` makes of it, before rounding: (3, H, W)."""
    loaded = loaded_as("m", model, degradation="bicubic")
    settings = SamplingSettings(**{"tile": 16, "overlap": 8, **options})
    picture = Picture(rgb=lr[None])
    plan = plan_upscale(
        picture, loaded, settings, CPU, scale=scale, size=size, consistency=consistency
    )
    return torch.cat([rows.rgb[0] for rows in draw_rows(picture, plan, CPU)], dim=1)


@given(
    shift=st.tuples(st.integers(-8, 8), st.integers(-8, 8)),
    rows=st.integers(1, 8),
    columns=st.integers(1, 30),
    tile=st.sampled_from([0, 16, 24, 64]),
)
def test_a_rolled_texture_gives_the_rolled_result(shift, rows, columns, tile):
    lr = smooth(4 * rows, columns)
    options = {"tile": tile, "wrap": "xy", "temperature": 0.0}
    result = sampled(BlurredNoise(), lr, **options)
    rolled = sampled(BlurredNoise(), torch.roll(lr, shift, (1, 2)), **options)
    hr_shift = (4 * shift[0], 4 * shift[1])
    torch.testing.assert_close(torch.roll(result, hr_shift, (1, 2)), rolled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [4, 3, 2, 2.5, 5, 8, 16])
@pytest.mark.parametrize(("wrap", "shift"), [("x", (0, 12)), ("y", (12, 0)), ("xy", (12, 8))])
@pytest.mark.parametrize("consistency", [True, False])
def test_projection_and_size_are_periodic_too(scale, wrap, shift, consistency):
    """Whole, native and other scales, one pass and two; where black and white parts are clipped,
    a few pixels end up otherwise by a level."""
    lr = (smooth(24, 36) * 1.6 - 0.3).clamp(0, 1)
    options = {"wrap": wrap, "temperature": 0.0, "scale": scale, "consistency": consistency}
    result = drawn(BlurredNoise(), lr, **options)
    rolled = drawn(BlurredNoise(), torch.roll(lr, shift, (1, 2)), **options)
    hr_shift = [int(scale * by) for by in shift]
    assert result.shape == (3, 24 * scale, 36 * scale)
    expected = torch.roll(result, hr_shift, (1, 2))
    torch.testing.assert_close(expected, rolled, atol=1e-2, rtol=0)
    assert (expected - rolled).abs().mean() < 1e-4
    off = drawn(BlurredNoise(), lr, **(options | {"wrap": "none"}))
    assert (result - off).abs().max() > 0.01, "a picture with borders is another"


def test_any_size_is_periodic():
    lr = smooth(24, 36)
    options = {"wrap": "x", "temperature": 0.0, "scale": 2.75, "size": (61, 98)}
    result = drawn(BlurredNoise(), lr, **options)
    half = drawn(BlurredNoise(), torch.roll(lr, 18, 2), **options)
    torch.testing.assert_close(torch.roll(result, 49, 2), half, atol=2e-3, rtol=0)


@given(rows=st.integers(1, 8), columns=st.integers(1, 8), tile=st.sampled_from([0, 16, 24, 64]))
def test_the_noise_of_a_texture_is_periodic(rows, columns, tile):
    """At the left edge the noise beyond it is that of the right edge, however it is tiled."""
    lr = torch.full((3, 4 * rows, 4 * columns), 0.5)
    wrapped = sampled(BlurredNoise(), lr, tile=tile, wrap="xy")
    places = [torch.arange(16 * side, dtype=torch.int32) for side in (rows, columns)]
    noise = sum(
        NoiseField(seed=0).normal(s.layer, *(p // s.cell for p in places), 3)
        for s in BlurredNoise.latent_shapes
    ).permute(2, 0, 1)
    blurred = F.avg_pool2d(F.pad(noise[None], (4, 4, 4, 4), mode="circular"), 9, stride=1)[0]
    torch.testing.assert_close(wrapped, 0.5 + 0.04 * blurred, atol=1e-5, rtol=0)


def test_a_rolled_texture_hardly_differs_for_a_model_of_wide_reach(tiny_model):
    lr = smooth(48, 48)
    options = {"tile": 48, "overlap": 24, "wrap": "xy", "temperature": 0.0}
    result = sampled(tiny_model, lr, **options)
    rolled = sampled(tiny_model, torch.roll(lr, (20, 12), (1, 2)), **options)
    texture = (result - sampled(BlurredNoise(), lr, **options)).abs().mean()
    assert (torch.roll(result, (80, 48), (1, 2)) - rolled).abs().mean() < 0.05 * texture


def steps_across(pixels: torch.Tensor) -> torch.Tensor:
    """How much each column differs from the one to its left, the first from the last."""
    return (pixels - torch.roll(pixels, 1, 2)).abs().mean((0, 1))


@pytest.mark.parametrize("width", [64, 61])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_seam_of_a_panorama_is_as_any_other_place(width, temperature):
    """Its columns differ by what they do where the same picture, rolled, has its seam elsewhere,
    whether it has whole cells or not."""
    model = load("vdvae-sr-x4-tiny", runtime=CPU, expects=Sampler).model
    angle = 2 * torch.pi * (torch.arange(width) + 0.5) / width
    waves = [torch.sin(angle * k + torch.arange(24)[:, None] / (4 + k)) for k in (1, 2, 5)]
    lr = 0.5 + 0.3 * torch.stack(waves)
    options = {"tile": 32, "overlap": 8, "temperature": temperature}
    wrapped, other = (drawn(model, lr, wrap=wrap, **options) for wrap in ("x", "none"))
    rolled = drawn(model, torch.roll(lr, width // 2, 2), wrap="x", **options)
    steps, inside = steps_across(wrapped), steps_across(rolled)[4 * (width // 2)]
    assert steps[0] < 1.1 * inside
    if not temperature:  # what is drawn adds steps of its own everywhere
        assert steps[0] < steps[1:].quantile(0.9)
    assert steps_across(other)[0] > 1.5 * steps[0], "the borders of a picture show"


def test_the_noise_of_a_height_must_be_whole():
    with pytest.raises(UsageError, match="multiple of 4 pixels, not 10"):
        surroundings(BlurredNoise(), 10, 8, SamplingSettings(wrap="xy"))
    assert surroundings(BlurredNoise(), 10, 9, SamplingSettings(wrap="x")).rows == 0


@pytest.mark.parametrize(("wrap", "is_wrapped"), [(None, True), ("none", False), ("x", True)])
def test_a_panorama_all_around_is_wrapped_unless_told_otherwise(tiny_model, wrap, is_wrapped):
    loaded = loaded_as("m", tiny_model)
    picture = Picture(rgb=smooth(16, 32)[None], metadata=Metadata(is_panorama=True))
    plan = plan_upscale(picture, loaded, SamplingSettings(wrap=wrap), CPU, scale=4)
    assert (plan.settings.wrap == "x") is is_wrapped
    assert any("panorama" in note for note in plan.notes) is (wrap is None)

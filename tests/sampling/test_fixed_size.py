"""Models of one picture size in the engine: their own tile, shared noise, a 1x1 top."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from loaded import CPU
from published_vdvae import SMALLEST as PRIOR

from vdsr_cli.errors import DeviceError, UsageError
from vdsr_cli.models.protocol import LatentShape
from vdsr_cli.models.sampling import AnySizeSampling
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.sampling import engine
from vdsr_cli.sampling.engine import SamplingSettings, limits_of, plan_for, sample_strips
from vdsr_cli.sampling.latents import MaskedNoise, latent_grid, load_latents, save_latents
from vdsr_cli.sampling.noise import PIXEL_LAYER, NoiseField
from vdsr_cli.sampling.tiling import tiles_for
from vdsr_cli.training.start import model_on_prior

GLOBAL = LatentShape(layer=0, channels=3, cell=64, is_global=True)


class FixedEcho(AnySizeSampling):
    """Grey plus the noise of every layer, laid out as the layers lie in a tile of 16 LR pixels."""

    scale = 4
    fixed_tile = 16
    lr_multiple = 4
    latent_shapes = (
        GLOBAL,
        LatentShape(layer=1, channels=3, cell=16),
        LatentShape(layer=2, channels=3, cell=2),
    )

    def __init__(self, room: int | None = None) -> None:
        self.room, self.batches = room, []

    def sample(self, lr, noise, temperature, *, repeats=1):
        assert lr.shape[1:] == (3, 16, 16)
        self.batches.append(len(lr))
        if self.room is not None and len(lr) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        out = torch.zeros(len(lr) * repeats, 6, 64, 64)
        for shape in self.latent_shapes:
            drawn = F.interpolate(noise(shape), scale_factor=shape.cell, mode="nearest")
            out[:, :3] += 0.1 * temperature * drawn
        return out


def expected_echo(height, width, seed, samples):
    """The noise field's number for each pixel; the global layer has one for all."""
    pixels = torch.zeros(len(samples), 3, 4 * height, 4 * width)
    for picture, sample in zip(pixels, samples, strict=True):
        for shape in FixedEcho.latent_shapes:
            places = [torch.arange(4 * side, dtype=torch.int32) for side in (height, width)]
            cells = [torch.zeros_like(p) if shape.is_global else p // shape.cell for p in places]
            drawn = NoiseField(seed=seed, sample=sample).normal(shape.layer, *cells, 3)
            picture += 0.1 * 0.8 * drawn.permute(2, 0, 1)
    return (pixels + 1) / 2


def upscaled(model, lr, runtime=CPU, **options):
    strips = sample_strips(model, lr, SamplingSettings(**options), runtime)
    return torch.cat([strip.pixels for strip in strips], dim=2)


@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    overlap=st.sampled_from([None, 0, 4, 8]),
    samples=st.sampled_from([(0,), (3, 0)]),
    together=st.sampled_from([1, 2, 5]),
)
def test_tiles_share_the_noise_of_their_place_and_one_top(
    height, width, overlap, samples, together
):
    lr = torch.zeros(3, height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._TileDrawer, "_most_tiles", lambda drawer: together)
        tiled = upscaled(FixedEcho(), lr, overlap=overlap, samples=samples, seed=7)
    assert torch.allclose(tiled, expected_echo(height, width, 7, samples), atol=1e-5)


def test_a_processor_takes_one_tile_at_a_time():
    model = FixedEcho()
    upscaled(model, torch.zeros(3, 40, 40), samples=(0, 1))
    assert model.batches == [1] * 9


@pytest.mark.parametrize("room", [1, 2, 3])
def test_out_of_memory_halves_the_batch(room, monkeypatch):
    monkeypatch.setattr(engine._TileDrawer, "_most_tiles", lambda drawer: 8)
    model, lr = FixedEcho(room), torch.zeros(3, 10, 100)
    assert torch.allclose(upscaled(model, lr, seed=7), expected_echo(10, 100, 7, (0,)), atol=1e-5)
    assert max(size for size in model.batches if size <= room) > room / 2


def test_out_of_memory_with_one_tile_is_a_device_error():
    with pytest.raises(DeviceError, match="16x16 tile") as caught:
        upscaled(FixedEcho(room=0), torch.zeros(3, 10, 100))
    assert caught.value.hint == "try --device cpu"


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (8, None, "takes tiles of 16 LR pixels, not of 8"),
        (0, None, "takes tiles of 16 LR pixels, not of 0"),
        (16, 6, "multiple of 4 and at most half of the model's tile, 8"),
        (None, 12, "multiple of 4 and at most half of the model's tile, 8"),
    ],
)
def test_other_tiles_are_refused(tile, overlap, message):
    with pytest.raises(UsageError, match=message) as caught:
        upscaled(FixedEcho(), torch.zeros(3, 40, 40), tile=tile, overlap=overlap)
    assert "leave --" in caught.value.hint


def test_the_tile_of_a_model_is_its_own():
    assert tiles_for(None, None, cell=16) == (64, 16)
    assert tiles_for(None, None, cell=16, fixed_tile=64) == (64, 16)
    assert tiles_for(64, 32, cell=16, fixed_tile=64) == (64, 32)
    assert tiles_for(None, None, cell=8, fixed_tile=32) == (32, 8)
    assert tiles_for(None, None, cell=8, fixed_tile=16) == (16, 8)


def test_what_such_a_model_cannot_do_is_said(tiny_model):
    def told(model, height, width):
        return limits_of(model, plan_for(model, height, width, SamplingSettings()))

    assert told(tiny_model, 100, 100) == told(FixedEcho(), 16, 16) == ()
    assert told(FixedEcho(), 9, 16) == ("the model knows 16x16 pixels: padded to that",)
    (note,) = told(FixedEcho(), 28, 16)
    assert "each of 2 tiles is a picture of its own" in note and "need not agree" in note


# --- the networks themselves --------------------------------------------------------------------


@pytest.fixture(params=["cvdvae", "vdvae-sr"])
def make_model(request):
    """A model of each kind on a tiny prior, every weight random; ``make_model(scale, low_bit)``."""

    def make(scale: int = 4, *, low_bit: bool = False):
        prior = VDVAE(dataclasses.replace(PRIOR, low_bit=low_bit))
        model = model_on_prior(request.param, prior, scale)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                fan = parameter[0].numel() if parameter.dim() > 1 else 25
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise / fan**0.5)
        return CPU.place(model)

    return make


def field_noise(seed, samples):
    def noise(shape):
        drawn = []
        for sample in samples:
            cells = torch.arange(16 // shape.cell, dtype=torch.int32)
            field = NoiseField(seed=seed, sample=sample)
            drawn.append(field.normal(shape.layer, cells, cells, shape.channels))
        return torch.stack(drawn).permute(0, 3, 1, 2)

    return noise


@pytest.mark.parametrize("output", ["mean", "sample"])
def test_one_tile_is_the_model_itself(make_model, output):
    model, lr = make_model(), torch.rand(3, 4, 4)
    parameters = model.sample(lr[None], field_noise(7, (0, 2)), 0.8, repeats=2)
    places = torch.arange(16, dtype=torch.int32)
    drawn = [NoiseField(seed=7, sample=i).logistic(PIXEL_LAYER, places, places, 5) for i in (0, 2)]
    noise = torch.stack(drawn).permute(0, 3, 1, 2) if output == "sample" else None
    expected = (model.pixels(parameters, noise) + 1) / 2
    got = upscaled(model, lr, output=output, seed=7, samples=(0, 2))
    assert torch.allclose(got, expected, atol=1e-5)
    assert (got[0] - got[1]).abs().mean() > 0.002


@pytest.mark.parametrize("scale", [2, 4])
def test_any_picture_is_sampled_by_each(make_model, scale):
    model, lr = make_model(scale), torch.rand(3, 9, 13)
    assert (model.fixed_tile, model.lr_multiple) == (16 // scale, 4 // scale)
    together = upscaled(model, lr, samples=(0, 5))
    assert together.shape == (2, 3, 9 * scale, 13 * scale) and together.isfinite().all()
    assert torch.allclose(upscaled(model, lr, samples=(5,))[0], together[1], atol=1e-5)
    still = upscaled(model, lr, temperature=0.0)
    assert torch.equal(still, upscaled(model, lr, temperature=0.0, seed=3))
    brighter = upscaled(model, (lr + 0.3).clamp(0, 1), temperature=0.0)
    assert (still - brighter).abs().mean() > 1e-4, "the LR picture is seen"


def test_the_lr_encoder_runs_once_for_all_samples(make_model):
    model, calls = make_model(), []
    encoder = model.encoder_y if hasattr(model, "encoder_y") else model.lr_encoder
    encoder.register_forward_hook(lambda *_: calls.append(1))
    upscaled(model, torch.rand(3, 4, 4), samples=(0, 1, 2))
    assert len(calls) == 1


def test_the_hr_encoder_and_posterior_never_run(make_model):
    model = make_model()
    for module in (model.encoder, *(block.enc for block in model.decoder.blocks)):
        module.register_forward_hook(lambda *_: pytest.fail("it is for training"))
    upscaled(model, torch.rand(3, 4, 4))


def test_a_model_of_five_bits_is_centred(make_model):
    lr = torch.full((3, 4, 4), 0.5)
    dark, centred = (
        upscaled(make_model(low_bit=low_bit), lr, temperature=0.0) for low_bit in (False, True)
    )
    inside = dark < 0.98
    torch.testing.assert_close((centred - dark)[inside], torch.full_like(dark, 3.5 / 255)[inside])


def test_latents_are_kept_with_their_global_layer(tmp_path):
    model, settings = FixedEcho(), SamplingSettings()
    grid = latent_grid(model, 20, 40, settings)
    assert [grid.size(shape) for shape in model.latent_shapes] == [
        (1, 1, 3),
        (5, 10, 3),
        (40, 80, 3),
    ]
    noises = [NoiseField(seed=1, sample=i) for i in range(2)]
    save_latents(tmp_path / "latents.safetensors", noises, grid, {})
    stored = load_latents(tmp_path / "latents.safetensors", grid)
    lr = torch.zeros(3, 20, 40)
    kept = [strip.pixels for strip in sample_strips(model, lr, settings, CPU, noises=stored)]
    drawn = upscaled(model, lr, seed=1, samples=(0, 1))
    assert torch.equal(torch.cat(kept, dim=2), drawn)


def test_a_mask_draws_the_global_latent_anew():
    mask = torch.zeros(64, 128, dtype=torch.bool)
    mask[40, 100] = True
    inside, outside = NoiseField(seed=1, sample=1), NoiseField(seed=1, sample=0)
    masked = MaskedNoise(inside, outside, mask, [GLOBAL])
    top = torch.zeros(1, dtype=torch.int32)
    assert torch.equal(masked.normal(0, top, top, 3), inside.normal(0, top, top, 3))

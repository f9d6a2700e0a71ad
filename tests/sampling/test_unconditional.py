"""Unconditional priors: loading in every form, pictures of 8 and of 5 bits, noise of positions."""

import pytest
import torch
from loaded import CPU
from published_vdvae import TABLE, cut, published_model, published_state, write_published

from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.loading import is_prior, load, load_network
from vdsr_cli.models.dmol import LOW_BIT_OFFSET, to_image, to_levels
from vdsr_cli.models.protocol import Prior
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.sampling.noise import NoiseField, noise_of
from vdsr_cli.training.run_folder import write_checkpoint
from vdsr_cli.training.start import new_model

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def pickle_path(tmp_path, small_published):
    return write_published(tmp_path / "model-ema.th", published_state(prefix="module."))


@pytest.mark.parametrize("has_encoder", [False, True])
def test_a_published_pickle_loads_with_its_own_numbers(pickle_path, has_encoder):
    model = load(str(pickle_path), CPU, expects=Prior, has_encoder=has_encoder).model
    loaded, published = model.state_dict(), published_state()
    wanted = {k for k in published if has_encoder or not k.startswith("encoder.")}
    assert loaded.keys() == wanted
    assert all(loaded[name].equal(published[name]) for name in wanted)


def test_without_encoder_it_draws_what_the_whole_model_draws(pickle_path):
    whole = published_model()
    noise = noise_of([NoiseField(seed=3, sample=1)], (16, 16), CPU.device)
    prior = load(str(pickle_path), CPU, expects=Prior, has_encoder=False).model
    with torch.inference_mode():
        got, wanted = prior.sample(1, (16, 16), noise, 0.7), whole.sample(1, (16, 16), noise, 0.7)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("small_published")
def test_an_encoder_that_is_not_whole_generates_and_does_not_score(tmp_path):
    source = write_published(tmp_path / "a.th", cut(published_state(), "encoder.enc_blocks.7."))
    assert load(str(source), CPU, expects=Prior, has_encoder=False).model.side_px == 16
    with pytest.raises(WeightsError, match=r"not whole \(encoder.enc_blocks.7\)") as caught:
        load(str(source), CPU, expects=Prior)
    assert caught.value.hint == "vdsr generate can use it"
    with pytest.raises(WeightsError, match="nor be trained on"):
        load_network(str(source))


@pytest.mark.usefixtures("small_published")
def test_a_run_builds_on_a_published_pickle(pickle_path):
    model = new_model("vdvae-sr", preset=None, prior=str(pickle_path), start_from=None)
    assert model.decoder.gain.equal(published_state()["decoder.gain"])


def test_a_run_of_training_loads(tmp_path, tiny_prior):
    run = {
        "model": {},
        "ema": tiny_prior.state_dict(),
        "step": 1,
        "kind": "compact-vdvae",
        "architecture": as_plain(tiny_prior.config),
    }
    write_checkpoint(tmp_path, run, keep_previous=False)
    for name in (tmp_path, tmp_path / "last.pt"):
        assert is_prior(str(name))
        loaded = load(str(name), CPU, expects=Prior, has_encoder=False)
        assert loaded.model.cell_px == 16 and loaded.model.side_px is None


def as_plain(config):
    levels = [{f: getattr(level, f) for f in level.__slots__} for level in config.levels]
    return {"scale": config.scale, "levels": levels}


def test_other_networks_are_no_priors(tiny_path, tiny_prior_path, pickle_path):
    with pytest.raises(UsageError, match="is a compact-vdvae-sr, not an unconditional prior"):
        load(str(tiny_path), CPU, expects=Prior, has_encoder=False)
    assert not is_prior(str(tiny_path)) and not is_prior("vdvae-sr-x4")
    assert is_prior(str(tiny_prior_path)) and is_prior(str(pickle_path))
    assert is_prior("openai/ffhq1024") and is_prior("vdvae-x4-prior")


# --- pictures -----------------------------------------------------------------------------------


def sure(picture, prior):
    """Parameters of one component that is sure of a picture (B, 3, H, W) in [0, 1]."""
    mean = to_levels(picture, low_bit=prior.is_low_bit)
    rest = torch.stack([mean, torch.full_like(mean, -7.0), torch.zeros_like(mean)], dim=2)
    logits = torch.zeros_like(mean[:, :1])
    return torch.cat([logits, rest.flatten(1, 2)], dim=1)


def psnr(a, b):
    rounded = a.mul(255).round()
    return 10 * torch.log10(255**2 / (rounded - b * 255).square().mean()).item()


def test_a_perfect_low_bit_model_is_not_penalised():
    """Flooring to multiples of 8 leaves 35.7 dB; centred, 40.9."""
    picture = torch.randint(256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)) / 255
    eight, low = (VDVAE(TABLE[n]) for n in ("imagenet64", "ffhq256"))
    assert psnr(to_image(eight.pixels(sure(picture, eight), None)), picture) > 60
    assert psnr(to_image(eight.pixels(sure(picture, low), None)), picture) == pytest.approx(
        35.7, abs=0.1
    )
    centred = to_image(low.pixels(sure(picture, low), None))
    assert psnr(centred, picture) == pytest.approx(40.9, abs=0.15)
    assert (centred - picture).mean().abs() < 1e-3


def test_a_draw_of_pixels_uses_the_published_inverse(golden_draw):
    """The field's logistic noise stands for the published code's uniform numbers."""
    parameters, uniform_component, uniform_value, draw = golden_draw
    prior = VDVAE(TABLE["ffhq256"])

    logistic = torch.logit(torch.cat([uniform_value, uniform_component], dim=1).double()).float()
    expected = ((draw + 1) / 2 + LOW_BIT_OFFSET).clamp(0, 1)
    pixels = to_image(prior.pixels(parameters, logistic))
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)


@pytest.fixture
def golden_draw():
    from pathlib import Path

    from safetensors.torch import load_file

    path = Path(__file__).parents[1] / "data" / "golden" / "vdvae_widths_lowbit.safetensors"
    vectors = load_file(path)
    names = ("prior.logits", "dmol.u_component", "dmol.u_value", "dmol.draw")
    return [vectors[name].permute(0, 3, 1, 2) for name in names]


def test_noise_of_a_piece_is_that_of_the_whole(tiny_prior):
    fields = [NoiseField(seed=1, sample=0)]
    whole = noise_of(fields, (64, 48), CPU.device)
    piece = noise_of(fields, (32, 16), CPU.device, origin=(32, 16))
    for shape in tiny_prior.latent_shapes:
        cut_out = whole(shape)[:, :, 32 // shape.cell :, 16 // shape.cell : 32 // shape.cell]
        assert torch.equal(piece(shape), cut_out)

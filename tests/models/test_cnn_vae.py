"""CNN-VAE: what its two readings can and cannot do."""

import pytest
import torch

from vdsr_cli.errors import WeightsError
from vdsr_cli.models.cnn_vae import CNNVAE, CNNVAEConfig, Latent
from vdsr_cli.models.registry import architecture_of, build_model, config_of

READINGS = ("corrected", "paper")


def make(reading: str) -> CNNVAE:
    torch.manual_seed(0)
    return CNNVAE(CNNVAEConfig(reading=reading, encoder_width=4, decoder_width=4))


@pytest.mark.parametrize("reading", READINGS)
def test_shapes_and_a_strict_round_trip(reading):
    model = make(reading)
    again = build_model(architecture_of(model).name, config_of(model))
    again.load_state_dict(model.state_dict(), strict=True)
    hr = torch.rand(3, 1, 28, 28)
    latent = model.encode(hr)
    assert latent.mean.shape == latent.sigma.shape == (3, 1, 14, 14)
    made = model.reconstruct(hr)
    assert made.shape == hr.shape and (made.min() >= 0) and (made.max() <= 1)
    assert torch.equal(again.reconstruct(hr), made)
    assert torch.equal(model.draw(latent, None), latent.mean)


def test_the_paper_s_reading_cannot_draw_black():
    wild = 500 * torch.randn(4, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    assert make("paper").decode(wild).min() == 0.5
    assert make("corrected").decode(wild).min() < 0.4


def test_only_the_corrected_latent_is_a_picture():
    latent = Latent(torch.full((1, 1, 14, 14), 0.9), torch.full((1, 1, 14, 14), 0.5))
    zeta = torch.ones(1, 1, 14, 14)
    assert make("corrected").draw(latent, zeta).max() == 1
    assert make("paper").draw(latent, zeta).max() == pytest.approx(1.4)
    assert make("corrected").draw(latent, zeta, 0.1).max() == pytest.approx(0.95)


def test_only_the_corrected_deviation_is_positive():
    hr = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    assert make("corrected").encode(hr).sigma.min() > 0
    assert make("paper").encode(hr).sigma.min() < 0


@pytest.mark.parametrize("config", [{"reading": "mine"}, {"decoder_width": 0}])
def test_a_config_that_makes_no_sense(config):
    with pytest.raises(WeightsError, match="not valid"):
        build_model("cnn-vae", config)

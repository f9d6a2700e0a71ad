"""The VAE that srVAE is compared with: its published size, its bound, its promises as a prior."""

import pytest
import torch
from torch import Tensor

from vdsr_cli.models.distributions import importance_weighted_nll
from vdsr_cli.models.dmol import dmol_nll
from vdsr_cli.models.flow_vae import FlowVAE
from vdsr_cli.models.protocol import LatentShape, Prior, Sampler
from vdsr_cli.models.registry import architecture_of, build_model, config_of
from vdsr_cli.models.srvae import Autoencoder, on_levels
from vdsr_cli.models.srvae_config import FLOW_VAE_PRESETS, DenseSpec, FlowVAEConfig
from vdsr_cli.models.srvae_layers import data_dependent_initialisation

THIN, TWICE = DenseSpec(growth=4, steps=1), DenseSpec(growth=4, steps=1, depth=2)
SMALL = FlowVAEConfig(latent_channels=3, components=2, flow=THIN, q_z=TWICE, p_x=TWICE)


@pytest.fixture(scope="module")
def model() -> FlowVAE:
    torch.manual_seed(0)
    made = FlowVAE(SMALL).requires_grad_(False)
    with data_dependent_initialisation(made, deviation=0.5):
        made(pictures(8), noise_for(8))
    return made


def pictures(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return on_levels(torch.rand(count, 3, 32, 32, generator=generator))


def noise_for(count: int, seed: int = 0):
    def draw(shape: LatentShape) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, shape.channels, 8, 8, generator=generator)

    return draw


def test_the_paper_s_network_has_the_published_size():
    with torch.device("meta"):
        model = FlowVAE(FLOW_VAE_PRESETS["vae-paper"])
    assert sum(p.numel() for p in model.parameters()) == 34_276_364
    assert len(model.state_dict()) == 674


def test_it_is_a_prior_and_upscales_nothing(model):
    assert isinstance(model, Prior) and isinstance(model, Autoencoder)
    assert not isinstance(model, Sampler)


def test_a_strict_round_trip(model):
    again = build_model(architecture_of(model).name, config_of(model))
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again(pictures(2), noise_for(2)).rate, model(pictures(2), noise_for(2)).rate)


@pytest.mark.parametrize("config", [{"hr_size": 20}, {"q_z": THIN}, {"components": 0}])
def test_a_config_that_makes_no_sense(config):
    with pytest.raises(ValueError, match=r"must be|have a depth"):
        FlowVAEConfig(**config)


def test_the_bound_is_distortion_plus_rate_and_importance_weights_tighten_it(model):
    hr, count = pictures(1).expand(64, -1, -1, -1), 64
    bound = model.bound(hr, hr[:, :, ::2, ::2], noise_for(count))
    parameters, rate = model.posterior(hr, noise_for(count))
    assert torch.equal(bound.kl_z, rate[0])
    assert torch.allclose(bound.nll_x, dmol_nll(2 * hr - 1, parameters))
    assert torch.allclose(bound.log_weight, -(bound.nll_x + bound.kl_z))
    assert bound.nll_y.eq(0).all() and bound.kl_u.eq(0).all()
    tight = float(importance_weighted_nll(bound.log_weight[:, None]))
    assert tight < float((bound.nll_x + bound.kl_z).mean())
    assert tight >= float((bound.nll_x + bound.kl_z).min()), "no better than the best draw"


def test_samples_go_through_the_flow_backwards(model):
    noise = noise_for(2)
    z = model.p_z.sample(0.5 * noise(model.latent_shapes[0]), torch.zeros(2))
    assert torch.equal(model.sample(2, (32, 32), noise, 0.5), model.decode((z,), lambda p: p))
    still = model.sample(2, (32, 32), None, 0.5)
    assert torch.equal(still, model.sample(2, (32, 32), noise, 0.0))
    pixels = model.pixels(still, None)
    assert pixels.shape == (2, 3, 32, 32) and pixels.abs().max() <= 1


def test_a_reconstruction_at_zero_is_that_of_the_mean_code(model):
    hr = pictures(2)
    mean = model.decode(model.codes(hr, hr), lambda p: p)
    assert torch.equal(model.reconstruct(hr, hr, None, 0.8), mean)
    assert not torch.equal(model.reconstruct(hr, hr, noise_for(2), 0.8), mean)

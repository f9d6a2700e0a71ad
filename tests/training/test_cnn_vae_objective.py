"""CNN-VAE's objective against the paper's equations, and its training."""

import math

import pytest
import torch

from vdsr_cli.models.cnn_vae import CNNVAE, CNNVAEConfig
from vdsr_cli.training.cnn_vae import CNNVAETrainConfig, cnn_vae_losses, cross_entropy
from vdsr_cli.training.cnn_vae import default_config as config_of


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hr = torch.randint(0, 256, (3, 1, 28, 28), generator=generator).to(torch.uint8)
    lr = torch.randint(0, 256, (3, 1, 14, 14), generator=generator).to(torch.uint8)
    return hr, lr


def bce_bits(target: torch.Tensor, probability: torch.Tensor) -> float:
    """By hand, in float64."""
    x, p = target.double(), probability.detach().double()
    return float(-(x * p.log2() + (1 - x) * (1 - p).log2()).mean())


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.75, 1.0])
def test_the_objective_is_equations_9_to_11(alpha):
    torch.manual_seed(0)
    model = CNNVAE(CNNVAEConfig(encoder_width=4, decoder_width=4))
    hr, lr = pair()
    zeta = torch.randn(3, 1, 14, 14)
    model.requires_grad_(False)
    losses = cnn_vae_losses(model, hr, lr, zeta, alpha=alpha, sr_weight=0.0)
    z = model.draw(model.encode(hr / 255), zeta)
    assert z.min() > 0.01 and z.max() < 0.99, "no margin is met, so the plain formula holds"
    reconstruction, latent = bce_bits(hr / 255, model.decode(z)), bce_bits(lr / 255, z)
    assert float(losses.distortion) == pytest.approx(reconstruction, rel=1e-5)
    assert float(losses.rate) == pytest.approx(latent, rel=1e-5)
    assert float(losses.loss) == pytest.approx(
        alpha * reconstruction + (1 - alpha) * latent, rel=1e-5
    )
    more = cnn_vae_losses(model, hr, lr, zeta, alpha=alpha, sr_weight=2.0)
    sr = bce_bits(hr / 255, model.decode(lr / 255))
    assert float(more.loss - losses.loss) == pytest.approx(2 * sr, rel=1e-4)


def test_the_cross_entropy_is_finite_outside_its_domain():
    wild = torch.tensor([-3.0, 0.0, 0.5, 1.0, 7.0])
    value = cross_entropy(torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0]), wild)
    assert math.isfinite(float(value)) and value > 5


def test_the_paper_s_schedule():
    paper = config_of("paper")
    assert (paper.steps, paper.batch, paper.learning_rate) == (3_000, 100, 5e-6)
    assert (paper.alpha, paper.late_alpha, paper.late_steps) == (0.75, 0.25, 500)
    assert (paper.sr_weight, paper.warmup, paper.cooldown) == (0.0, 0, 0)
    assert config_of("corrected", steps=7) == CNNVAETrainConfig(
        steps=7, batch=64, learning_rate=2e-3, warmup=100, cooldown=3_000, sr_weight=1.0
    )

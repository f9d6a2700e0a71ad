"""The published systems: their sizes, their hyper-parameters, what a step keeps in memory."""

import math
from pathlib import Path

import pytest
import torch

from vdsr_cli.models.vdvae import PUBLISHED, VDVAE
from vdsr_cli.training.config import config_for
from vdsr_cli.training.objectives import objective_of
from vdsr_cli.training.published import PublishedShape
from vdsr_cli.training.shape import published_shape
from vdsr_cli.training.start import model_on_prior, prepared
from vdsr_cli.training.validation import fixed_noise


@pytest.mark.parametrize(
    ("objective", "prior", "scale", "parameters", "trained"),
    [
        ("cvdvae", "ffhq256", 4, 161_332_996, 46_458_144),
        ("cvdvae", "ffhq256", 8, 149_756_612, 34_881_760),
        ("vdvae-sr", "ffhq256", 4, 141_354_852, 113_361_252),
        ("vdvae-sr", "imagenet64", 4, 137_122_852, 110_672_036),
    ],
)
def test_the_papers_systems_have_their_size(objective, prior, scale, parameters, trained):
    """Totals are the published codes' own, but for gates above the LR resolution that they leave
    unused."""
    with torch.device("meta"):
        model = prepared(model_on_prior(objective, VDVAE(PUBLISHED[prior]), scale))
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    assert sum(size for size, _ in sizes) == parameters
    assert sum(size for size, is_trained in sizes if is_trained) == trained
    assert model.fixed_tile == PUBLISHED[prior].image_size // scale
    assert model.lr_multiple == model.fixed_tile // 4


def test_hyper_parameters_are_the_papers():
    shape = PublishedShape(prior=PUBLISHED["ffhq256"], lr_size=64)
    vdvae_sr = config_for("vdvae-sr", {}, on_prior=True, shape=shape)
    assert (vdvae_sr.learning_rate, vdvae_sr.beta2, vdvae_sr.batch) == (1.5e-4, 0.9, 1)
    assert vdvae_sr.grad_clip * math.log(2) == pytest.approx(130)
    assert vdvae_sr.skip_above * math.log(2) == pytest.approx(180)
    assert vdvae_sr.lr_size == 64 and vdvae_sr.mean_weight == 0
    assert (vdvae_sr.symmetries, vdvae_sr.fit) == ("mirror", "whole")
    cvdvae = config_for("cvdvae", {"batch": 2}, shape=shape)
    assert (cvdvae.learning_rate, cvdvae.beta2, cvdvae.batch) == (1e-4, 0.999, 2)
    assert cvdvae.ema_decay == 0.9999 and cvdvae.weight_decay == 0.01
    other = PublishedShape(prior=PUBLISHED["imagenet64"], lr_size=16)
    assert config_for("vdvae-sr", {}, shape=other).grad_clip * math.log(2) == pytest.approx(220)


def test_a_prior_is_trained_as_the_released_code_does():
    shape = published_shape("vdvae", Path("none"), preset="cifar10")
    cifar = config_for("vdvae", {}, shape=shape)
    assert (cifar.lr_size, cifar.batch, cifar.learning_rate) == (32, 16, 2e-4)
    assert (cifar.beta2, cifar.ema_decay, cifar.weight_decay) == (0.9, 0.9999, 0.01)
    assert (cifar.symmetries, cifar.fit, cifar.mean_weight) == ("none", "whole", 0)
    faces = config_for("vdvae", {}, shape=published_shape("vdvae", Path("none"), preset="ffhq256"))
    assert (faces.lr_size, faces.steps, faces.batch, faces.ema_decay) == (256, 1_700_000, 1, 0.999)
    assert faces.skip_above * math.log(2) == pytest.approx(180)
    assert published_shape("vdvae", Path("none"), preset="vdvae-x4-prior") is None


def test_recomputed_maps_have_the_same_gradients(small_published):
    hr = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    lr = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    noise = fixed_noise(2, (16, 16), torch.device("cpu"))
    model = prepared(model_on_prior("vdvae-sr", small_published, 4))
    gradients, kept = [], []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = objective_of(model)(model, hr, lr, noise, 0.0).loss
        loss.backward()
        kept.append(sum(sizes))
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)
    assert kept[1] < kept[0] / 2


@pytest.fixture
def small_published():
    """A prior of 16x16 pictures, every weight random."""
    from dataclasses import replace

    config = replace(
        PUBLISHED["ffhq256"],
        image_size=16,
        enc_blocks="16x1,16d2,8x1,8d2,4x1,4d4,1x1",
        dec_blocks="1x1,4m1,4x2,8m4,8x2,16m8,16x2",
        width=16,
        no_bias_above=8,
    )
    prior = VDVAE(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 25
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4 / fan**0.5)
    return prior


def test_the_mean_weighted_kl_is_the_released_codes_loss(small_published):
    """Each block's mean over its dimensions, in bits; the rate that is told stays the sum."""
    hr = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    lr = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    model = prepared(model_on_prior("cvdvae", small_published, 4))
    noise = fixed_noise(2, (16, 16), torch.device("cpu"))
    told = model(hr / 255, lr / 255, noise)
    mean, total = (objective_of(model, kl=kl)(model, hr, lr, noise, 0.0) for kl in ("mean", "sum"))
    expected = sum(k.mean() / d for k, d in zip(told.kl, told.dimensions, strict=True))
    torch.testing.assert_close(mean.loss, expected / math.log(2))
    assert torch.equal(mean.rate, total.rate) and torch.equal(total.loss, total.rate)

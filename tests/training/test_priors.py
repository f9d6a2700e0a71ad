"""The compact prior and what is built on it: at step 0 a conditional model is its prior."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from published_vdvae import SMALLEST as PUBLISHED_SHAPE

from vdsr_cli.errors import UsageError
from vdsr_cli.models.compact import CompactConfig, Level
from vdsr_cli.models.compact_prior import (
    CompactCVDVAE,
    CompactCVDVAEConfig,
    CompactVDVAE,
    CompactVDVAESROnPrior,
)
from vdsr_cli.models.presets import PRIOR_PRESETS
from vdsr_cli.models.registry import architecture_of, build_model, config_of
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import SamplingSettings, sample_strips
from vdsr_cli.training.objectives import objective_of
from vdsr_cli.training.start import lr_encoder_for, model_on_prior, prepared
from vdsr_cli.training.validation import fixed_noise

CPU = torch.device("cpu")
CONFIG = CompactConfig(
    scale=4,
    levels=(
        Level(cell=16, width=8, blocks=1, latent_channels=3, lr_blocks=1),
        Level(cell=8, width=8, blocks=2, latent_channels=2, lr_blocks=1),
        Level(cell=4, width=8, blocks=2, latent_channels=2, lr_blocks=2),
        Level(cell=2, width=4, blocks=1, latent_channels=1),
    ),
)


def randomised(model, *, seed: int = 0):
    """Every weight random and small, so that no path hides behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 25
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4 / fan**0.5)
    return model.eval()


def crops(batch: int = 2, side: int = 32, *, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    hr = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)
    lr = torch.randint(
        0, 256, (batch, 3, side // 4, side // 4), dtype=torch.uint8, generator=generator
    )
    return hr, lr


@pytest.fixture
def prior():
    return randomised(CompactVDVAE(CONFIG))


def test_presets_fit_their_sizes():
    for config in PRIOR_PRESETS.values():
        prior = CompactVDVAE(config)
        for model in (prior, CompactCVDVAE.from_prior(prior)):
            assert 2 * sum(p.numel() for p in model.parameters()) <= 16 << 20


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_vdvae_sr_begins_as_its_compact_prior(prior, temperature):
    model = CompactVDVAESROnPrior.from_prior(prior).eval()
    lr, noise = torch.rand(2, 3, 8, 12), fixed_noise(2, (32, 48), CPU)
    expected = prior.sample(2, (32, 48), noise, temperature)
    assert torch.equal(model.sample(lr, noise, temperature), expected)
    hr = torch.randint(0, 256, (2, 3, 32, 48)) / 255
    elbo, _ = model.elbo_and_mean(2 * hr - 1, lr, noise)
    of_prior = prior(hr, noise)
    assert torch.equal(elbo.rate, of_prior.rate)
    assert torch.equal(elbo.distortion, of_prior.distortion)


def test_vdvae_sr_begins_as_a_prior_of_the_published_shape():
    prior = randomised(VDVAE(PUBLISHED_SHAPE))
    model = model_on_prior("vdvae-sr", prior).eval()
    lr, noise = torch.rand(2, 3, 4, 4), fixed_noise(2, (16, 16), CPU)
    assert torch.equal(model.sample(lr, noise, 0.8), prior.sample(2, (16, 16), noise, 0.8))
    hr = torch.rand(2, 3, 16, 16)
    assert torch.equal(model(hr, lr, noise).rate, prior(hr, noise).rate)
    assert not any(p.requires_grad for p in prepared(model).encoder.parameters())


def test_lr_encoders_of_a_published_shape_keep_its_lower_levels():
    lr = lr_encoder_for(PUBLISHED_SHAPE, 4)
    assert (lr.image_size, lr.enc_blocks) == (4, "4x1,4d4,1x1")


@pytest.mark.parametrize("objective", ["vdvae", "cvdvae", "vdvae-sr"])
@pytest.mark.parametrize("published", [False, True])
def test_every_objective_trains_what_it_should_and_nothing_else(prior, objective, published):
    if published:
        prior = randomised(VDVAE(PUBLISHED_SHAPE))
    torch.manual_seed(0)
    model = prior if objective == "vdvae" else model_on_prior(objective, prior)
    model = prepared(model)
    hr, lr = crops(side=16 if published else 32)
    noise = fixed_noise(2, tuple(hr.shape[2:]), CPU)
    losses = objective_of(model)(model, hr, lr, noise, 0.5)
    losses.loss.backward()
    assert all(torch.isfinite(figure) for figure in losses.figures.values()) and losses.rate > 0
    moved = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    if objective == "vdvae":
        assert not frozen
    elif objective == "vdvae-sr":
        assert {n.split(".")[0] for n in frozen} == {"encoder" if published else "hr_encoder"}
        assert {"decoder" if published else "levels", "lr_encoder"} <= moved
    else:
        trained = {n for n, _ in model.named_parameters()} - frozen
        assert all(n.startswith(("lr_encoder.", "encoder_y.")) or ".enc_y." in n for n in trained)


def test_a_prior_trains_what_it_shows_with_the_finest_layers_at_their_means(prior):
    image = crops()[0] / 255
    noise = fixed_noise(2, (32, 32), CPU)

    def other(shape):
        return -noise(shape)

    elbo, shown = prior.elbo_and_mean(image, noise)
    of_prior = prior(image, noise)
    assert torch.equal(elbo.rate, of_prior.rate)
    assert torch.equal(elbo.distortion, of_prior.distortion)

    def mixed(shape):
        return noise(shape) if shape.cell >= 4 else other(shape)

    assert torch.equal(prior.elbo_and_mean(image, mixed)[1], shown)
    assert not torch.equal(prior.elbo_and_mean(image, other)[1], shown)
    assert not torch.allclose(prior.posterior(image, noise)[0][:, :3], shown)
    for level in prior.blocks_by_level[:-1]:
        for block in level:
            block.z_proj.weight.data.zero_()
    at_the_means = prior.sample(2, (32, 32), None)[:, :3]
    torch.testing.assert_close(prior.elbo_and_mean(image, noise)[1], at_the_means)


def test_of_what_a_prior_shows_a_tenth_of_the_gradient_reaches_the_layers_down_to_lr(
    prior, monkeypatch
):
    image, noise = crops()[0] / 255, fixed_noise(2, (32, 32), CPU)
    coarse, fine = prior.blocks_by_level[0][0].enc.c1.weight, prior.head.weight

    def gradients():
        return torch.autograd.grad(prior.elbo_and_mean(image, noise)[1].sum(), (coarse, fine))

    of_coarse, of_fine = gradients()
    monkeypatch.setattr("vdsr_cli.models.compact_prior._COARSE_GRADIENT", 1.0)
    whole_of_coarse, whole_of_fine = gradients()
    torch.testing.assert_close(of_coarse, whole_of_coarse / 10)
    assert torch.equal(of_fine, whole_of_fine) and whole_of_coarse.abs().max() > 1e-3


def test_a_prior_without_layers_finer_than_lr_shows_what_its_posterior_does():
    config = replace(CONFIG, levels=CONFIG.levels[:-1])
    prior, image = randomised(CompactVDVAE(config)), crops()[0] / 255
    noise = fixed_noise(2, (32, 32), CPU)
    shown = prior.elbo_and_mean(image, noise)[1]
    assert torch.equal(shown, prior.posterior(image, noise)[0][:, :3])


def test_the_rate_of_cvdvae_is_the_kl_of_its_first_layers(prior):
    model = randomised(CompactCVDVAE.from_prior(prior), seed=3)
    hr, lr = crops()
    noise = fixed_noise(2, (32, 32), CPU)
    losses = objective_of(model)(model, hr, lr, noise, 0.0)
    kl = model(hr / 255, lr / 255, noise)
    assert kl.kl.shape == (5, 2) and (kl.kl > 0).all()
    expected = kl.total.mean() / (3 * 32 * 32 * math.log(2))
    assert losses.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_cvdvae_samples_see_the_lr_picture_and_temper_every_layer(prior):
    model = randomised(CompactCVDVAE.from_prior(prior), seed=3)
    a, b = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    noise = fixed_noise(1, (32, 32), CPU)
    assert not torch.allclose(model.mean_path(a), model.mean_path(b), atol=1e-3)
    assert torch.equal(model.sample(a, noise, 0.0)[:, :3], model.mean_path(a))
    doubled = model.sample(a, lambda shape: 2 * noise(shape), 0.4)
    assert torch.allclose(doubled, model.sample(a, noise, 0.8), atol=1e-5)
    twice = fixed_noise(2, (32, 32), CPU)
    assert model.sample(a, twice, 0.8, repeats=2).shape == (2, 6, 32, 32)


def test_cvdvae_runs_in_the_engine(prior):
    model = CompactCVDVAE.from_prior(prior).eval()
    runtime = Runtime(device=CPU, dtype=torch.float32)
    settings = SamplingSettings(samples=(0, 1), tile=16, overlap=4)
    strips = list(sample_strips(runtime.place(model), torch.rand(3, 20, 13), settings, runtime))
    pixels = torch.cat([strip.pixels for strip in strips], dim=2)
    assert pixels.shape == (2, 3, 80, 52)


def test_every_kind_survives_its_header(prior):
    for model in (prior, CompactVDVAESROnPrior.from_prior(prior), CompactCVDVAE.from_prior(prior)):
        again = build_model(architecture_of(model).name, config_of(model))
        again.load_state_dict(model.state_dict(), strict=True)
    small = randomised(VDVAE(PUBLISHED_SHAPE))
    build_model("openai-vdvae", asdict(PUBLISHED_SHAPE)).load_state_dict(small.state_dict())


def test_what_does_not_go_together(prior, tiny_model):
    with pytest.raises(UsageError):
        model_on_prior("vdvae", prior)
    with pytest.raises(UsageError):
        model_on_prior("cvdvae", tiny_model)
    with pytest.raises(ValueError, match=r"1\.\.5"):
        replace(CompactCVDVAEConfig.of_prior(CONFIG), conditioned_blocks=6)
    with pytest.raises(UsageError, match="phase"):
        objective_of(prior)(prior, *crops(), None, 0.0)


@pytest.mark.parametrize("objective", ["vdvae", "cvdvae"])
def test_what_has_no_mean_path_alone_is_told_at_once(pictures, tmp_path, vdsr, objective):
    out = tmp_path / "run"
    ended = vdsr("train", objective, pictures, "--elbo-from", 3, "--out", out)
    assert ended.code == 2 and "--elbo-from" in ended.err and not out.exists()

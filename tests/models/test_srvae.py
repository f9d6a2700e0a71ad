"""srVAE: published names and sizes, layers by hand, the likelihood, the bound, the operations."""

import hashlib
import math

import pytest
import torch
from torch import Tensor

from vdsr_cli.bench.data import Scene
from vdsr_cli.bench.likelihood import elbo_bits
from vdsr_cli.errors import WeightsError
from vdsr_cli.models.blocks import drawn_rates
from vdsr_cli.models.distributions import importance_weighted_nll
from vdsr_cli.models.dmol import dmol_log_prob, dmol_mean, dmol_sample
from vdsr_cli.models.protocol import LatentShape
from vdsr_cli.models.registry import architecture_of, build_model, config_of
from vdsr_cli.models.srvae import (
    SRVAE,
    Gaussian,
    enlarged,
    on_levels,
    to_dmol,
)
from vdsr_cli.models.srvae_config import SRVAE_PRESETS, DenseSpec, SRVAEConfig
from vdsr_cli.models.srvae_layers import (
    DenseLayer,
    NormedConv,
    data_dependent_initialisation,
    dense_decoder,
    dense_encoder,
)
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.sampling.noise import NoiseField

PUBLISHED_TENSORS = "071821f24fda1969e37451ac8e047a32087e02f238182d47fa91f97378f9c0d1"
"""SHA-256 of the sorted lines ``name shape`` of the published code's state dict, RealNVP prior."""

THIN = DenseSpec(growth=4, steps=1)
TWICE = DenseSpec(growth=4, steps=1, depth=2)
SMALL = SRVAEConfig(
    latent_channels=3,
    components=2,
    flow=THIN,
    q_u=THIN,
    p_y=THIN,
    q_z=TWICE,
    p_z_y=THIN,
    p_z_u=THIN,
    p_z=THIN,
    p_x_z=TWICE,
    p_x=THIN,
    mixture_components=4,
)


def make(**changes) -> SRVAE:
    torch.manual_seed(0)
    config = SRVAEConfig(**{name: getattr(SMALL, name) for name in SMALL.__slots__} | changes)
    model = SRVAE(config).requires_grad_(False)
    with data_dependent_initialisation(model, deviation=0.5):
        hr, lr = pictures(8)
        model.bound(hr, lr, noise_for(8))
    return model


def pictures(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hr = torch.rand(count, 3, 32, 32, generator=generator)
    return on_levels(hr), on_levels(hr.unflatten(2, (16, 2)).unflatten(4, (16, 2)).mean((3, 5)))


def noise_for(count: int, seed: int = 0, side: int = 8):
    def draw(shape: LatentShape) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 10 + shape.layer)
        return torch.randn(count, shape.channels, side, side, generator=generator)

    return draw


def test_the_paper_s_network_has_the_published_tensors():
    with torch.device("meta"):
        model = SRVAE(SRVAE_PRESETS["srvae-paper"])
    assert sum(p.numel() for p in model.parameters()) == 39_272_570
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in model.named_children()}
    assert sizes == {
        "p_u": 11_411_876,
        "q_u": 3_934_912,
        "p_z": 6_428_516,
        "q_z": 3_027_986,
        "p_y": 4_354_140,
        "p_x": 10_115_140,
    }
    state = model.state_dict()
    assert len(state) == 1055
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in state.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == PUBLISHED_TENSORS


def test_the_mixture_prior_has_the_published_tensors():
    with torch.device("meta"):
        model = SRVAE(SRVAEConfig(prior="mixture"))
    shapes = {name: tuple(value.shape) for name, value in model.p_u.state_dict().items()}
    assert shapes == {"z_pre": (1, 2000, 1024), "pi": (1000,)}
    model.select_trainable()
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["p_u.pi"]


@pytest.mark.parametrize("prior", ["realnvp", "mixture", "normal"])
def test_a_strict_round_trip(prior):
    model = make(prior=prior, residual_unit=0.1)
    again = build_model(architecture_of(model).name, config_of(model))
    again.load_state_dict(model.state_dict(), strict=True)
    _, lr = pictures(2)
    assert torch.equal(again.mean_path(lr), model.mean_path(lr)), "loading needs no first pass"


@pytest.mark.parametrize(
    "config", [{"prior": "none"}, {"hr_size": 12}, {"flow": {"growth": 0, "steps": 1}}, {"x": 1}]
)
def test_a_config_that_makes_no_sense(config):
    with pytest.raises(WeightsError, match="not valid"):
        build_model("srvae", config)


def test_a_weight_is_length_times_direction():
    torch.manual_seed(0)
    for transposed in (False, True):
        conv = NormedConv(3, 5, 3, transposed=transposed)
        v, axis = conv.conv.weight_v, 1 if transposed else 0
        conv.conv.weight_g.data.mul_(torch.rand_like(conv.conv.weight_g) + 0.5)
        weight = conv.conv().movedim(axis, 0).flatten(1)
        assert torch.allclose(weight.norm(dim=1), conv.conv.weight_g.flatten())
        cosine = torch.cosine_similarity(weight, v.movedim(axis, 0).flatten(1))
        assert torch.allclose(cosine, torch.ones(5))
        torch.nn.init.ones_(conv.conv.weight_g)


def test_a_dense_layer_by_hand():
    """Every concatenation passes an ELU, the first features as often as there are steps."""
    torch.manual_seed(1)
    layer = DenseLayer(3, 2, 2)
    x = torch.randn(2, 3, 4, 4)
    first, second, attention = (layer.core_nn[i] for i in (0, 2, 4))
    elu = torch.nn.functional.elu
    one = elu(torch.cat([x, first.dense_block[1](first.dense_block[0](x))], 1))
    two = elu(torch.cat([one, second.dense_block[1](second.dense_block[0](one))], 1))
    gate = attention.ca_block[1](attention.ca_block[0](two.mean((2, 3), keepdim=True)))
    assert torch.allclose(layer(x), two * torch.sigmoid(gate))
    assert torch.allclose(two[:, :3], elu(elu(x)))


def test_encoders_and_decoders_halve_and_double():
    spec = DenseSpec(growth=4, steps=2, depth=2)
    x = torch.randn(2, 3, 16, 24)
    assert dense_encoder(3, 7, spec)(x).shape == (2, 7, 4, 6)
    assert dense_decoder(3, 7, spec)(x).shape == (2, 7, 64, 96)


def test_initialisation_by_data_gives_every_output_its_deviation():
    model = make()
    seen: dict[str, tuple[float, float]] = {}

    def note(name: str):
        def hook(module, inputs, output):
            spread = output.std(dim=(0, 2, 3)), output.mean(dim=(0, 2, 3)).abs().max()
            seen[name] = (float((spread[0] - 0.5).abs().max()), float(spread[1]))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, NormedConv):
            module.register_forward_hook(note(name))
    model.bound(*pictures(8), noise_for(8))
    assert len(seen) == sum(isinstance(m, NormedConv) for m in model.modules())
    assert max(deviation for deviation, _ in seen.values()) < 1e-2
    assert max(mean for _, mean in seen.values()) < 1e-4


def published_log_prob(target: Tensor, parameters: Tensor, components: int) -> Tensor:
    """The likelihood on [0, 1] as the published code lays it out, pixel by pixel, in float64."""
    logits = torch.log_softmax(parameters[:, :components], 1)
    blocks = parameters[:, components:].split(3 * components, dim=1)
    mean, log_scale, coefficient = (block.unflatten(1, (components, 3)) for block in blocks)
    coefficient = torch.tanh(coefficient)
    red, green, _ = target.unbind(1)
    shift = torch.stack(
        [
            torch.zeros_like(mean[:, :, 0]),
            coefficient[:, :, 0] * red[:, None],
            coefficient[:, :, 1] * red[:, None] + coefficient[:, :, 2] * green[:, None],
        ],
        dim=2,
    )
    centred = target[:, None] - mean - shift
    inverse = torch.exp(-log_scale.clamp(min=-7))
    upper = torch.sigmoid(inverse * (centred + 0.5 / 255))
    lower = torch.sigmoid(inverse * (centred - 0.5 / 255))
    upper = torch.where(target[:, None] > 1 - 0.5 / 255, torch.ones_like(upper), upper)
    lower = torch.where(target[:, None] < 0.5 / 255, torch.zeros_like(lower), lower)
    return torch.logsumexp(torch.log(upper - lower).sum(2) + logits, dim=1)


def test_the_likelihood_is_the_published_one():
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(2, 30, 4, 4, generator=generator)
    parameters[:, 3:12] = 0.5 + 0.1 * parameters[:, 3:12]
    parameters[:, 12:21] -= 2
    parameters[:, 21:] *= 0.2
    target = on_levels(torch.rand(2, 3, 4, 4, generator=generator))
    target[0, :, 0, 0], target[0, :, 0, 1] = 0.0, 1.0
    expected = published_log_prob(target.double(), parameters.double(), 3)
    found = dmol_log_prob(2 * target - 1, to_dmol(parameters))
    assert torch.allclose(found, expected.float(), rtol=0, atol=2e-3), "float32 cancels"


def test_a_residual_likelihood_moves_with_its_base():
    """A picture and its base, both brighter by the same, are as likely as before."""
    parameters = torch.randn(1, 20, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.05
    target, base = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)
    step = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1) * (2 / 2.55)
    before = dmol_log_prob(target, to_dmol(parameters, base))
    after = dmol_log_prob(target + step, to_dmol(parameters, base + step))
    assert torch.allclose(before, after, atol=1e-3)
    flat = to_dmol(torch.zeros(1, 20, 4, 4), base)
    assert torch.allclose(dmol_mean(flat), base, atol=1e-3), "zero says: the base itself"
    bright = torch.zeros(1, 20, 4, 4)
    bright[:, 2:8] = 0.4  # the means of two components
    for unit in (0.1, 0.5):
        moved = dmol_mean(to_dmol(bright, base, unit)) - base
        assert torch.allclose(moved, torch.full_like(base, 0.8 * unit), atol=2e-2)


def test_a_residual_likelihood_without_bounds_keeps_its_mean():
    base = torch.tensor([-0.9, 0.0, 0.9]).view(1, 3, 1, 1)
    parameters = torch.zeros(1, 10, 1, 1)
    parameters[:, 4:7] = 500.0  # log scales, whose exponential is infinite
    mean = dmol_mean(to_dmol(parameters, base)).flatten()
    assert torch.isfinite(mean).all() and mean[0] < mean[1] < mean[2], mean


def test_importance_weights_by_hand():
    log_weights = torch.tensor([[-3.0, -700.0], [-1.0, -702.0], [-2.0, -701.0]])
    total = sum(math.exp(w) for w in (-3, -1, -2)) / 3
    found = importance_weighted_nll(log_weights)
    assert found.tolist() == pytest.approx([-math.log(total), 699 - math.log(total)], rel=1e-5)
    one_by_one = -log_weights.mean(0)
    assert (found < one_by_one).all(), "better than the mean draw; the wrong sign is worse"
    assert torch.equal(importance_weighted_nll(log_weights[:1]), -log_weights[0])


@pytest.mark.parametrize("prior", ["realnvp", "mixture", "normal"])
def test_the_bound_is_the_mean_log_weight(prior):
    """The exact KL of z and its one-draw estimate agree on average."""
    model = make(prior=prior)
    hr, lr = pictures(1)
    count = 512
    bound = model.bound(
        hr.expand(count, -1, -1, -1), lr.expand(count, -1, -1, -1), noise_for(count)
    )
    elbo = -(bound.nll_x + bound.nll_y + bound.kl_z + bound.kl_u)
    difference = bound.log_weight - elbo
    error = float(difference.std()) / math.sqrt(count)
    assert error > 0
    assert abs(float(difference.mean())) < 4 * error
    assert float(importance_weighted_nll(bound.log_weight[:, None])) < -float(elbo.mean())


def test_the_bench_and_the_bound_agree_on_a_picture_s_likelihood():
    """On sides that are odd numbers of the model's multiple, not of the trained size."""
    model = make(residual_unit=0.1)
    high, wide = 3 * model.lr_multiple, model.lr_multiple
    hr, lr = pictures(1)
    hr, lr = hr[:, :, : 2 * high, : 2 * wide], lr[:, :, :high, :wide]
    scene = Scene(
        name="", hr=as_levels(hr), lr=as_levels(lr), scale=2, source_size=(2 * wide, 2 * high)
    )
    told = elbo_bits(model, scene, seed=0, runtime=choose_runtime("cpu", "float32"))
    field = NoiseField(seed=0)

    def noise(shape: LatentShape) -> Tensor:
        rows, columns = (torch.arange(n // shape.cell, dtype=torch.int32) for n in hr.shape[2:])
        return field.normal(shape.layer, rows, columns, shape.channels).permute(2, 0, 1)[None]

    bound = model.bound(hr, lr, noise)
    nats = float(bound.nll_x + bound.nll_y + bound.kl_z + bound.kl_u)
    assert told["bits_per_dim"] == pytest.approx(nats / (hr.numel() * math.log(2)), rel=1e-4)
    with drawn_rates(model):
        elbo, _ = model.elbo_and_mean(2 * hr - 1, lr, noise)
    nll = elbo.distortion + elbo.rate.sum(0)
    torch.testing.assert_close(-nll, bound.log_weight)


def as_levels(picture: Tensor) -> Tensor:
    return picture[0].mul(255).round().to(torch.uint8)


def test_a_gaussian_is_clamped_and_integrates_to_one():
    wild = Gaussian.of(torch.tensor([0.5, 90.0, -90.0, 0.0]).view(1, 4, 1, 1).repeat(1, 1, 1, 1))
    assert wild.log_std.flatten().tolist() == [-3.5, 0.0]
    x = torch.linspace(-12, 12, 4001).view(-1, 1, 1, 1)
    density = Gaussian(torch.tensor(0.7), torch.tensor(0.3)).log_prob(x).exp()
    assert float(density.sum()) * 24 / 4000 == pytest.approx(1, abs=1e-4)


def test_super_resolution_at_zero_is_the_mean_path():
    model = make(residual_unit=0.1)
    _, lr = pictures(2)
    assert torch.equal(
        dmol_mean(model.super_resolve(lr, noise_for(2, 1), 0.0)), model.mean_path(lr)
    )
    sampled = model.sample(lr, noise_for(6, 1), 0.8, repeats=3)
    assert sampled.shape == (6, 6, 32, 32)
    again = model.sample(lr, noise_for(6, 1), 0.8, repeats=3)
    assert torch.equal(sampled, again)
    assert not torch.equal(sampled, model.sample(lr, noise_for(6, 2), 0.8, repeats=3))
    still = model.sample(lr, None, 0.0)
    assert torch.allclose(still[:, :3], model.mean_path(lr))
    assert torch.equal(enlarged(torch.full((1, 3, 4, 4), 0.5)), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("prior", ["realnvp", "mixture", "normal"])
def test_the_operations_depend_on_what_they_should(prior):
    model = make(prior=prior)
    (hr, lr), (other_hr, other_lr) = pictures(2), pictures(2, seed=5)
    noise, choice = noise_for(2), torch.tensor([0.1, 0.9])
    made_lr, parameters = model.generate(noise, choice, 1.0, dmol_mean)
    assert made_lr.shape == lr.shape and parameters.shape == (2, 20, 32, 32)
    assert torch.equal(made_lr, on_levels(made_lr)), "the next networks see 8 bits"
    reconstructed = model.reconstruct(hr, lr, noise, 0.5)
    assert not torch.equal(reconstructed, model.reconstruct(other_hr, lr, noise, 0.5))
    assert not torch.equal(reconstructed, model.reconstruct(hr, other_lr, noise, 0.5))
    again_lr, again = model.reconstruct_generatively(lr, noise, 0.0, dmol_mean)
    u = model.posterior_u(lr).mean
    assert torch.equal(again_lr, on_levels((dmol_mean(model.lr_parameters(u)) + 1) / 2))
    z = model.prior_z(again_lr, u).mean
    assert torch.equal(again, model.hr_parameters(again_lr, z))

    def draw(parameters: Tensor) -> Tensor:
        return dmol_sample(
            parameters, torch.full((2, 2, 16, 16), 0.3), torch.full((2, 3, 16, 16), 0.8)
        )

    assert not torch.equal(model.generate(noise, choice, 1.0, draw)[0], made_lr)


@pytest.mark.parametrize("prior", ["mixture", "normal"])
def test_the_papers_other_priors_are_presets(prior):
    with torch.device("meta"):
        model = SRVAE(SRVAE_PRESETS[f"srvae-paper-{prior}"])
        parameters = sum(value.numel() for value in model.p_u.state_dict().values())
    assert parameters == {"mixture": 2_049_000, "normal": 0}[prior]

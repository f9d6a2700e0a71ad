"""The compact VDVAE-SR: its shapes, its conditioning and its bound."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdsr_cli.errors import WeightsError
from vdsr_cli.models.compact import (
    RESIDUAL_SCALE,
    CompactConfig,
    CompactVDVAESR,
    Level,
)
from vdsr_cli.models.distributions import discretized_logistic_log_prob, gaussian_kl
from vdsr_cli.models.presets import PRESETS
from vdsr_cli.models.registry import build_model, config_of

SIZE_LIMITS = {
    "vdvae-sr-x4": 8 << 20,
    "vdvae-sr-x4-large": 16 << 20,
    "vdvae-sr-x4-tiny": 3 << 20,
    "vdvae-sr-x4-deep": 4 << 20,
    "vdvae-sr-x4-real": 4 << 20,
    "vdvae-sr-x2": 16 << 20,
    "vdvae-sr-x8": 16 << 20,
}
"""Bytes of each preset's checkpoint in bfloat16."""


def noise(batch: int, height: int, width: int, *, seed: int = 0):
    """Normals of each layer for HR pictures of this size."""

    def draw(shape):
        generator = torch.Generator().manual_seed(1000 * seed + shape.layer)
        size = (batch, shape.channels, height // shape.cell, width // shape.cell)
        return torch.randn(size, generator=generator)

    return draw


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def levels_of_grey(*shape: int, seed: int = 0) -> torch.Tensor:
    """Pictures in [-1, 1] on the 256 grey levels."""
    grey = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed))
    return grey / 127.5 - 1


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    batch=st.integers(1, 3),
    repeats=st.integers(1, 3),
)
def test_shapes_of_any_multiple_of_the_coarsest_cell(tiny_model, rows, columns, batch, repeats):
    height, width = 4 * rows, 4 * columns
    normals = noise(batch * repeats, 4 * height, 4 * width)
    out = tiny_model.sample(rand(batch, 3, height, width), normals, 0.8, repeats=repeats)
    assert out.shape == (batch * repeats, 6, 4 * height, 4 * width)
    assert out.dtype == torch.float32 and out.isfinite().all()
    assert out[:, 3:].min() >= -8 and out[:, 3:].max() <= 2


def test_it_says_what_it_is(tiny_model):
    assert (tiny_model.scale, tiny_model.lr_multiple) == (4, 4)
    shapes = tiny_model.latent_shapes
    assert [shape.layer for shape in shapes] == list(range(5))
    assert [shape.cell for shape in shapes] == [16, 8, 4, 4, 2]
    assert [shape.channels for shape in shapes] == [3, 2, 2, 2, 1]


def test_noise_is_asked_for_once_a_layer_in_order(tiny_model):
    asked = []

    def source(shape):
        asked.append(shape)
        return noise(1, 32, 32)(shape)

    tiny_model.sample(rand(1, 3, 8, 8), source, 1.0)
    assert asked == tiny_model.latent_shapes


def test_repeats_are_the_samples_of_each_picture_side_by_side(tiny_model):
    lr, normals = rand(2, 3, 8, 8), noise(6, 32, 32)
    together = tiny_model.sample(lr, normals, 0.8, repeats=3)
    for i in range(6):
        alone = tiny_model.sample(lr[i // 3, None], lambda s, i=i: normals(s)[i, None], 0.8)
        assert torch.allclose(together[i, None], alone, atol=1e-5)


def test_the_mean_path_is_deterministic_and_is_temperature_0(tiny_model):
    lr = rand(2, 3, 8, 12)
    mean = tiny_model.mean_path(lr)
    assert torch.equal(mean, tiny_model.mean_path(lr))
    assert torch.equal(mean, tiny_model.sample(lr, noise(2, 32, 48), 0.0)[:, :3])
    assert not torch.allclose(mean, tiny_model.sample(lr, noise(2, 32, 48), 0.1)[:, :3])


def test_temperature_is_a_factor_on_the_noise(tiny_model):
    lr, normals = rand(1, 3, 8, 8), noise(1, 32, 32)
    doubled = tiny_model.sample(lr, lambda shape: 2 * normals(shape), 0.4)
    assert torch.allclose(doubled, tiny_model.sample(lr, normals, 0.8), atol=1e-5)


@pytest.mark.parametrize("layer", range(5))
def test_every_latent_matters(tiny_model, layer):
    def one_layer_only(shape):
        normals = noise(1, 32, 32)(shape)
        return normals if shape.layer == layer else torch.zeros_like(normals)

    lr = rand(1, 3, 8, 8)
    moved = tiny_model.sample(lr, one_layer_only, 1.0)[:, :3] - tiny_model.mean_path(lr)
    assert moved.abs().max() > 1e-4


@pytest.mark.parametrize("cell", [16, 8, 4])
def test_lr_activations_of_every_level_matter(tiny_model, cell):
    lr = rand(1, 3, 8, 8)
    base, activations = tiny_model.base(lr), tiny_model.lr_encoder(lr)
    assert sorted(activations, reverse=True) == [16, 8, 4]
    before = tiny_model._generate(base, activations, None, 0.0)
    activations[cell] = activations[cell] + 0.1
    assert (tiny_model._generate(base, activations, None, 0.0) - before).abs().max() > 1e-4


def test_closed_gates_shut_the_lr_picture_out(make_tiny):
    model = make_tiny()
    for name, parameter in model.named_parameters():
        if name.endswith("gate_param"):
            parameter.zero_()
    a, b = rand(1, 3, 8, 8), rand(1, 3, 8, 8, seed=1)
    residual_of = [model.mean_path(lr) - model.base(lr) for lr in (a, b)]
    assert torch.allclose(*residual_of, atol=1e-6)


def test_only_blocks_up_to_the_lr_resolution_have_gates(tiny_model):
    gated = [[b.gate_param is not None for b in level] for level in tiny_model.levels]
    assert gated == [[True], [True], [True, True], [False]]


def test_a_fresh_model_begins_near_the_bicubic_picture_and_sees_lr(tiny_model):
    torch.manual_seed(0)
    model = CompactVDVAESR(tiny_model.config)
    lr = rand(1, 3, 16, 16)
    change = model.mean_path(lr) - model.base(lr)
    assert 0 < change.abs().mean() < 0.1
    gates = [level[0].gate_param for level in model.levels if level[0].gate_param is not None]
    assert len(gates) == 3 and all((gate == 1).all() for gate in gates)


def test_the_base_is_bicubic(tiny_model):
    ramp = torch.linspace(0.2, 0.8, 16).expand(1, 3, 16, 16)
    base = tiny_model.base(ramp)
    step = (0.8 - 0.2) / 15 / 4 * 2
    inner = base[0, 0, 20, 12:-12]
    assert torch.allclose(inner.diff(), torch.full_like(inner.diff(), step), atol=1e-5)
    assert base[0, 0, 20].mean().item() == pytest.approx(0, abs=1e-5)


def test_a_state_dict_goes_round_through_plain_values(tiny_model):
    again = build_model("compact-vdvae-sr", config_of(tiny_model))
    again.load_state_dict(tiny_model.state_dict(), strict=True)
    lr = rand(1, 3, 8, 8)
    assert torch.equal(again.mean_path(lr), tiny_model.mean_path(lr))
    assert asdict(again.config) == asdict(tiny_model.config)


def test_other_keys_and_shapes_are_refused(tiny_model, make_tiny):
    state = tiny_model.state_dict()
    missing = {name: value for name, value in state.items() if name != "head.bias"}
    wider = {**state, "head.bias": torch.zeros(1)}
    for bad in (missing, {**state, "extra": torch.zeros(1)}, wider):
        with pytest.raises(RuntimeError, match="Error"):
            make_tiny().load_state_dict(bad, strict=True)


LEVEL = Level(cell=4, width=8, blocks=1, latent_channels=2)


@pytest.mark.parametrize(
    "change",
    [{"cell": 3}, {"cell": 0}, {"cell": -4}, {"width": 0}, {"blocks": 0}, {"latent_channels": 0}],
)
def test_impossible_levels_are_refused(change):
    with pytest.raises(ValueError, match="must be"):
        replace(LEVEL, **change)


@pytest.mark.parametrize(
    ("scale", "levels", "reason"),
    [
        (4, (replace(LEVEL, cell=16), LEVEL), "halve"),
        (4, (LEVEL, LEVEL), "halve"),
        (4, (LEVEL, replace(LEVEL, cell=8)), "halve"),
        (8, (LEVEL,), "LR resolution"),
        (4, (replace(LEVEL, cell=8, width=4), LEVEL), "one width"),
        (4, (LEVEL, replace(LEVEL, cell=2, lr_blocks=1)), "LR encoder"),
    ],
)
def test_impossible_configs_are_refused(scale, levels, reason):
    with pytest.raises(ValueError, match=reason):
        CompactConfig(scale=scale, levels=levels)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"scale": 4},
        {"scale": 4, "levels": [{"cell": 4}]},
        {"scale": 4, "levels": [{**asdict(LEVEL), "depth": 3}]},
        {"scale": 8, "levels": [asdict(LEVEL)]},
        {"scale": 4, "levels": 7},
        {"scale": 4, "levels": []},
        {"scale": "4", "levels": [asdict(LEVEL)]},
        {"scale": 4, "levels": [{**asdict(LEVEL), "width": "8"}]},
    ],
)
def test_a_headers_impossible_config_is_a_weights_error(config):
    with pytest.raises(WeightsError, match="configuration is not valid"):
        build_model("compact-vdvae-sr", config)


def test_an_unknown_architecture_is_a_weights_error():
    with pytest.raises(WeightsError, match="unknown architecture"):
        build_model("vqgan", {})


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_their_size(name):
    with torch.device("meta"):
        model = CompactVDVAESR(PRESETS[name])
    size = 2 * sum(parameter.numel() for parameter in model.parameters())
    assert 0.2 * SIZE_LIMITS[name] < size < SIZE_LIMITS[name]
    assert f"-x{model.scale}" in name


def test_elbo_parts_are_the_sums_of_the_definition(make_tiny):
    """One block, by hand: KL(q || p) and the log-probability at the posterior's latent."""
    config = CompactConfig(scale=2, levels=(replace(LEVEL, cell=2, lr_blocks=1),))
    model = make_tiny(config=config, seed=3)
    hr, lr, normals = levels_of_grey(2, 3, 8, 8), rand(2, 3, 4, 4), noise(2, 8, 8)
    elbo, mean_path = model.elbo_and_mean(hr, lr, normals)

    block, base = model.levels[0][0], model.base(lr)
    g = model.lr_encoder(lr)[2]
    x = block.gate_param * g
    h = model.hr_encoder((hr - base) / RESIDUAL_SCALE)[2]
    mean_q, log_std_q = block.enc(torch.cat([x, h], 1)).chunk(2, 1)
    mean_p, log_std_p, residual = block.prior(x).split([2, 2, 8], 1)
    log_std_q, log_std_p = log_std_q.clamp(-8, 4), log_std_p.clamp(-8, 4)
    kl = gaussian_kl(mean_q, log_std_q, mean_p, log_std_p).sum((1, 2, 3))
    z = mean_q + log_std_q.exp() * normals(model.latent_shapes[0])
    state = block.resnet(x + residual + block.z_proj(z))
    out = torch.nn.functional.pixel_shuffle(model.head(state), 2)
    mean, log_scale = base + RESIDUAL_SCALE * out[:, :3], (out[:, 3:] - 4).clamp(-7, 2)
    log_prob = discretized_logistic_log_prob(hr, mean, log_scale).sum((1, 2, 3))

    assert elbo.rate.shape == (1, 2) and elbo.distortion.shape == (2,)
    assert torch.allclose(elbo.rate[0], kl, rtol=1e-4)
    assert torch.allclose(elbo.distortion, -log_prob, rtol=1e-4)
    assert torch.equal(mean_path, model.mean_path(lr))


def test_the_bound_is_a_bound_on_every_picture(tiny_model):
    """Rates are not negative, and no picture has a probability above one."""
    hr, lr = levels_of_grey(3, 3, 32, 32), rand(3, 3, 8, 8)
    elbo, _ = tiny_model.elbo_and_mean(hr, lr, noise(3, 32, 32))
    assert elbo.rate.shape == (5, 3)
    assert (elbo.rate >= 0).all() and (elbo.distortion >= 0).all()


def test_rate_is_zero_where_the_posterior_is_the_prior(make_tiny):
    config = CompactConfig(scale=2, levels=(replace(LEVEL, cell=2, lr_blocks=1),))
    model = make_tiny(config=config)
    block = model.levels[0][0]
    for head in (block.enc, block.prior):
        head.c2.weight.zero_()
        head.c2.bias.zero_()
    elbo, _ = model.elbo_and_mean(levels_of_grey(1, 3, 8, 8), rand(1, 3, 4, 4), noise(1, 8, 8))
    assert elbo.rate.abs().max() < 1e-4


def test_gradients_reach_every_parameter(make_tiny):
    model = make_tiny().requires_grad_(True)
    elbo, mean = model.elbo_and_mean(
        levels_of_grey(1, 3, 32, 32), rand(1, 3, 8, 8), noise(1, 32, 32)
    )
    loss = elbo.distortion.sum() + elbo.rate.sum() + mean.abs().sum()
    assert math.isfinite(loss.item())
    loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []

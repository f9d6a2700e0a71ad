"""The priors of u: the flow inverts, its log-determinant is autograd's, densities are densities."""

import math

import pytest
import torch
from torch import Tensor, nn

from vdsr_cli.models.realnvp import (
    Coupling,
    MixtureOfGaussians,
    RealNVP,
    StandardNormal,
    join_diagonals,
    split_diagonals,
    squeeze,
    standard_log_prob,
    unsqueeze,
)
from vdsr_cli.models.srvae_config import DenseSpec

SPEC = DenseSpec(growth=3, steps=2)


def roughened(module: nn.Module) -> nn.Module:
    """Lengths and biases that matter, in float64."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if not name.endswith("weight_v"):
            factor = torch.rand(parameter.shape, generator=generator) - 0.3
            parameter.data.copy_(parameter.data + factor)
    return module.double().requires_grad_(False)


@pytest.fixture
def flow() -> RealNVP:
    torch.manual_seed(0)
    return roughened(RealNVP(2, SPEC))


def test_the_flow_inverts(flow):
    u = torch.randn(3, 2, 8, 4, dtype=torch.float64)
    base, log_det = flow.flows(u)
    assert (base - u).abs().max() > 0.1 and log_det.abs().min() > 0.1
    assert torch.allclose(flow.sample(base, torch.rand(3)), u, atol=1e-6)


def test_its_log_determinant_is_the_jacobian_s(flow):
    u = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.flows(x)[0], u).view(32, 32)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    base, log_det = flow.flows(u)
    assert float(log_det) == pytest.approx(float(expected), rel=1e-5)
    assert float(flow.log_prob(u)) == pytest.approx(
        float(standard_log_prob(base) + expected), rel=1e-5
    )


@pytest.mark.parametrize(
    ("is_checkerboard", "is_reversed", "changed"),
    [(True, False, (0, 0)), (True, True, (0, 1))],
)
def test_a_checkerboard_keeps_one_colour(is_checkerboard, is_reversed, changed):
    torch.manual_seed(0)
    coupling = roughened(
        Coupling(2, SPEC, is_checkerboard=is_checkerboard, is_reversed=is_reversed)
    )
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    moved = (coupling(x)[0] != x).all(dim=1)[0]
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    colour = (rows + columns) % 2
    assert torch.equal(moved, colour == colour[changed])


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_channel_coupling_keeps_one_half(is_reversed):
    torch.manual_seed(0)
    coupling = roughened(Coupling(2, SPEC, is_checkerboard=False, is_reversed=is_reversed))
    x = torch.randn(2, 4, 4, 4, dtype=torch.float64)
    y, _ = coupling(x)
    kept = slice(0, 2) if is_reversed else slice(2, 4)
    changed = slice(2, 4) if is_reversed else slice(0, 2)
    assert torch.equal(y[:, kept], x[:, kept]) and (y[:, changed] != x[:, changed]).all()
    assert torch.allclose(coupling.inverse(y), x)


def test_where_the_pixels_of_a_block_go():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    x = torch.cat([x, x + 10], dim=1)
    assert squeeze(x).flatten().tolist() == [1, 2, 3, 4, 11, 12, 13, 14]
    main, other = split_diagonals(x)
    assert main.flatten().tolist() == [1, 11, 4, 14]
    assert other.flatten().tolist() == [2, 12, 3, 13]
    assert torch.equal(join_diagonals(main, other), x)
    assert torch.equal(unsqueeze(squeeze(x)), x)


def test_a_mixture_is_a_density_and_is_sampled_from():
    torch.manual_seed(0)
    prior = MixtureOfGaussians(3, 1).requires_grad_(False)
    prior.z_pre.copy_(torch.tensor([-2.0, 0.0, 3.0, -1.0, 0.0, 1.0]).view(1, 6, 1))
    x = torch.linspace(-12, 12, 4001).view(-1, 1, 1, 1)
    density = prior.log_prob(x).exp()
    assert float(density.sum()) * 24 / 4000 == pytest.approx(1, abs=1e-4)
    variance = [math.log1p(math.exp(v)) for v in (-1, 0, 1)]
    by_hand = [
        math.exp(-((0.4 - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
        for m, v in zip((-2, 0, 3), variance, strict=True)
    ]
    found = float(prior.log_prob(torch.full((1, 1, 1, 1), 0.4)))
    assert found == pytest.approx(math.log(sum(by_hand) / 3), rel=1e-4)
    count = 20_000
    drawn = prior.sample(torch.randn(count, 1, 1, 1), torch.rand(count))
    assert float(drawn.mean()) == pytest.approx(1 / 3, abs=0.06)
    chosen = prior.sample(torch.zeros(3, 1, 1, 1), torch.tensor([0.1, 0.5, 0.99]))
    assert chosen.flatten().tolist() == [-2.0, 0.0, 3.0]


def test_the_plain_prior():
    prior, u = StandardNormal(), torch.zeros(2, 3, 2, 2)
    expected: Tensor = torch.full((2,), -6 * math.log(2 * math.pi))
    assert torch.allclose(prior.log_prob(u), expected)
    assert prior.sample(u, torch.rand(2)) is u

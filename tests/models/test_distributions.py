"""Gaussians and the discretised logistic against their definitions."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from vdsr_cli.models.distributions import (
    discretized_logistic_log_prob,
    from_tails,
    gaussian_kl,
    gaussian_log_ratio,
    gaussian_sample,
    to_tails,
)

LEVELS = 2 * torch.arange(256, dtype=torch.float64) / 255 - 1


@pytest.mark.parametrize(
    ("mean_q", "log_std_q", "mean_p", "log_std_p"),
    [(0.0, 0.0, 0.0, 0.0), (0.5, -1.0, -0.2, 0.3), (1.0, 0.4, 0.0, 0.0), (-0.1, -2.0, 0.1, -1.5)],
)
def test_kl_is_the_mean_log_ratio(mean_q, log_std_q, mean_p, log_std_p):
    draws = 400_000
    values = [torch.tensor(v) for v in (mean_q, log_std_q, mean_p, log_std_p)]
    epsilon = torch.randn(draws, generator=torch.Generator().manual_seed(0))
    z = gaussian_sample(values[0], values[1], epsilon)
    q, p = Normal(values[0], values[1].exp()), Normal(values[2], values[3].exp())
    ratio = q.log_prob(z) - p.log_prob(z)
    error = 5 * ratio.std().item() / draws**0.5 + 1e-6
    assert gaussian_kl(*values).item() == pytest.approx(ratio.mean().item(), abs=error)


@pytest.mark.parametrize(
    ("mean_q", "log_std_q", "mean_p", "log_std_p"),
    [(0.5, -1.0, -0.2, 0.3), (1.0, 0.4, 0.0, 0.0), (-0.1, -2.0, 0.1, -1.5), (3.0, 0.0, -2.0, 0.7)],
)
def test_kl_is_the_integral(mean_q, log_std_q, mean_p, log_std_p):
    """Numpy's double precision, from the definition: the integral of q (log q - log p)."""
    std_q, std_p = math.exp(log_std_q), math.exp(log_std_p)
    z = np.linspace(mean_q - 12 * std_q, mean_q + 12 * std_q, 20_001)
    log_q, log_p = (
        -0.5 * ((z - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        for mean, std in ((mean_q, std_q), (mean_p, std_p))
    )
    heights = np.exp(log_q) * (log_q - log_p)
    expected = np.sum((heights[1:] + heights[:-1]) * np.diff(z)) / 2  # by trapezoids
    values = (torch.tensor(v, dtype=torch.float64) for v in (mean_q, log_std_q, mean_p, log_std_p))
    assert gaussian_kl(*values).item() == pytest.approx(expected, rel=1e-10)


def test_the_log_ratio_is_that_of_the_densities():
    z, mean_q, mean_p = torch.randn(3, 50, dtype=torch.float64)
    log_std_q, log_std_p = torch.randn(2, 50, dtype=torch.float64)
    found = gaussian_log_ratio(z, mean_q, log_std_q, mean_p, log_std_p)
    q, p = Normal(mean_q, log_std_q.exp()), Normal(mean_p, log_std_p.exp())
    torch.testing.assert_close(found, q.log_prob(z) - p.log_prob(z))


def test_kl_is_never_negative_and_zero_for_equals():
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = torch.randn(4, 10_000, generator=generator, dtype=torch.float64)
    assert gaussian_kl(a, b, c, d).min() > 0
    assert gaussian_kl(a, b, a, b).abs().max() < 1e-14


def test_kl_survives_narrow_and_wide_gaussians():
    zero = torch.zeros(())
    assert gaussian_kl(zero, torch.tensor(-30.0), zero, torch.tensor(-30.0)).item() == 0
    assert gaussian_kl(zero, torch.tensor(30.0), zero, torch.tensor(30.0)).item() == 0


def test_temperature_scales_the_standard_deviation():
    mean, log_std, epsilon = torch.tensor(1.0), torch.tensor(math.log(3.0)), torch.tensor(2.0)
    assert gaussian_sample(mean, log_std, epsilon, 0.5).item() == pytest.approx(1 + 0.5 * 3 * 2)
    assert gaussian_sample(mean, log_std, epsilon, 0.0).item() == 1
    assert gaussian_sample(mean, log_std, None).item() == 1


@pytest.mark.parametrize("tail", [None, 0.02, 0.3, 1.1])
@pytest.mark.parametrize("log_scale", [-8.0, -5.0, -3.0, -1.0, 2.0])
@pytest.mark.parametrize("mean", [-1.5, -1.0, 0.0, 0.003, 0.8, 3.0])
def test_discretised_logistic_sums_to_one(mean, log_scale, tail):
    tail = None if tail is None else torch.tensor(tail)
    moments = torch.tensor(mean), torch.tensor(log_scale)
    log_prob = discretized_logistic_log_prob(LEVELS, *moments, tail)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_tails_fall_as_the_power_that_they_say():
    """One in 8 is lost where the distance doubles, of a third; none near the location."""
    tail, distance = torch.tensor(1 / 3).double(), torch.tensor(1e5).double()
    near, far = (torch.sigmoid(-from_tails(d, tail)) for d in (distance, 2 * distance))
    assert (near / far).item() == pytest.approx(8, rel=1e-6)
    small = torch.linspace(-0.01, 0.01, 9).double()
    torch.testing.assert_close(from_tails(small, tail), small, rtol=1e-5, atol=0)


def test_tails_in_float32_are_those_of_float64():
    """For every scale, every distance of a pixel and every weight of the tails."""
    log_scale, mean, tail = torch.meshgrid(
        torch.linspace(-8, 2, 21),
        torch.linspace(-1.4, 1.4, 57),
        torch.tensor([0.02, 0.15, 1.1]),
        indexing="ij",
    )
    found, exact = (
        discretized_logistic_log_prob(
            LEVELS.view(-1, 1, 1, 1).to(t), *(part.to(t) for part in (mean, log_scale, tail))
        )
        for t in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=3e-3)


def test_turning_to_tails_and_back_changes_nothing():
    noise = torch.linspace(-12, 12, 99).double()
    for tail in (0.02, 0.15, 1.1):
        there = to_tails(noise, torch.tensor(tail).double())
        torch.testing.assert_close(from_tails(there, torch.tensor(tail).double()), noise)
        assert (there.abs() >= noise.abs()).all()


@pytest.mark.parametrize("tail", [None, torch.tensor([0.02, 0.15, 0.3, 1.1])])
def test_discretised_logistic_has_finite_gradients_far_out(tail):
    mean = torch.tensor([-40.0, -1.0, 0.0, 40.0], requires_grad=True)
    log_scale = torch.tensor([-7.0, -7.0, 5.0, -7.0], requires_grad=True)
    target = torch.tensor([1.0, 1.0, -1.0, 0.0])
    log_prob = discretized_logistic_log_prob(target, mean, log_scale, tail)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert mean.grad.isfinite().all()
    assert log_scale.grad.isfinite().all()

"""Rank correlation and sparsification against values that are known."""

import pytest
import torch


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("benchmarks/calibration.py")


def test_equal_values_share_a_rank(script):
    assert script.ranks(torch.tensor([10.0, 20.0, 20.0, 5.0])).tolist() == [1.0, 2.5, 2.5, 0.0]


def test_spearman_sees_order_alone(script):
    a = torch.rand(500, generator=torch.Generator().manual_seed(0))
    assert script.spearman(a, a.exp()) == pytest.approx(1)
    assert script.spearman(a, -(a**3)) == pytest.approx(-1)
    assert script.spearman(a, torch.ones(500)) == 0
    # A known value: d^2 sums to 2 of 4 * 15 / 6.
    known = script.spearman(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 3, 2, 4]))
    assert known == pytest.approx(0.8)


def test_sparsification_lies_between_the_oracle_and_chance(script):
    generator = torch.Generator().manual_seed(1)
    error = torch.rand(20_000, generator=generator)
    noisy = error + 0.5 * torch.rand(20_000, generator=generator)
    oracle, good = script.sparsification(error, error), script.sparsification(error, noisy)
    chance = script.sparsification(error, torch.rand(20_000, generator=generator))
    assert oracle[0] == 1
    assert (oracle.diff() <= 0).all()
    assert script.area(oracle) < script.area(good) < script.area(chance)
    assert script.area(chance) == pytest.approx(1, abs=0.02)


def test_gradient_is_zero_on_flat_parts_and_largest_at_the_edge(script):
    picture = torch.zeros(3, 8, 8)
    picture[:, :, 4:] = 1
    gradient = script.gradient_magnitude(picture)
    assert gradient.shape == (8, 8)
    assert gradient[:, [0, 1, 2, 5, 6, 7]].max() == 0
    assert gradient[:, 3:5].min() == 4

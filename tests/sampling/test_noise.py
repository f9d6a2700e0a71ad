"""The noise field: numbers that depend on their position alone, and are normal."""

import hashlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdsr_cli.sampling.noise import NoiseField

SEEDS = st.integers(-(2**70), 2**70)
LAYERS = st.integers(-1, 40)
POSITIONS = st.integers(-(2**20), 2**20)


def span(first: int, length: int) -> torch.Tensor:
    return torch.arange(first, first + length, dtype=torch.int32)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def kolmogorov_smirnov(values: torch.Tensor, cdf: torch.Tensor) -> float:
    """sqrt(n) times the largest distance of the empirical distribution from ``cdf(values)``."""
    expected = cdf.flatten().double().sort().values
    n = len(expected)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((steps[1:] - expected).max(), (expected - steps[:-1]).max())
    return math.sqrt(n) * float(distance)


@given(
    seed=SEEDS,
    sample=st.integers(0, 10**6),
    layer=LAYERS,
    row=POSITIONS,
    column=POSITIONS,
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 9),
    data=st.data(),
)
def test_any_rectangle_is_a_cut_of_any_larger_one(
    seed, sample, layer, row, column, height, width, channels, data
):
    field = NoiseField(seed=seed, sample=sample)
    whole = field.normal(layer, span(row, height), span(column, width), channels)
    assert whole.shape == (height, width, channels) and whole.dtype == torch.float32
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    part = field.normal(layer, span(row + top, height - top), span(column + left, 1), channels)
    assert torch.equal(part, whole[top:, left : left + 1])


@given(channels=st.integers(1, 12), fewer=st.integers(1, 12))
def test_the_first_channels_do_not_depend_on_how_many_there_are(channels, fewer):
    many = NoiseField(seed=3).normal(0, span(0, 4), span(0, 4), channels)
    few = NoiseField(seed=3).normal(0, span(0, 4), span(0, 4), min(channels, fewer))
    assert torch.equal(few, many[:, :, : min(channels, fewer)])


def test_rows_cut_for_the_cache_are_the_same_rows():
    """Wide pictures are hashed in chunks of rows; one row at a time must give the same."""
    rows, columns = span(-3, 40), span(7, 3000)
    field = NoiseField(seed=11)
    whole = field.normal(2, rows, columns, 5)
    one_by_one = torch.cat([field.normal(2, row.view(1), columns, 5) for row in rows])
    assert torch.equal(whole, one_by_one)


def test_the_order_of_positions_does_not_matter():
    rows, columns = span(-5, 10), span(20, 10)
    field = NoiseField(seed=1)
    shuffled = torch.tensor([3, 9, 0, 5], dtype=torch.int32)
    picked = field.normal(0, rows[shuffled], columns, 2)
    assert torch.equal(picked, field.normal(0, rows, columns, 2)[shuffled])


@pytest.mark.parametrize(
    "other",
    [
        NoiseField(seed=1),
        NoiseField(seed=-1),
        NoiseField(seed=2**40),
        NoiseField(seed=0, sample=1),
        NoiseField(seed=0, sample=99),
    ],
)
def test_seeds_and_samples_are_independent(other):
    a = NoiseField(seed=0).normal(0, span(0, 200), span(0, 200), 2)
    b = other.normal(0, span(0, 200), span(0, 200), 2)
    assert abs(correlation(a, b)) < 5 / math.sqrt(a.numel())


@given(seed=SEEDS, sample=st.integers(0, 100), layer=LAYERS)
def test_neighbouring_keys_are_independent(seed, sample, layer):
    rows = columns = span(0, 40)
    a = NoiseField(seed=seed, sample=sample).normal(layer, rows, columns, 2)
    others = [
        NoiseField(seed=seed + 1, sample=sample).normal(layer, rows, columns, 2),
        NoiseField(seed=seed, sample=sample + 1).normal(layer, rows, columns, 2),
        NoiseField(seed=seed, sample=sample).normal(layer + 1, rows, columns, 2),
        NoiseField(seed=seed, sample=sample).normal(layer + 2**31, rows, columns, 2),
    ]
    for b in others:
        assert abs(correlation(a, b)) < 6 / math.sqrt(a.numel())


def test_neighbouring_cells_and_channels_are_independent():
    noise = NoiseField(seed=4).normal(3, span(-128, 256), span(-128, 256), 6)
    bound = 5 / math.sqrt(noise[:, :, 0].numel())
    for lag in (1, 2, 3, 8, 64):
        assert abs(correlation(noise[lag:], noise[:-lag])) < bound, f"rows, lag {lag}"
        assert abs(correlation(noise[:, lag:], noise[:, :-lag])) < bound, f"columns, lag {lag}"
        assert abs(correlation(noise[lag:, lag:], noise[:-lag, :-lag])) < bound, f"diagonal, {lag}"
    for a in range(6):
        for b in range(a):
            assert abs(correlation(noise[:, :, a], noise[:, :, b])) < bound, f"channels {a}, {b}"
            squares = noise[:, :, a].square(), noise[:, :, b].square()
            assert abs(correlation(*squares)) < bound, f"squares of channels {a}, {b}"


def test_rows_and_columns_are_not_exchangeable():
    noise = NoiseField(seed=0).normal(0, span(0, 64), span(0, 64), 1)[:, :, 0]
    assert abs(correlation(noise, noise.T)) < 0.1


@pytest.mark.parametrize("origin", [-(2**21), -300, 0, 10**6])
def test_it_is_normal_everywhere(origin):
    noise = NoiseField(seed=8).normal(1, span(origin, 300), span(origin, 300), 4).double()
    n = noise.numel()
    assert abs(noise.mean()) < 5 / math.sqrt(n)
    assert abs(noise.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((noise**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((noise**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert kolmogorov_smirnov(noise, torch.special.ndtr(noise)) < 1.95


def test_the_tails_are_there():
    noise = NoiseField(seed=5).normal(0, span(0, 700), span(0, 700), 4)
    for bound in (2.0, 3.0, 3.5):
        expected = noise.numel() * math.erfc(bound / math.sqrt(2))
        found = int((noise.abs() > bound).sum())
        assert abs(found - expected) < 5 * math.sqrt(expected), f"beyond {bound}"
    assert 4.0 < float(noise.max()) < 4.4 and -4.4 < float(noise.min()) < -4.0


def test_logistic_noise_is_logistic():
    noise = NoiseField(seed=5).logistic(-1, span(0, 400), span(0, 400), 3).double()
    assert kolmogorov_smirnov(noise, torch.sigmoid(noise)) < 1.95
    assert abs(noise.var() - math.pi**2 / 3) < 0.05
    assert 11 < float(noise.abs().max()) < 12


def test_logistic_noise_is_cut_from_one_field_too():
    field = NoiseField(seed=5, sample=2)
    whole = field.logistic(-1, span(-4, 9), span(-4, 9), 3)
    assert torch.equal(whole[2:5, 6:], field.logistic(-1, span(-2, 3), span(2, 3), 3))


FIRST = {
    # (seed, sample, layer, row, column): three channels
    (0, 0, 0, 0, 0): (0.008051, 0.591730, -0.100474),
    (0, 0, 0, 0, 1): (0.885872, 0.795828, -0.280693),
    (0, 0, 0, -1, 0): (0.203128, 0.228694, 1.240645),
    (1, 0, 0, 0, 0): (0.820857, -0.639392, -0.324097),
    (0, 1, 0, 0, 0): (-0.272784, 0.249317, 0.931120),
    (0, 0, 1, 0, 0): (0.682217, -2.597733, -0.756234),
    (-7, 4, 11, -1000, 123_456): (-0.681059, -0.359008, -0.779813),
}


@pytest.mark.parametrize(("key", "expected"), FIRST.items())
def test_the_field_is_what_it_was(key, expected):
    """A change here gives every user other pixels: it belongs under "Output changes"."""
    seed, sample, layer, row, column = key
    drawn = NoiseField(seed=seed, sample=sample).normal(layer, span(row, 1), span(column, 1), 3)
    assert drawn.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_whole_map_is_what_it_was():
    noise = NoiseField(seed=2024, sample=3).normal(5, span(-50, 100), span(-50, 100), 7)
    # Which of the 65,536 quantiles: integers, whatever a platform's rounding of a quantile.
    index = (torch.special.ndtr(noise.double()) * 65536).floor().to(torch.int32)
    digest = hashlib.sha256(index.numpy().tobytes()).hexdigest()
    assert digest[:16] == "4b759af1b991a68a"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_the_same_bits():
    rows, columns = span(-20, 300), span(-20, 300)
    on_cpu = NoiseField(seed=6).normal(2, rows, columns, 5)
    on_gpu = NoiseField(seed=6).normal(2, rows.cuda(), columns.cuda(), 5)
    assert torch.equal(on_cpu, on_gpu.cpu())

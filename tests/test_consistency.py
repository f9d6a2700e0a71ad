"""The degradation A, its transpose, and the projection onto {hr: A hr = lr}."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from vdsr_cli.config import Edges
from vdsr_cli.consistency import (
    cubic,
    degrade,
    degrade_8bit,
    degrade_adjoint,
    project,
    reduction_taps,
    solve_gram,
)

BENCH = Path(__file__).parents[2] / "shared" / "data" / "bench"
SCALES = st.sampled_from([1, 2, 3, 4, 8])
SIDES = st.integers(1, 30)
EDGES = st.sampled_from(Edges)


def rand(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def matlab_imresize_8bit(hr: np.ndarray, scale: int, edges: Edges) -> np.ndarray:
    """MATLAB's imresize(hr, 1 / scale) of (H, W) uint8, written from its definition: for each
    output pixel the weights of all input pixels within reach, the nearer axis first; beyond the
    picture its edge, or the picture and its mirror image in turns."""
    for _ in range(2):
        length = len(hr)
        reduced = np.zeros((length // scale, *hr.shape[1:]))
        for i in range(length // scale):
            centre = (i + 0.5) * scale - 0.5
            reach = range(math.floor(centre - 2 * scale), math.ceil(centre + 2 * scale) + 1)
            weights = {}
            for j in reach:
                d = abs(j - centre) / scale
                if d <= 1:
                    weights[j] = 1.5 * d**3 - 2.5 * d**2 + 1
                elif d < 2:
                    weights[j] = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            total = sum(weights.values())
            turns = [*range(length), *reversed(range(length))]
            for j, weight in weights.items():
                repeated = min(max(j, 0), length - 1)
                there = repeated if edges == "repeat" else turns[j % len(turns)]
                reduced[i] += weight / total * hr[there]
        hr = np.clip(np.floor(reduced + 0.5 + 1e-9), 0, 255).T
    return hr.astype(np.uint8)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8, 16])
def test_taps_are_a_symmetric_partition(scale):
    taps = reduction_taps(scale)
    assert len(taps) == 4 * scale - scale % 2
    assert taps.sum().item() == pytest.approx(1)
    assert torch.allclose(taps, taps.flip(0))


def test_the_kernel_is_keys_cubic():
    at = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, -0.5])
    assert cubic(at).tolist() == pytest.approx([1, 0.5625, 0, -0.0625, 0, 0, 0.5625])


@given(scale=SCALES, height=SIDES, width=SIDES, level=st.floats(-2, 2))
def test_a_flat_picture_stays_flat(scale, height, width, level):
    hr = torch.full((1, 2, height * scale, width * scale), level, dtype=torch.float64)
    lr = torch.full((1, 2, height, width), level, dtype=torch.float64)
    assert torch.allclose(degrade(hr, scale), lr)


def test_a_ramp_keeps_its_half_pixel_centres():
    scale = 4
    ramp = torch.arange(80, dtype=torch.float64).expand(1, 1, 80, 80)
    centres = torch.arange(20, dtype=torch.float64) * scale + (scale - 1) / 2
    assert torch.allclose(degrade(ramp, scale)[0, 0, 5, 2:-2], centres[2:-2])


@given(scale=SCALES, edges=EDGES, height=SIDES, width=SIDES, seed=st.integers(0, 999))
def test_the_adjoint_is_the_transpose(scale, edges, height, width, seed):
    x = rand(2, 3, height * scale, width * scale, seed=seed) - 0.5
    y = rand(2, 3, height, width, seed=seed + 1) - 0.5
    here = (degrade(x, scale, edges) * y).sum()
    there = (x * degrade_adjoint(y, scale, edges)).sum()
    assert abs(here - there) < 1e-10 * (1 + abs(here))


@given(scale=SCALES, edges=EDGES, height=SIDES, width=SIDES, seed=st.integers(0, 999))
def test_the_gram_inverse_inverts(scale, edges, height, width, seed):
    y = rand(1, 3, height, width, seed=seed) - 0.5
    again = degrade(degrade_adjoint(solve_gram(y, scale, edges), scale, edges), scale, edges)
    assert torch.allclose(again, y, atol=1e-8)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_gram_inverse_is_cut_into_blocks_without_a_trace(scale):
    y = rand(1, 1, 200, 3, seed=scale) - 0.5
    again = degrade(degrade_adjoint(solve_gram(y, scale), scale), scale)
    assert (again - y).abs().max() < 1e-6


@given(scale=SCALES, edges=EDGES, height=SIDES, width=SIDES, seed=st.integers(0, 999))
def test_the_projection_degrades_to_lr_and_projecting_twice_is_once(
    scale, edges, height, width, seed
):
    sr = rand(2, 3, height * scale, width * scale, seed=seed)
    lr = rand(2, 3, height, width, seed=seed + 1)
    projected = project(sr, lr, scale, edges)
    assert torch.allclose(degrade(projected, scale, edges), lr, atol=1e-8)
    assert torch.allclose(project(projected, lr, scale, edges), projected, atol=1e-8)


@given(scale=SCALES, side=st.integers(1, 10), seed=st.integers(0, 999))
def test_the_projection_is_the_nearest_such_picture(scale, side, seed):
    """The change is orthogonal to everything that degrades to nothing."""
    sr = rand(1, 3, side * scale, side * scale, seed=seed)
    lr = rand(1, 3, side, side, seed=seed + 1)
    noise = rand(1, 3, side * scale, side * scale, seed=seed + 2)
    invisible = project(noise, torch.zeros_like(lr), scale)
    change = project(sr, lr, scale) - sr
    assert abs((change * invisible).sum()) < 1e-8 * (1 + change.norm() * invisible.norm())


def test_a_faithful_picture_is_left_alone():
    hr = rand(1, 3, 40, 48)
    assert torch.allclose(project(hr, degrade(hr, 4), 4), hr, atol=1e-8)


def test_float32_is_enough():
    sr, lr = rand(1, 3, 800, 80, dtype=torch.float32), rand(1, 3, 200, 20, dtype=torch.float32)
    assert (degrade(project(sr, lr, 4), 4) - lr).abs().max() < 2e-5


@pytest.mark.parametrize("edges", Edges)
@given(scale=st.sampled_from([2, 3, 4, 8]), height=SIDES, width=SIDES, seed=st.integers(0, 999))
def test_8_bit_reduction_is_matlabs(edges, scale, height, width, seed):
    assume(height * width <= 100)
    rng = np.random.default_rng(seed)
    # Extremes, so that the clamp between the two passes is met.
    hr = rng.choice(np.array([0, 255, 128, 37], np.uint8), (height * scale, width * scale))
    ours = degrade_8bit(torch.from_numpy(hr)[None, None], scale, edges)
    assert ours.dtype == torch.uint8
    assert np.array_equal(ours[0, 0].numpy(), matlab_imresize_8bit(hr, scale, edges))


def test_8_bit_reduction_of_a_small_picture_is_what_it_was():
    hr = torch.tensor([[(37 * i * i + 91 * j + i * j) % 256 for j in range(12)] for i in range(8)])
    lr = degrade_8bit(hr.to(torch.uint8)[None, None], 4)[0, 0]
    assert lr.tolist() == [[110, 122, 128], [127, 135, 141]]


@pytest.mark.parametrize("name", [f"Set5/{i:03}" for i in range(1, 6)] + ["Set14/003"])
def test_8_bit_reduction_gives_the_benchmarks_own_files(name):
    folder, number = name.split("/")
    paths = [BENCH / folder / kind / f"{number}.png" for kind in ("HR", "LRx4")]
    if not all(path.exists() for path in paths):
        pytest.skip("the benchmark pictures do not lie beside the repository")
    hr, lr = (torch.from_numpy(np.array(Image.open(p).convert("RGB"))) for p in paths)
    height, width = (side * 4 for side in lr.shape[:2])
    ours = degrade_8bit(hr[:height, :width].permute(2, 0, 1)[None], 4)[0].permute(1, 2, 0)
    assert torch.equal(ours, lr)

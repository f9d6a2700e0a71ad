"""The estimates say how strong a fault is, by a bounded number of pixels."""

import math
from itertools import pairwise

import pytest
import torch
from PIL import Image
from pixels import compressed, noisy, photo, ramp, tensor

from vdsr_cli.inspection import estimate
from vdsr_cli.inspection.windows import SIDE, windows_of


@pytest.mark.parametrize("sigma", [2, 5, 10, 20])
@pytest.mark.parametrize("is_grey", [False, True])
def test_the_level_of_noise(sigma, is_grey):
    found = estimate(tensor(noisy(ramp(), sigma, is_grey=is_grey)))
    assert found.noise_level == pytest.approx(sigma, rel=0.15)


def test_noise_is_told_beside_black_and_white():
    """Clipped parts have no noise left, and do not hide that of the rest."""
    image = Image.new("RGB", (160, 160), "white")
    image.paste(noisy(ramp().crop((0, 0, 100, 160)), 8), (0, 0))
    assert estimate(tensor(image)).noise_level == pytest.approx(8, rel=0.15)


@pytest.mark.parametrize("corner", [(0, 0), (3, 5)])
def test_edges_of_blocks_rise_with_compression(corner):
    """On a grid that begins anywhere, as in a crop."""
    grids = []
    for quality in (90, 70, 50, 30, 15):
        decoded = compressed(photo(), quality).crop((*corner, 256, 256))
        grids.append(estimate(tensor(decoded)).grid)
    assert all(weaker < stronger for weaker, stronger in pairwise(grid[0] for grid in grids))
    assert all(first <= second for first, second in grids)


def test_zeros_are_on_the_grid_that_was_quantised():
    clean, coded = (estimate(tensor(image)) for image in (photo(), compressed(photo(), 60)))
    assert abs(clean.zeros[2]) < 0.1 < coded.zeros[2]


def test_a_resized_grid_has_another_period():
    small = compressed(photo(), 20)
    resized = small.resize((320, 320), Image.Resampling.BICUBIC)
    own, other = estimate(tensor(small)).periodicity
    own_resized, other_resized = estimate(tensor(resized)).periodicity
    assert own > other and other_resized > own_resized


def test_windows_are_few_and_in_phase():
    rows = torch.arange(1000.0).view(1, -1, 1).expand(3, -1, 777) / 255
    windows = windows_of(rows)
    assert windows.shape == (16, 3, SIDE, SIDE)
    tops = windows[:, 0, 0, 0].round().int()
    assert not (tops % 8).any() and tops.max() >= 1000 - SIDE - 8
    assert windows_of(rows[:, :40, :200]).shape == (2, 3, 40, SIDE)


def test_what_is_looked_at_does_not_grow_with_the_picture():
    """A picture that would fill the memory is one grey pixel here, repeated."""
    found = estimate(torch.full((3, 1, 1), 0.5).expand(3, 300_000, 300_000))
    assert found.flat == 1 and found.noise_level == 0


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 500), (33, 47), (129, 127)])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_every_number_of_any_picture_is_finite(height, width, level):
    found = estimate(torch.full((3, height, width), level))
    assert all(map(math.isfinite, found.features))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 400), (400, 31)])
def test_of_too_few_pixels_nothing_is_told(height, width):
    assert estimate(torch.zeros(3, height, width)) is None

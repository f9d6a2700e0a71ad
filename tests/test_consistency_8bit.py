"""The projection that minds clipping and rounding: what a written file can be faithful to."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsr_cli.config import Edges
from vdsr_cli.consistency import (
    StripDegradation,
    degrade,
    degrade_adjoint,
    project,
    project_rows,
    project_within,
    projection_tops,
    seen_rows,
)
from vdsr_cli.images import round_levels

sizes = st.integers(1, 40)


def round_cells(pixels, scale, *, full=255):
    return round_levels(pixels, full=full, cell=scale) / full


def project_strips(sr, lr, scale, **options):
    """:func:`project_within` of (3, H, W) in the strips that files are written in."""
    height = lr.shape[1]
    done = []
    for top, bottom in pairwise(projection_tops(height, scale)):
        seen = seen_rows(top, bottom, height)
        rows = sr[:, seen.start * scale : seen.stop * scale]
        done.append(project_rows(rows, lr, scale, top=top, bottom=bottom, **options))
    return torch.cat(done, dim=1)


def lr_psnr(sr, lr, scale, edges=Edges.repeat):
    mse = (degrade(sr.double(), scale, edges) - lr.double()).square().mean().item()
    return math.inf if mse == 0 else -10 * math.log10(mse)


def saturated(height, width, scale, seed=0):
    """An 8-bit LR picture whose HR original has flat black and white parts, and a noisy SR."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4 + 2, width // 4 + 2, generator=generator) * 2 - 0.5
    size = (height * scale, width * scale)
    hr = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear").clamp(0, 1)
    lr = (degrade(hr, scale).clamp(0, 1) * 255).round() / 255
    return lr, hr + 0.03 * torch.randn(hr.shape, generator=generator)


@settings(max_examples=20, deadline=None)
@given(height=sizes, width=sizes, scale=st.sampled_from([2, 3, 4]))
def test_adjoint_and_projection_hold_for_any_size(height, width, scale):
    generator = torch.Generator().manual_seed(height * 100 + width)
    x = torch.rand(1, 2, height * scale, width * scale, generator=generator, dtype=torch.float64)
    y = torch.rand(1, 2, height, width, generator=generator, dtype=torch.float64)
    left = (degrade(x, scale) * y).sum()
    assert torch.allclose(left, (x * degrade_adjoint(y, scale)).sum())
    once = project(x, y, scale)
    assert torch.allclose(degrade(once, scale), y, atol=1e-8)
    assert torch.allclose(project(once, y, scale), once, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(height=sizes, width=sizes, scale=st.sampled_from([2, 3, 4]))
def test_stays_within_the_bounds_for_any_size(height, width, scale):
    lr, sr = saturated(height, width, scale)
    inside = project_within(sr, lr, scale)
    assert inside.min() >= 0
    assert inside.max() <= 1
    assert lr_psnr(inside, lr, scale) >= lr_psnr(project(sr, lr, scale).clamp(0, 1), lr, scale)


def test_recovers_what_clipping_takes():
    lr, sr = saturated(48, 40, 4)
    clipped = lr_psnr(project(sr, lr, 4).clamp(0, 1), lr, 4)
    inside = lr_psnr(project_within(sr, lr, 4), lr, 4)
    assert clipped < 60
    assert inside > clipped + 15


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_is_the_nearest_such_picture(scale):
    """From the nearest one, sr lies behind: at an obtuse angle to all others that are faithful."""
    _, noisy = saturated(24, 24, scale)
    hr = noisy.clamp(0, 1).double()
    lr = degrade(hr, scale)
    generator = torch.Generator().manual_seed(7)
    sr = hr + 0.05 * torch.randn(hr.shape, generator=generator, dtype=torch.float64)
    nearest = project_within(sr, lr, scale)
    assert ((nearest == 0) | (nearest == 1)).double().mean() > 0.05
    back, across = sr - nearest, hr - nearest
    assert (back * across).sum() < 0.02 * back.norm() * across.norm()
    clipped = project(sr, lr, scale).clamp(0, 1)
    assert lr_psnr(nearest, lr, scale) > lr_psnr(clipped, lr, scale) + 15


def test_within_reach_it_is_idempotent():
    lr, _ = saturated(20, 20, 4)
    generator = torch.Generator().manual_seed(1)
    hr = torch.rand(1, 3, 80, 80, generator=generator)
    lr = degrade(hr, 4)
    assert torch.allclose(project_within(hr, lr, 4), hr, atol=1e-5)


def test_strips_and_columns_are_as_faithful_as_the_whole():
    lr, sr = saturated(230, 800, 4)
    dense = lr_psnr(project_within(sr, lr, 4), lr, 4)
    cut = project_strips(sr[0], lr[0], 4)
    assert cut.shape == sr[0].shape
    assert lr_psnr(cut, lr[0], 4) > dense - 1


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_mirrored_edges_are_met_as_nearly_as_repeated_ones(scale):
    lr, sr = saturated(90, 70, scale)
    mirror = Edges.mirror
    cut = project_strips(sr[0], lr[0], scale, edges=mirror)
    assert (
        lr_psnr(cut, lr[0], scale, mirror)
        > lr_psnr(project_strips(sr[0], lr[0], scale), lr[0], scale) - 1
    )
    assert lr_psnr(cut, lr[0], scale, mirror) > lr_psnr(cut, lr[0], scale)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_seams_lie_below_the_rounding(scale):
    """Parts that a block does not see have no share in it, where the iteration ends after the same
    steps."""
    _, hr = saturated(300, 500, scale, seed=1)
    hr = 0.2 + 0.6 * hr.clamp(0, 1)
    lr = degrade(hr, scale)
    sr = (hr + 0.02 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(8)))[0]
    whole = project(sr, lr[0], scale)
    cut = project_strips(sr, lr[0], scale, full=65535)
    assert (cut - whole).abs().max() < 0.1 / 255


def test_16_bits_are_met_as_nearly_as_8():
    _, hr = saturated(40, 40, 4)
    hr = 0.1 + 0.8 * hr.clamp(0, 1).double()
    lr = degrade(hr, 4)
    sr = hr + 0.03 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(9))
    for full in (255, 65535):
        inside = project_within(sr, lr, 4, full=full)
        assert lr_psnr(inside, lr, 4) > 20 * math.log10(full / 0.02) - 0.1


def test_far_from_clipped_pixels_it_is_the_projection():
    lr, sr = saturated(60, 60, 4)
    lr, sr = 0.3 + 0.4 * lr, 0.3 + 0.4 * sr
    sr[..., :8, :8] = 3.0
    projected = project(sr, lr, 4)
    clipped = project_strips(sr[0], lr[0], 4, full=65535)
    assert torch.allclose(clipped[..., 160:, 160:], projected[0, ..., 160:, 160:], atol=2e-5)
    assert lr_psnr(clipped, lr, 4) > 60 > lr_psnr(projected.clamp(0, 1), lr, 4)


def test_equal_bounds_hold_pixels():
    generator = torch.Generator().manual_seed(2)
    base = torch.rand(1, 3, 96, 96, generator=generator)
    lr = degrade(base, 4)
    free = torch.zeros(1, 1, 96, 96, dtype=torch.bool)
    free[..., 30:70, 21:66] = True
    other = torch.rand(1, 3, 96, 96, generator=generator)
    mixed = torch.where(free, project(other, lr, 4), base)
    low, high = torch.where(free, 0.0, base), torch.where(free, 1.0, base)
    inside = project_within(mixed, lr, 4, low=low, high=high)
    held = ~free.expand_as(base)
    assert torch.equal(inside[held], base[held])
    assert not torch.allclose(inside[~held], base[~held], atol=0.05)
    assert lr_psnr(inside, lr, 4) > lr_psnr(mixed.clamp(0, 1), lr, 4) + 10


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    scale=st.integers(1, 4),
    full=st.sampled_from([255, 65535]),
)
def test_rounding_keeps_the_sum_of_a_cell(height, width, scale, full):
    generator = torch.Generator().manual_seed(height * 10 + width)
    pixels = torch.rand(
        2, 3, height * scale, width * scale, generator=generator, dtype=torch.float64
    )
    pixels = 0.01 + 0.98 * pixels
    rounded = round_cells(pixels, scale, full=full)
    assert torch.allclose(rounded * full, (rounded * full).round(), atol=1e-6)
    cell_sum = torch.nn.functional.avg_pool2d(rounded - pixels, scale).abs() * scale**2 * full
    assert cell_sum.max() <= 0.5 + 1e-6
    assert ((rounded - pixels).abs() * full).max() <= 1 + 1e-6


def test_rounding_stays_within_the_levels_at_black_and_white():
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(1, 3, 16, 16, generator=generator).sub(0.5).mul(3).add(0.5).clamp(0, 1)
    rounded = round_cells(pixels, 4)
    assert rounded.min() == 0
    assert rounded.max() == 1
    assert torch.equal(round_cells(rounded, 4), rounded)
    # Half a level of error before a white pixel: the even level beyond is none.
    assert round_levels(torch.tensor([[254.5 / 255, 1], [1, 1]]), cell=2).max() == 255


def test_rounding_by_cells_beats_plain_rounding():
    generator = torch.Generator().manual_seed(4)
    lr = torch.rand(1, 3, 32, 32, generator=generator) * 0.2 + 0.4
    sr = project(torch.rand(1, 3, 128, 128, generator=generator) * 0.2 + 0.4, lr, 4)
    plain = lr_psnr((sr * 255).round() / 255, lr, 4)
    assert plain == pytest.approx(72.3, abs=1)
    assert lr_psnr(round_cells(sr, 4), lr, 4) > plain + 6


def test_rounding_strips_give_the_whole():
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(2, 3, 40, 24, generator=generator)
    parts = [round_cells(part, 4) for part in pixels.split([4, 12, 24], dim=2)]
    assert torch.equal(torch.cat(parts, dim=2), round_cells(pixels, 4))


@pytest.mark.parametrize("edges", Edges)
@pytest.mark.parametrize("strips", [(1, 2, 3, 1, 13), (20,), (4,) * 5])
def test_degraded_strips_give_the_degraded_whole(strips, edges):
    hr = torch.rand(3, 80, 24, generator=torch.Generator().manual_seed(6))
    degradation = StripDegradation(20, 4, edges)
    rows = [degradation.push(part) for part in hr.split([4 * s for s in strips], dim=1)]
    assert torch.allclose(torch.cat(rows, dim=1), degrade(hr, 4, edges), atol=1e-6)

"""Tiles cover a picture, blend to one and leave an identity as it is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdsr_cli.errors import UsageError
from vdsr_cli.sampling.tiling import plan_axis, plan_padding, taller_tile


@st.composite
def axes(draw):
    """(length, tile, overlap, cell) that plan_axis takes."""
    cell = draw(st.sampled_from([1, 2, 4, 8]))
    tile = cell * draw(st.integers(1, 20))
    overlap = cell * draw(st.integers(0, tile // cell // 2))
    length = cell * draw(st.integers(1, 100))
    return length, tile, overlap, cell


@given(axes())
def test_tiles_cover_the_axis_on_multiples_of_the_cell(axis):
    length, tile, overlap, cell = axis
    plan = plan_axis(length, tile=tile, overlap=overlap, cell=cell)
    assert plan.starts[0] == 0 and plan.starts[-1] + plan.tile == length
    assert all(start % cell == 0 for start in plan.starts)
    steps = [b - a for a, b in zip(plan.starts, plan.starts[1:], strict=False)]
    assert all(0 < step <= plan.tile - overlap for step in steps)
    assert all(step == plan.tile - overlap for step in steps[:-1])


@given(axes(), st.sampled_from([1, 2, 3, 4, 8]))
def test_windows_sum_to_one_and_are_no_less_than_nothing(axis, scale):
    length, tile, overlap, cell = axis
    plan = plan_axis(length, tile=tile, overlap=overlap, cell=cell)
    windows = plan.windows(scale)
    assert windows.shape == (len(plan.starts), plan.tile * scale)
    assert windows.dtype == torch.float32
    total = torch.zeros(length * scale, dtype=torch.float64)
    for start, window in zip(plan.starts, windows, strict=True):
        total[start * scale : start * scale + len(window)] += window
    assert (total - 1).abs().max() < 1e-6
    assert windows.min() >= 0 and windows.max() <= 1


@given(axes(), st.sampled_from([1, 2, 4]))
def test_an_inner_edge_has_no_weight(axis, scale):
    """A quarter of the overlap, where the zero padding of convolutions shows."""
    length, tile, overlap, cell = axis
    plan = plan_axis(length, tile=tile, overlap=overlap, cell=cell)
    windows = plan.windows(scale)
    dead = plan.overlap * scale // 4
    if dead:
        assert not windows[1:, :dead].any()
        assert not windows[:-1, -dead:].any()


@given(axes(), st.sampled_from([1, 2, 4]), st.randoms(use_true_random=False))
def test_an_identity_on_tiles_is_the_identity_in_any_order(axis, scale, random):
    length, tile, overlap, cell = axis
    plan = plan_axis(length, tile=tile, overlap=overlap, cell=cell)
    line = torch.rand(length * scale, generator=torch.Generator().manual_seed(length))
    tiles = list(zip(plan.starts, plan.windows(scale), strict=True))
    random.shuffle(tiles)
    blended = torch.zeros_like(line)
    for start, window in tiles:
        here = slice(start * scale, start * scale + len(window))
        blended[here] += window * line[here]
    assert torch.allclose(blended, line, atol=1e-6)


@pytest.mark.parametrize("tile", [0, 64, 128])
def test_one_tile_where_the_picture_is_no_larger(tile):
    plan = plan_axis(64, tile=tile, overlap=16, cell=4)
    assert (plan.tile, plan.overlap, plan.starts) == (64, 0, (0,))
    assert torch.equal(plan.windows(4), torch.ones(1, 256))


@pytest.mark.parametrize(
    ("tile", "overlap"), [(63, 16), (64, 15), (64, 2), (-64, 16), (64, -16), (64, 36), (64, 64)]
)
def test_tiles_that_do_not_fit_are_refused(tile, overlap):
    with pytest.raises(UsageError, match="overlap"):
        plan_axis(256, tile=tile, overlap=overlap, cell=4)


@given(tile=st.integers(1, 30), overlap=st.integers(0, 30))
def test_a_refused_overlap_comes_with_a_hint_that_works(tile, overlap):
    tile, overlap = 4 * tile, 4 * overlap
    try:
        plan_axis(10_000, tile=tile, overlap=overlap, cell=4)
    except UsageError as error:
        hinted = int(error.hint.rsplit(" ", 1)[1])
        plan_axis(10_000, tile=tile, overlap=hinted, cell=4)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    cell=st.sampled_from([1, 2, 4, 8, 16]),
)
def test_padding_mirrors_to_multiples_of_the_cell(height, width, cell):
    lr = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height))
    padding = plan_padding(height, width, cell=cell)
    padded = padding.apply(lr)
    assert padded.shape[1] % cell == 0 and padded.shape[2] % cell == 0
    assert padded.shape[1] - height < cell and padded.shape[2] - width < cell
    assert torch.equal(padded[:, :height, :width], lr)
    for i in range(height, padded.shape[1]):
        source = min(i % (2 * height), 2 * height - 1 - i % (2 * height))
        assert torch.equal(padded[:, i], padded[:, source])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (5, 1), (2, 2)])
def test_the_smallest_pictures_can_be_padded(height, width):
    lr = torch.arange(3.0 * height * width).view(3, height, width)
    padded = plan_padding(height, width, cell=16).apply(lr)
    assert padded.shape == (3, 16, 16)
    assert set(padded.unique().tolist()) == set(lr.unique().tolist())


def test_the_mirror_repeats_the_edge():
    lr = torch.tensor([[[10.0, 20.0, 30.0]]])
    padded = plan_padding(1, 3, cell=8).apply(lr)
    assert padded[0, 0].tolist() == [10, 20, 30, 30, 20, 10, 10, 20]
    with_margin = plan_padding(1, 3, cell=4, margin=4).apply(lr)
    assert with_margin[0, 0].tolist() == [30, 30, 20, 10, 10, 20, 30, 30, 20, 10, 10, 20]


@given(
    length=st.integers(1, 300).map(lambda cells: 4 * cells),
    tile=st.sampled_from([16, 32, 64]),
    together=st.integers(1, 9),
)
def test_taller_tiles_cover_no_more_than_asked_for(length, tile, together):
    overlap = tile // 4
    longest = tile + (together - 1) * (tile - overlap)
    taller = taller_tile(length, longest=longest, overlap=overlap, cell=4)
    plan = plan_axis(length, tile=taller, overlap=overlap, cell=4)
    assert plan.tile <= longest and (taller or length <= longest)
    separate = plan_axis(length, tile=tile, overlap=overlap, cell=4)
    assert len(plan.starts) * plan.tile <= len(separate.starts) * separate.tile
    assert len(plan.starts) >= len(separate.starts) / together

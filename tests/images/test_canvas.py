"""The canvas: rows in any order, rounded once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import filled, ours, random_levels, read

from vdsr_cli.images import Canvas, Metadata


def test_rows_in_any_order_give_the_same_picture():
    picture = read(ours(random_levels(4, np.uint16), "png"))
    assert picture.alpha is not None
    canvas = Canvas(11, 17, like=picture.metadata, has_alpha=True)
    for top, bottom in [(7, 11), (0, 3), (3, 7)]:
        canvas.put_rows(top, picture.rgb[0, :, top:bottom], picture.alpha[0, :, top:bottom])
    np.testing.assert_array_equal(canvas.levels(), filled(picture).levels())


def test_values_are_clamped_and_rounded_half_to_even_once():
    values = torch.tensor([-3.0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 7.0], dtype=torch.float64)
    canvas = Canvas(1, 5, like=Metadata(is_grey=True), has_alpha=False)
    canvas.put_rows(0, values.expand(3, 1, 5))
    assert canvas.levels().flatten().tolist() == [0, 0, 2, 2, 255]


def test_grey_is_the_mean_of_the_channels():
    canvas = Canvas(1, 1, like=Metadata(is_grey=True, bit_depth=16), has_alpha=False)
    canvas.put_rows(0, torch.tensor([0.1, 0.2, 0.6]).reshape(3, 1, 1))
    assert canvas.levels().tolist() == [[[round(0.3 * 65535)]]]


def test_the_canvas_holds_the_integers_alone():
    assert Canvas(5, 7, like=Metadata(bit_depth=16), has_alpha=True)._levels.nbytes == 5 * 7 * 8
    assert Canvas(5, 7, like=Metadata(is_grey=True), has_alpha=False)._levels.nbytes == 5 * 7


def test_canvas_refuses_what_does_not_fit():
    canvas = Canvas(4, 3, like=Metadata(), has_alpha=False)
    rows = torch.zeros(3, 2, 3)
    for top, rgb, alpha in [
        (3, rows, None),
        (-2, rows, None),
        (0, torch.zeros(3, 2, 4), None),
        (0, torch.zeros(1, 2, 3), None),
        (0, torch.zeros(3, 0, 3), None),
        (0, rows, torch.zeros(1, 2, 3)),
        (0, rows * float("nan"), None),
    ]:
        with pytest.raises(ValueError, match=r"fit|alpha|finite"):
            canvas.put_rows(top, rgb, alpha)
    canvas.put_rows(0, rows)
    with pytest.raises(ValueError, match="2 rows of the canvas were never put"):
        canvas.levels()
    with pytest.raises(ValueError, match="alpha"):
        Canvas(2, 3, like=Metadata(), has_alpha=True).put_rows(0, rows)


def test_previews_are_8_bit_rgb_on_white():
    canvas = Canvas(1, 2, like=Metadata(bit_depth=16, is_grey=True), has_alpha=True)
    canvas.put_rows(0, torch.zeros(3, 1, 2), torch.tensor([[[0.0, 1.0]]]))
    assert canvas.rgb8().tolist() == [[[255] * 3, [0] * 3]]


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(0, 99),
)
def test_round_trip_property(height, width, channels, dtype, seed):
    levels = random_levels(channels, dtype, (height, width), seed)
    picture = read(ours(levels, "png"))
    result = filled(picture).levels()
    if picture.alpha is None:
        levels = levels[..., : {1: 1, 2: 1, 3: 3, 4: 3}[channels]]
    np.testing.assert_array_equal(result, levels)

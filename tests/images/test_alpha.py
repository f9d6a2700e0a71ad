"""Alpha: premultiplied on the way in, divided out on the way out."""

import numpy as np
import torch
import torch.nn.functional as F
from picture_files import filled, ours, random_levels, read

from vdsr_cli.images import Canvas, Metadata
from vdsr_cli.images.encode import flattened, to_8_bits


def test_resizing_shows_no_hidden_colour():
    """A red disc on transparent green stays red to its rim."""
    across = np.arange(32) - 15.5
    is_disc = np.hypot(across[:, None], across[None]) < 10
    levels = np.where(is_disc[..., None], (255, 0, 0, 255), (0, 255, 0, 0)).astype(np.uint8)
    picture = read(ours(levels, "png"))
    assert picture.alpha is not None

    def enlarge(plane):
        return F.interpolate(plane, scale_factor=4, mode="bicubic", antialias=True)[0]

    canvas = Canvas(128, 128, like=picture.metadata, has_alpha=True)
    canvas.put_rows(0, enlarge(picture.rgb), enlarge(picture.alpha))
    result = canvas.levels()
    assert result[..., 1].max() == 0
    assert result[..., 2].max() == 0
    visible = result[result[..., 3] > 8]
    assert visible[:, 0].min() > 240


def test_nothing_visible_is_neutral_black():
    canvas = Canvas(1, 2, like=Metadata(), has_alpha=True)
    canvas.put_rows(0, torch.full((3, 1, 2), 1e-3), torch.tensor([[[0.0, 0.001]]]))
    assert canvas.levels().tolist() == [[[0, 0, 0, 0], [0, 0, 0, 0]]]


def test_opaque_alpha_is_left_out():
    levels = random_levels(4)
    levels[..., 3] = 255
    picture = read(ours(levels, "png"))
    assert picture.alpha is None
    np.testing.assert_array_equal(filled(picture).levels(), levels[..., :3])


def test_flattening_is_exact():
    levels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 255, 128]]], np.uint8)
    expected = [[[10, 20, 30], [255, 255, 255], [127, 177, 255]]]
    assert flattened(levels).tolist() == expected
    wide = levels.astype(np.uint16) * 257
    assert to_8_bits(flattened(wide)).tolist() == expected

"""Colours of video: exact in matrix and range."""

import numpy as np
import pytest
import torch

from vdsr_cli.images.yuv import YuvCoding


def coding(matrix=1, is_full=False, bits=8, down=1, across=1) -> YuvCoding:
    return YuvCoding(matrix=matrix, is_full=is_full, bits=bits, down=down, across=across)


@pytest.mark.parametrize(
    ("matrix", "is_full", "bits", "rgb", "levels"),
    [
        (1, False, 8, (0, 0, 0), (16, 128, 128)),
        (1, False, 8, (1, 1, 1), (235, 128, 128)),
        (1, False, 8, (1, 0, 0), (63, 102, 240)),
        (1, False, 8, (0, 1, 0), (173, 42, 26)),
        (1, False, 8, (0, 0, 1), (32, 240, 118)),
        (6, False, 8, (1, 0, 0), (81, 90, 240)),
        (6, False, 8, (0, 1, 0), (145, 54, 34)),
        (5, False, 8, (0, 0, 1), (41, 240, 110)),
        (6, True, 8, (1, 1, 1), (255, 128, 128)),
        (6, True, 8, (0, 1, 0), (150, 44, 21)),
        (1, False, 10, (1, 1, 1), (940, 512, 512)),
        (1, False, 10, (1, 0, 0), (250, 409, 960)),
        (9, False, 10, (0, 1, 0), (658, 189, 100)),
    ],
)
def test_levels_of_flat_colours(matrix, is_full, bits, rgb, levels):
    """The colour bars of BT.709, BT.601 and BT.2020; of JPEG where all levels are used."""
    way = coding(matrix, is_full, bits, down=2, across=2)
    planes = way.planes_of(torch.tensor(rgb).float()[:, None, None].expand(3, 4, 6))
    assert [p.shape for p in planes] == [(4, 6), (2, 3), (2, 3)]
    assert [np.unique(p).tolist() for p in planes] == [[level] for level in levels]
    back = way.rgb_of(planes)
    assert (back - torch.tensor(rgb)[:, None, None]).abs().max() < 3 / (1 << bits)


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_back_and_forth_is_to_a_level(matrix, is_full, bits):
    rgb = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    way = coding(matrix, is_full, bits)
    assert (way.rgb_of(way.planes_of(rgb)) - rgb).abs().max() < 2 / (1 << bits)


@pytest.mark.parametrize(("down", "across"), [(1, 2), (2, 2)])
def test_chroma_lies_where_it_is_said_to(down, across):
    """A ramp comes back, but at its ends, beyond which there is no chroma."""
    right = torch.linspace(0.3, 0.7, 16).expand(12, 16)
    below = torch.linspace(0.3, 0.7, 12)[:, None].expand(12, 16)
    rgb = torch.stack([right, 1 - right, below])
    way = coding(bits=12, down=down, across=across)
    error = (way.rgb_of(way.planes_of(rgb)) - rgb).abs()
    assert error[:, 2:-2, 2:-2].max() < 1e-3


def test_grey_and_odd_sides():
    grey = coding().rgb_of([np.full((3, 5), 126, np.uint8)])
    torch.testing.assert_close(grey, torch.full((3, 3, 5), 110 / 219))
    planes = [np.full(s, 128, np.uint8) for s in ((3, 5), (2, 3), (2, 3))]
    assert coding(down=2, across=2).rgb_of(planes).shape == (3, 3, 5)

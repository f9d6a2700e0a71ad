"""The part of a picture that is looked at: a bounded number of windows, spread over all of it."""

from typing import Final

import torch
from torch import Tensor

SIDE: Final = 128
"""Side of a window, in pixels; a smaller picture is a window as it is."""
_MOST_A_SIDE: Final = 4
_CELL: Final = 8


def windows_of(rgb: Tensor) -> Tensor:
    """(3, h, w) in [0, 1] -> (n, 3, ``SIDE`` or h, ``SIDE`` or w) in grey levels, n at most 16.

    Their corners lie on multiples of 8, so that what has a period of 8 pixels has the same phase
    in all of them.
    """
    rows, columns = (_starts(side) for side in rgb.shape[1:])
    cut = [rgb[:, top : top + SIDE, left : left + SIDE] for top in rows for left in columns]
    return torch.stack(cut).float() * 255


def _starts(side: int) -> list[int]:
    count = min(_MOST_A_SIDE, -(-side // SIDE))
    last = max(side - SIDE, 0)
    return [last * index // max(count - 1, 1) // _CELL * _CELL for index in range(count)]

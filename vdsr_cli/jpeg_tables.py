"""JPEG (ITU T.81): its transform, its quantisation tables (annex K), and the quality of a table."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

LUMA: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA: Final = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)


def luma_table(quality: int) -> tuple[int, ...]:
    """The 64 steps, row by row, that the IJG's library takes at a quality of 1 to 100."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(min(max((step * percent + 50) // 100, 1), 255) for row in LUMA for step in row)


def quality_of(table: Sequence[int]) -> int:
    """The quality, 1 to 100, of 64 luma steps given row by row: exact for a table of the IJG's
    library, and of any other the lowest whose table is as fine, by the mean logarithm."""
    wanted = _fineness(table)
    at_least = bisect_left(
        range(1, 100), wanted, key=lambda quality: _fineness(luma_table(quality))
    )
    return at_least + 1


def _fineness(table: Sequence[int]) -> float:
    return -math.fsum(math.log(max(step, 1)) for step in table)


def dct_matrix() -> Tensor:
    """The orthonormal DCT-II of 8 points, (frequency, position)."""
    frequency, position = torch.arange(8.0).view(-1, 1), torch.arange(8.0)
    matrix = torch.cos(math.pi * (2 * position + 1) * frequency / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix

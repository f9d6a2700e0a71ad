"""Colours of video: luma and chroma of some matrix, range and subsampling <-> RGB (ITU-T H.273).

planes of levels ─► Y in [0, 1], Cb and Cr in [-1/2, 1/2], of one size ─► rgb (3, H, W)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

UNSPECIFIED: Final = 2
BT709, BT601 = 1, 6
_WEIGHTS: Final = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Kr and Kb of the matrices (H.273, table 4), by their codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YuvCoding:
    """How levels stand for colours.

    Attributes:
        matrix: its code.
        is_full: whether luma uses all levels, not 16 to 235 of 255.
        bits: a sample.
        down, across: pixels, 1 or 2, of each axis that share a sample of chroma. Across it lies
            where the first of them does, down between them, as in MPEG-2, H.264 and later.
    """

    matrix: int
    is_full: bool
    bits: int
    down: int
    across: int

    def rgb_of(self, planes: Sequence[NDArray[Any]]) -> Tensor:
        """Levels of luma (H, W), and of chroma unless it is grey -> (3, H, W) in [0, 1]; colours
        beyond are clipped."""
        (black, luma), chroma = self._luma, self._chroma
        y = (_tensor(planes[0]) - black) / luma
        if len(planes) < 3:
            return y.clamp(0, 1).expand(3, -1, -1)
        middle = 1 << self.bits - 1
        cb, cr = ((self._raised(_tensor(p), y.shape) - middle) / chroma for p in planes[1:3])
        red, blue = _WEIGHTS[self.matrix]
        r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
        g = (y - red * r - blue * b) / (1 - red - blue)
        return torch.stack([r, g, b]).clamp(0, 1)

    def planes_of(self, rgb: Tensor) -> list[NDArray[Any]]:
        """(3, H, W) in [0, 1], sides multiples of ``down`` and ``across`` -> levels of luma and
        chroma."""
        (black, luma), chroma = self._luma, self._chroma
        r, g, b = rgb.clamp(0, 1)
        red, blue = _WEIGHTS[self.matrix]
        y = red * r + (1 - red - blue) * g + blue * b
        middle = 1 << self.bits - 1
        both = [(b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))]
        planes = [y * luma + black, *(self._reduced(c) * chroma + middle for c in both)]
        dtype = np.uint8 if self.bits == 8 else np.uint16
        top = (1 << self.bits) - 1
        return [plane.round().clamp(0, top).cpu().numpy().astype(dtype) for plane in planes]

    @property
    def _luma(self) -> tuple[float, float]:
        """The level of black, and how many white is above it."""
        step = 1 << self.bits - 8
        return (0, (1 << self.bits) - 1) if self.is_full else (16 * step, 219 * step)

    @property
    def _chroma(self) -> float:
        """The levels that chroma spans."""
        return (1 << self.bits) - 1 if self.is_full else 224 << self.bits - 8

    def _raised(self, chroma: Tensor, size: Sequence[int]) -> Tensor:
        """Chroma at every pixel, bilinear."""
        if self.down == 2:
            rows = (2 * chroma.shape[0], chroma.shape[1])
            chroma = F.interpolate(chroma[None, None], size=rows, mode="bilinear")[0, 0]
        if self.across == 2:
            following = torch.cat([chroma[:, 1:], chroma[:, -1:]], dim=1)
            chroma = torch.stack([chroma, (chroma + following) / 2], dim=2).flatten(1)
        return chroma[: size[0], : size[1]]

    def _reduced(self, chroma: Tensor) -> Tensor:
        """Chroma where it is stored: (1, 2, 1) / 4 across, the mean of two down."""
        if self.across == 2:
            padded = torch.cat([chroma[:, :1], chroma], dim=1)
            chroma = (padded[:, :-1:2] + 2 * padded[:, 1::2] + chroma[:, 1::2]) / 4
        return (chroma[::2] + chroma[1::2]) / 2 if self.down == 2 else chroma


def is_known(matrix: int) -> bool:
    """Whether colours of a matrix can be converted."""
    return matrix in _WEIGHTS


def _tensor(levels: NDArray[Any]) -> Tensor:
    return torch.from_numpy(levels.astype(np.float32))

"""Size and samples of an output picture: from floating point to its integers, rounded once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsr_cli.images.levels import round_levels
from vdsr_cli.images.picture import Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """An output of ``height`` x ``width`` pixels in the depth and channels of its source.

    Its integers are uint8, or uint16 for a source of more than 8 bits; one channel for a grey
    source; an alpha channel when ``has_alpha``.

    Attributes:
        has_alpha: whether all rows bring alpha.
        cell: side of the cells in which rounding errors cancel, 1 for plain rounding; see
            :func:`~vdsr_cli.images.levels.round_levels`.
    """

    height: int
    width: int
    like: Metadata
    has_alpha: bool = False
    cell: int = 1

    def __post_init__(self) -> None:
        if self.height % self.cell or self.width % self.cell:
            raise ValueError(f"{self.height}x{self.width} is not made of {self.cell}x{self.cell}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the levels: (H, W, c), c = 1 grey, 2 with alpha, 3 RGB, 4 with alpha."""
        return self.height, self.width, (1 if self.like.is_grey else 3) + self.has_alpha

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the levels."""
        return np.dtype(np.uint16 if self.like.bit_depth == 16 else np.uint8)

    @property
    def full(self) -> int:
        """The level that stands for 1."""
        return int(np.iinfo(self.dtype).max)

    def whole_cells(self, row: int) -> int:
        """The first row of the cell that has a row."""
        return row - row % self.cell

    def levels(self, top: int, rgb: Tensor, alpha: Tensor | None = None) -> NDArray[Any]:
        """The integers of some rows: (rows, W, c).

        Values are clamped to [0, 1], divided by alpha (black where alpha is nothing), averaged
        over the channels for a grey picture and rounded once, in whole cells.

        Args:
            rgb: (3, rows, W) floating point in any range, premultiplied by alpha.
            alpha: (1, rows, W), given exactly when the frame has alpha.

        Raises:
            ValueError: shapes that do not fit, or values that are not finite.
        """
        rows = rgb.shape[1]
        is_inside = 0 <= top < top + rows <= self.height
        if rgb.shape != (3, rows, self.width) or not is_inside:
            raise ValueError(f"rows {top} of shape {tuple(rgb.shape)} do not fit the picture")
        if (alpha is not None) != self.has_alpha:
            raise ValueError("alpha must be given exactly when the picture has it")
        if alpha is not None and alpha.shape != (1, rows, self.width):
            raise ValueError(f"alpha must be (1, {rows}, {self.width})")
        return self._rounded(rgb, alpha)

    def _rounded(self, rgb: Tensor, alpha: Tensor | None) -> NDArray[Any]:
        full = self.full
        colours = rgb.float().mean(dim=0, keepdim=True) if self.like.is_grey else rgb.float()
        if alpha is not None:
            # By alpha as it came: where it overshoots its range, so do the colours.
            cover = alpha.to(colours)
            is_visible = cover * full >= 0.5
            colours = torch.where(is_visible, colours / cover.clamp_min(0.5 / full), 0)
            colours = torch.cat([colours.clamp(0, 1), cover.clamp(0, 1)])
        # A sum is not finite when a part is not, and takes a tenth of the time of asking each.
        if not bool(colours.sum().isfinite()):
            raise ValueError("the rows hold values that are not finite")
        levels = round_levels(colours, full=full, cell=self.cell)
        if levels.device.type == "cpu":
            return np.stack(list(levels.numpy().astype(self.dtype)), axis=-1)
        # Samples cross over side by side, and in as few bytes as torch has whole numbers for.
        whole = torch.uint8 if full == 255 else torch.int32
        crossed = levels.to(whole).permute(1, 2, 0).contiguous().cpu()
        return crossed.numpy().astype(self.dtype, copy=False)

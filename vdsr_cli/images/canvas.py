"""The output picture: integers, filled row by row in any order."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsr_cli.images.encode import encode_levels, flattened, save_levels, to_8_bits
from vdsr_cli.images.picture import Metadata


class Canvas:
    """A picture of ``height`` x ``width`` pixels in the depth and channels of its source.

    It holds the integers alone: uint8, or uint16 for a source of more than 8 bits; one channel
    for a grey source; an alpha channel when ``has_alpha``.

    Args:
        height: rows.
        width: columns.
        like: the source's metadata: depth and greyness now, the rest when saved.
        has_alpha: whether every ``put_rows`` brings alpha.
    """

    def __init__(self, height: int, width: int, *, like: Metadata, has_alpha: bool) -> None:
        channels = (1 if like.is_grey else 3) + has_alpha
        dtype = np.uint16 if like.bit_depth == 16 else np.uint8
        self.metadata = like
        self.has_alpha = has_alpha
        self._levels: NDArray[Any] = np.zeros((height, width, channels), dtype)
        self._is_put = np.zeros(height, bool)

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return int(self._levels.shape[0])

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return int(self._levels.shape[1])

    def put_rows(self, top: int, rgb: Tensor, alpha: Tensor | None = None) -> None:
        """Set the rows from ``top`` on.

        Values are clamped to [0, 1], divided by alpha (black where alpha is nothing), averaged
        over the channels for a grey picture and rounded once, halves to even.

        Args:
            top: the first row.
            rgb: (3, rows, W) floating point in any range, premultiplied by alpha.
            alpha: (1, rows, W), given exactly when the canvas has alpha.

        Raises:
            ValueError: shapes that do not fit, or values that are not finite.
        """
        rows = self._levels[top : top + rgb.shape[1]] if top >= 0 else self._levels[:0]
        if rgb.shape != (3, rows.shape[0], self.width) or rgb.shape[1] == 0:
            raise ValueError(f"rows {top} of shape {tuple(rgb.shape)} do not fit the canvas")
        if (alpha is not None) != self.has_alpha:
            raise ValueError("alpha must be given exactly when the canvas has it")
        if alpha is not None and alpha.shape != (1, *rgb.shape[1:]):
            raise ValueError(f"alpha must be (1, {rgb.shape[1]}, {self.width})")
        rows[:] = self._to_levels(rgb, alpha)
        self._is_put[top : top + rgb.shape[1]] = True

    def _to_levels(self, rgb: Tensor, alpha: Tensor | None) -> NDArray[Any]:
        """(3, rows, W) and (1, rows, W) -> (rows, W, c) in the canvas's integers."""
        full = int(np.iinfo(self._levels.dtype).max)
        colours = rgb.float().mean(dim=0, keepdim=True) if self.metadata.is_grey else rgb.float()
        if alpha is not None:
            # By alpha as it came: where it overshoots its range, so do the colours.
            cover = alpha.to(colours)
            is_visible = cover * full >= 0.5
            colours = torch.where(is_visible, colours / cover.clamp_min(0.5 / full), 0)
            colours = torch.cat([colours.clamp(0, 1), cover.clamp(0, 1)])
        # A sum is not finite when a part is not, and takes a tenth of the time of asking each.
        if not bool(colours.sum().isfinite()):
            raise ValueError("the rows hold values that are not finite")
        levels = colours.clamp(0, 1).mul_(full).round_().cpu().numpy()
        return np.stack(list(levels.astype(self._levels.dtype)), axis=-1)

    def levels(self) -> NDArray[Any]:
        """The integers, (H, W, c), c = 1 grey, 2 with alpha, 3 RGB, 4 with alpha: a view.

        Raises:
            ValueError: some rows were never put.
        """
        missing = int(np.count_nonzero(~self._is_put))
        if missing:
            raise ValueError(f"{missing} rows of the canvas were never put")
        return self._levels

    def rgb8(self) -> NDArray[np.uint8]:
        """The picture as (H, W, 3) uint8, on white where it is transparent: for previews."""
        opaque = flattened(to_8_bits(self.levels()))
        return np.ascontiguousarray(np.broadcast_to(opaque, (*opaque.shape[:2], 3)))

    def save(self, path: Path, *, format: str | None = None, quality: int = 95) -> tuple[str, ...]:
        """Write the picture with its metadata, whole or not at all; see :func:`save_levels`."""
        return save_levels(path, self.levels(), like=self.metadata, format=format, quality=quality)

    def save_to(
        self, stream: BinaryIO, format: str = "png", *, quality: int = 95
    ) -> tuple[str, ...]:
        """Write the picture to a stream such as standard output; see :func:`encode_levels`."""
        return encode_levels(
            stream, self.levels(), format=format, like=self.metadata, quality=quality
        )

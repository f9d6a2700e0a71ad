"""The output picture: integers, filled row by row in any order."""

from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsr_cli.images.encode import encode_levels, flattened, save_levels, to_8_bits
from vdsr_cli.images.output_spec import Frame
from vdsr_cli.images.picture import Metadata, Picture

_ROWS: Final = 256


class Canvas:
    """A picture of ``height`` x ``width`` pixels in the depth and channels of its source.

    It holds the integers alone; see :class:`~vdsr_cli.images.output_spec.Frame`.

    Args:
        like: the source's metadata: depth and greyness now, the rest when saved.
        has_alpha: whether every ``put_rows`` brings alpha.
        cell: side of the cells in which rounding errors cancel; ``put_rows`` takes whole ones.
    """

    def __init__(
        self, height: int, width: int, *, like: Metadata, has_alpha: bool, cell: int = 1
    ) -> None:
        self.frame = Frame(height=height, width=width, like=like, has_alpha=has_alpha, cell=cell)
        self._levels: NDArray[Any] = np.zeros(self.frame.shape, self.frame.dtype)
        self._is_put = np.zeros(height, bool)

    @classmethod
    def of(cls, picture: Picture) -> "Canvas":
        """A picture as its file would hold it."""
        has_alpha = picture.alpha is not None
        canvas = cls(picture.height, picture.width, like=picture.metadata, has_alpha=has_alpha)
        for top in range(0, picture.height, _ROWS):
            rows = slice(top, top + _ROWS)
            alpha = None if picture.alpha is None else picture.alpha[0, :, rows]
            canvas.put_rows(top, picture.rgb[0, :, rows], alpha)
        return canvas

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

        Args:
            top, rgb, alpha: as :meth:`~vdsr_cli.images.output_spec.Frame.levels` takes them.

        Raises:
            ValueError: shapes that do not fit, or values that are not finite.
        """
        levels = self.frame.levels(top, rgb, alpha)
        self._levels[top : top + len(levels)] = levels
        self._is_put[top : top + len(levels)] = True

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

    def planes8(self) -> Tensor:
        """A copy of :meth:`rgb8` as (3, H, W)."""
        return torch.from_numpy(self.rgb8().copy()).permute(2, 0, 1)

    def save(
        self,
        path: Path,
        *,
        format: str | None = None,
        quality: int = 95,
        replace: bool = True,
    ) -> tuple[str, ...]:
        """Write the picture with its metadata, whole or not at all; see :func:`save_levels`."""
        return save_levels(
            path,
            self.levels(),
            like=self.frame.like,
            format=format,
            quality=quality,
            replace=replace,
        )

    def png(self) -> bytes:
        """The file as PNG."""
        stream = BytesIO()
        self.save_to(stream)
        return stream.getvalue()

    def save_to(
        self, stream: BinaryIO, format: str = "png", *, quality: int = 95
    ) -> tuple[str, ...]:
        """Write the picture to a stream such as standard output; see :func:`encode_levels`."""
        return encode_levels(
            stream, self.levels(), format=format, like=self.frame.like, quality=quality
        )

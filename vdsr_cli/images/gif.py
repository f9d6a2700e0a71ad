"""GIF of one palette for all frames (GIF89a): the same colour has the same index in each of them,
and the same pattern of two where none is near enough; so what stays still does not flicker.

levels -> the two palette colours about each pixel -> one of them, by a threshold of its place
"""

import struct
from typing import Any, BinaryIO, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.GifImagePlugin import getdata

from vdsr_cli.images.frames import Turn
from vdsr_cli.images.picture import Metadata

_COLOURS: Final = 255
_CLEAR: Final = 255
"""The index of what is transparent, or stays as it is."""
_CUBE_BITS: Final = 6
_KEEP, _CLEAR_AFTER = 1, 2  # methods of disposal
_HALF: Final = 128
_FARTHEST: Final = 48
"""Levels between two colours that are still taken for one where they alternate."""


def _thresholds(order: int) -> NDArray[np.float32]:
    """Bayer's matrix of 2^order rows, in (0, 1)."""
    matrix = np.zeros((1, 1))
    for _ in range(order):
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return ((matrix + 0.5) / matrix.size).astype(np.float32)


_BAYER: Final = _thresholds(3)
LONGEST: Final = 0xFFFF
"""The longest that a frame can be shown, in hundredths of a second."""


def palette_of(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 to 255 colours for pixels (n, 3): themselves, or by median cut and k-means."""
    distinct = np.unique(colours, axis=0) if len(colours) else np.zeros((1, 3), np.uint8)
    if len(distinct) <= _COLOURS:
        return distinct
    image = Image.fromarray(np.ascontiguousarray(colours[None]))
    cut = image.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=1)
    return np.unique(np.array(cut.getpalette("RGB"), np.uint8).reshape(-1, 3), axis=0)


class GifCoder:
    """Encodes a picture, or the frames of an animation; a
    :class:`~vdsr_cli.images.frames.SeriesCoder`.

    Args:
        shape: (H, W, c); c = 3 RGB, 4 with alpha, of which half and more is opaque.
        palette: (n, 3) colours, n 1 to 255.
        metadata: its comment and XMP are written.
        plays: how often it is played, 0 for ever.
        durations: of the frames, in hundredths of a second.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        palette: NDArray[np.uint8],
        metadata: Metadata,
        *,
        plays: int = 1,
        durations: tuple[int, ...] = (0,),
    ) -> None:
        self._shape, self._plays, self._durations = shape, plays, durations
        self._metadata = metadata
        self._palette = np.zeros((256, 3), np.uint8)
        self._palette[: len(palette)] = palette
        self._nearest = _nearest_of(palette)

    def head(self, size: int = 0) -> bytes:
        """Everything before the first frame."""
        height, width, _ = self._shape
        screen = struct.pack("<HHBBB", width, height, 0xF7, 0, 0)  # 256 colours of 8 bits
        head = b"GIF89a" + screen + self._palette.tobytes()
        if self._plays != 1:
            # Browsers play it once more than this says.
            again = struct.pack("<BH", 1, min(max(0, self._plays - 1), 0xFFFF))
            head += b"!\xff\x0bNETSCAPE2.0" + _pieces(again)
        if self._metadata.comment is not None:
            head += b"!\xfe" + _pieces(self._metadata.comment)
        if self._metadata.xmp is not None:
            # Whatever byte of the packet is taken for a length, the next lead to the end.
            trailer = bytes([1, *range(255, -1, -1), 0])
            head += b"!\xff\x0bXMP DataXMP" + self._metadata.xmp + trailer
        return head

    def encoded(self, turn: Turn) -> bytes:
        """One frame: what is not as before; where there is alpha the whole, on nothing."""
        levels, has_alpha = turn.levels, turn.levels.shape[2] == 4
        rows, columns = (slice(None), slice(None)) if has_alpha else turn.changed()
        indices = self._indices(levels[..., :3])[rows, columns]
        if has_alpha:
            is_clear = levels[..., 3] < _HALF
        elif turn.before is None:
            is_clear = np.zeros(indices.shape, bool)
        else:
            is_clear = (levels == turn.before).all(axis=2)[rows, columns]
        image = Image.fromarray(np.where(is_clear, _CLEAR, indices).astype(np.uint8), "P")
        image.putpalette(self._palette.tobytes())
        parts = getdata(
            image,
            (columns.start or 0, rows.start or 0),
            duration=10 * min(self._durations[turn.index], LONGEST),
            transparency=_CLEAR,
            disposal=_CLEAR_AFTER if has_alpha else _KEEP,
        )
        return b"".join(parts)

    def tail(self) -> bytes:
        """The end of the file."""
        return b";"

    def _indices(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The palette's colours for pixels (h, w, 3): of the nearest and the one about as far on
        the other side, unless that is another colour altogether, the one whose share is above the
        threshold of the place."""
        near = self._looked_up(rgb)
        colour = self._palette[near].astype(np.float32)
        beyond = self._looked_up((2 * rgb.astype(np.float32) - colour).clip(0, 255))
        way = self._palette[beyond] - colour
        length = (way**2).sum(axis=2)
        share = ((rgb - colour) * way).sum(axis=2) / np.maximum(length, 1)
        share[length > _FARTHEST**2] = 0
        height, width = rgb.shape[:2]
        tiles = -(-height // len(_BAYER)), -(-width // len(_BAYER))
        return np.where(share > np.tile(_BAYER, tiles)[:height, :width], beyond, near)

    def _looked_up(self, rgb: NDArray[Any]) -> NDArray[np.uint8]:
        red, green, blue = np.moveaxis(rgb.astype(np.uint8) >> 8 - _CUBE_BITS, 2, 0)
        found: NDArray[np.uint8] = self._nearest[red, green, blue]
        return found


def write_gif(
    stream: BinaryIO, levels: NDArray[np.uint8], metadata: Metadata, quality: int
) -> None:
    """Writes one picture, levels (H, W, 3 or 4), in the palette that suits it best."""
    opaque = levels[..., :3] if levels.shape[2] == 3 else levels[levels[..., 3] >= _HALF, :3]
    coder = GifCoder(levels.shape, palette_of(opaque.reshape(-1, 3)), metadata)
    turn = Turn(index=0, levels=levels, metadata=metadata, before=None, at=0)
    stream.write(coder.head() + coder.encoded(turn) + coder.tail())


def _nearest_of(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The index of the colour nearest to the middle of each of 64 x 64 x 64 boxes."""
    side = 1 << _CUBE_BITS
    middles = (torch.arange(side) + 0.5) * (256 / side) - 0.5
    colours = torch.from_numpy(palette.astype(np.float32))
    nearest = np.empty((side, side, side), np.uint8)
    for red in range(side):
        grid = torch.cartesian_prod(middles[red : red + 1], middles, middles)
        nearest[red] = torch.cdist(grid, colours).argmin(1).view(side, side).numpy()
    # A colour of the palette is itself.
    red, green, blue = palette.T >> 8 - _CUBE_BITS
    nearest[red, green, blue] = np.arange(len(palette))
    return nearest


def _pieces(data: bytes) -> bytes:
    """Sub-blocks of at most 255 bytes, each behind its length, and the end of them."""
    cut = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"".join(bytes([len(piece)]) + piece for piece in cut) + b"\0"

"""Animated PNG (PNG specification, 3rd edition, sections 11.3.6): without loss, of 8 or 16 bits.

IHDR | metadata | acTL | fcTL | IDAT | fcTL | fdAT | ... | IEND
"""

import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np

from vdsr_cli.images.frames import Turn
from vdsr_cli.images.picture import Metadata
from vdsr_cli.images.png import chunk, deflated, header, metadata_chunks

_MOST: Final = 65_535
LONGEST_S: Final = _MOST
"""The longest that a frame can be shown, in seconds."""
_LEAVE, _SOURCE = 0, 0  # what becomes of a frame afterwards, and how it is laid on those before


class ApngCoder:
    """Encodes an animation; a :class:`~vdsr_cli.images.frames.SeriesCoder`.

    Args:
        shape: (H, W, c); c = 1 grey, 2 with alpha, 3 RGB, 4 with alpha.
        dtype: uint8 or uint16.
        plays: how often it is played, 0 for ever.
        durations: of the frames, in milliseconds.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        metadata: Metadata,
        *,
        plays: int,
        durations: Sequence[Fraction],
    ) -> None:
        self._durations = durations
        told = [*metadata_chunks(metadata), (b"acTL", struct.pack(">II", len(durations), plays))]
        self._head = header(shape, dtype) + b"".join(chunk(kind, data) for kind, data in told)

    def head(self, size: int) -> bytes:
        """Everything before the first frame."""
        return self._head

    def encoded(self, turn: Turn) -> bytes:
        """One frame: what is not as before, in place of what was there."""
        rows, columns = turn.changed()
        levels = np.ascontiguousarray(turn.levels[rows, columns])
        height, width = levels.shape[:2]
        seconds = min(self._durations[turn.index] / 1000, Fraction(LONGEST_S))
        delay = seconds.limit_denominator(int(_MOST / max(seconds, Fraction(1)))).as_integer_ratio()
        number = max(0, 2 * turn.index - 1)  # of control and data chunks, but for the first data
        place = (width, height, columns.start, rows.start)
        control = struct.pack(">5I2H2B", number, *place, *delay, _LEAVE, _SOURCE)
        pixels = deflated(levels)
        data = (
            chunk(b"fdAT", struct.pack(">I", number + 1) + pixels)
            if turn.index
            else chunk(b"IDAT", pixels)
        )
        return chunk(b"fcTL", control) + data

    def tail(self) -> bytes:
        """The end of the file."""
        return chunk(b"IEND", b"")

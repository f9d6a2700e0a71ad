"""Animated WebP: still pictures, which Pillow encodes, in a file of frames (RFC 9649, section 2.7).

RIFF | VP8X | ICCP | ANIM | ANMF | ANMF | ... | EXIF | XMP
"""

import struct
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image

from vdsr_cli.images.frames import Turn, whole_units
from vdsr_cli.images.picture import Metadata

_HAS_ICC, _HAS_ALPHA, _HAS_EXIF, _HAS_XMP, _IS_ANIMATED = 0x20, 0x10, 0x08, 0x04, 0x02
_BLEND, _REPLACE = 0x00, 0x02  # with what was there, which in either case stays elsewhere
LONGEST_MS: Final = (1 << 24) - 1
"""The longest that a frame can be shown, in milliseconds."""
_PIXELS: Final = (b"ALPH", b"VP8 ", b"VP8L")


class WebpCoder:
    """Encodes an animation; a :class:`~vdsr_cli.images.frames.SeriesCoder`.

    Args:
        shape: (H, W, c); c = 3 RGB, 4 with alpha.
        metadata: its ICC profile, EXIF and XMP are written.
        plays: how often it is played, 0 for ever.
        durations: of the frames, in milliseconds.
        options: Pillow's, by which each frame is encoded.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        metadata: Metadata,
        *,
        plays: int,
        durations: Sequence[Fraction],
        options: dict[str, object],
    ) -> None:
        self._shape, self._metadata, self._plays = shape, metadata, plays
        self._durations, self._options = whole_units(durations, 1), options

    def head(self, size: int) -> bytes:
        """Everything before the first frame."""
        height, width, _ = self._shape
        metadata = self._metadata
        flags = (
            _IS_ANIMATED
            | _HAS_ALPHA  # frames that change nothing do
            | (_HAS_ICC if metadata.icc_profile else 0)
            | (_HAS_EXIF if metadata.exif else 0)
            | (_HAS_XMP if metadata.xmp else 0)
        )
        head = _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + _in_24_bits(width - 1, height - 1))
        if metadata.icc_profile:
            head += _chunk(b"ICCP", metadata.icc_profile)
        head += _chunk(b"ANIM", struct.pack("<IH", 0, min(self._plays, 0xFFFF)))
        return b"RIFF" + struct.pack("<I", max(0, size - 8)) + b"WEBP" + head

    def encoded(self, turn: Turn) -> bytes:
        """One frame: what is not as before, in place of what was there."""
        rows, columns = turn.changed(step=2)
        levels, blending = np.ascontiguousarray(turn.levels[rows, columns]), _REPLACE
        if turn.before is not None and (levels == turn.before[rows, columns]).all():
            # Encoded with loss the same pixel would be another: one that is not seen is laid on.
            levels, blending = np.zeros((1, 1, 4), np.uint8), _BLEND
        still = BytesIO()
        Image.fromarray(levels).save(still, "WEBP", **self._options)
        height, width = levels.shape[:2]
        duration = min(self._durations[turn.index], LONGEST_MS)
        place = (columns.start // 2, rows.start // 2, width - 1, height - 1, duration)
        return _chunk(b"ANMF", _in_24_bits(*place) + bytes([blending]) + _pixels_of(still))

    def tail(self) -> bytes:
        """The metadata that stands behind the frames."""
        exif, packet = self._metadata.exif, self._metadata.xmp
        tail = _chunk(b"EXIF", exif.removeprefix(b"Exif\0\0")) if exif else b""
        return tail + (_chunk(b"XMP ", packet) if packet else b"")


def _pixels_of(still: BytesIO) -> bytes:
    """The chunks of a picture that are its pixels."""
    data, at, found = still.getvalue(), 12, b""
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        end = at + 8 + size + size % 2
        if data[at : at + 4] in _PIXELS:
            found += data[at:end]
        at = end
    return found


def _chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _in_24_bits(*values: int) -> bytes:
    return b"".join(value.to_bytes(3, "little") for value in values)

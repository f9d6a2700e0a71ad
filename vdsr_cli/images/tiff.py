"""TIFF of 8 and 16 bits a sample, compressed without loss (TIFF 6.0; Adobe's Deflate), and
BigTIFF where a TIFF would end.

Pillow writes 16 bits for grey alone, and a full disk without its reason.

    levels -> strips of whole rows -> differences to the left neighbour -> zlib
    header | EXIF block, as it is | directory | strips

An EXIF block is a TIFF without pictures, whose offsets count from its header. So it stands here
where it stood there, in its own byte order, and keeps every byte; only the directory is another.
"""

import struct
import zlib
from fractions import Fraction
from itertools import accumulate
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from vdsr_cli.images.directories import (
    ByteOrder,
    Directory,
    Value,
    byte_order,
    little_endian_directory,
    pack_directory,
)
from vdsr_cli.images.exif import PREFIX, ExifBlock
from vdsr_cli.images.frames import Turn
from vdsr_cli.images.metadata import LAYOUT_TAGS
from vdsr_cli.images.picture import Metadata
from vdsr_cli.images.resources import iptc_of
from vdsr_cli.images.segments import Segment, encoded_segments, rows_a_segment

_COMPRESSION_LEVEL: Final = 4
_OFFSETS: Final = 273
_COUNTS: Final = 279
_XMP, _IPTC, _PHOTOSHOP, _ICC = 700, 33723, 34377, 34675
_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 1, 3, 4, 5, 7, 16
_LETTERS: Final = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}
_INCH: Final = 2
_FINEST: Final = 1 << 16
_LONGEST_FILE_BYTES: Final = 2**32 - 1
_EXPANSION: Final = 1.01  # with some bytes a strip, more than zlib makes of noise
_STRIP_BYTES: Final = 64
_PAGES_AT: Final = 32


class TiffPages:
    """Encodes a file of several pages, little-endian; a
    :class:`~vdsr_cli.images.frames.SeriesCoder`.

    Args:
        samples_bytes: of all their samples together, by which it is decided on a BigTIFF.
    """

    def __init__(self, count: int, samples_bytes: int) -> None:
        self._count = count
        self._is_big = samples_bytes * _EXPANSION > _LONGEST_FILE_BYTES

    def head(self, size: int) -> bytes:
        """The header, which leads to the first page behind it."""
        return _header("<", _PAGES_AT, is_big=self._is_big).ljust(_PAGES_AT, b"\0")

    def encoded(self, turn: Turn) -> bytes:
        """A page: its directory, its strips."""
        height, width, channels = turn.levels.shape
        coder = TiffCoder((height, width, channels), turn.levels.dtype, turn.metadata, is_page=True)
        strips = b"".join(encoded_segments(coder, turn.levels))
        is_last = turn.index + 1 == self._count
        return coder.page(strips, turn.at, is_last=is_last, is_big=self._is_big)

    def tail(self) -> bytes:
        """Nothing: the last page says that it is."""
        return b""


class TiffCoder:
    """Encodes one picture, little-endian; a :class:`~vdsr_cli.images.segments.SegmentCoder`.

    Its head, of which only the size is known before the end, leaves room for a BigTIFF's where
    the file may become one.

    Args:
        shape: (H, W, c); c = 1 grey, 2 with alpha, 3 RGB, 4 with alpha.
        dtype: uint8 or uint16; levels are not premultiplied.
        metadata: its ICC profile, EXIF, XMP and resolution are written.
        is_page: whether it is one of several, for :meth:`page`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        metadata: Metadata,
        *,
        is_page: bool = False,
    ) -> None:
        self._shape, self._dtype, self._metadata = shape, dtype, metadata
        height, width, channels = shape
        exif = (metadata.exif or b"").removeprefix(PREFIX)
        self._exif, self._tree = exif, Directory()
        self._order: ByteOrder = byte_order(exif) if exif else "<"
        self.rows_each = min(height, rows_a_segment(width, channels, dtype))
        self.rows_done = 0
        self._strips = -(-height // self.rows_each)
        self._sizes: list[int] = []
        head_bytes = len(self._head_of(0, is_big=False))
        samples_bytes = height * width * channels * dtype.itemsize
        most_bytes = samples_bytes * _EXPANSION + self._strips * _STRIP_BYTES
        if is_page or head_bytes + most_bytes > _LONGEST_FILE_BYTES:
            # Other directories and, since Pillow reads no other BigTIFF, little-endian.
            self._exif, self._order = b"", "<"
            self._tree = little_endian_directory(exif) if exif else {}
            head_bytes = max(len(self._head_of(0, is_big=is_big)) for is_big in (False, True))
        self._head_bytes = head_bytes

    def head(self) -> bytes:
        """Header and directory, of the strips so far."""
        is_big = self._head_bytes + sum(self._sizes) > _LONGEST_FILE_BYTES
        room = self._head_bytes - len(self._head_of(0, is_big=is_big))
        return self._head_of(room, is_big=is_big).ljust(self._head_bytes, b"\0")

    def encoded(self, levels: NDArray[Any]) -> Segment:
        """Rows as one strip."""
        differences = levels.copy()
        differences[:, 1:] -= levels[:, :-1]
        ordered = differences.astype(differences.dtype.newbyteorder(self._order), copy=False)
        strip = zlib.compress(ordered.tobytes(), _COMPRESSION_LEVEL)
        return Segment(data=strip, rows=levels.shape[0])

    def add(self, segment: Segment) -> None:
        """Notes how long the next strip is."""
        self.rows_done += segment.rows
        self._sizes.append(len(segment.data))

    def tail(self) -> bytes:
        """Nothing: the directory is in the head."""
        return b""

    def state(self) -> dict[str, Any]:
        """How long the strips are."""
        return {"rows": self.rows_done, "sizes": list(self._sizes)}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on behind these strips."""
        self.rows_done, self._sizes = state["rows"], list(state["sizes"])

    def page(self, strips: bytes, at: int, *, is_last: bool, is_big: bool) -> bytes:
        """The directory of a page that begins at a byte of the file, and its strips, which have
        been added; unless it is the last, it leads to the page behind it."""
        kept = {tag: value for tag, value in self._tree.items() if tag not in LAYOUT_TAGS}
        sizes = tuple(self._sizes)
        directory = kept | self._layout(sizes, 0, is_big=is_big)
        start = at + len(pack_directory("<", directory, at, is_big=is_big))
        directory |= self._layout(sizes, start, is_big=is_big)
        padding = bytes((start + len(strips)) % 2)
        following = 0 if is_last else start + len(strips) + len(padding)
        packed = pack_directory("<", directory, at, is_big=is_big, following=following)
        return packed + strips + padding

    def _head_of(self, room: int, *, is_big: bool) -> bytes:
        """Header and directory where the strips begin ``room`` bytes behind them."""
        sizes = (*self._sizes, *[0] * (self._strips - len(self._sizes)))
        kept: dict[int, Value | Directory | bytes] = dict(self._tree)
        prefix = bytes(16 if is_big else 8)
        if self._exif:
            kept.update(ExifBlock(self._exif).fields())
            prefix = self._exif + bytes(len(self._exif) % 2)
        kept = {tag: value for tag, value in kept.items() if tag not in LAYOUT_TAGS}
        at = len(prefix)
        directory = kept | self._layout(sizes, 0, is_big=is_big)
        end = at + len(pack_directory(self._order, directory, at, is_big=is_big))
        directory |= self._layout(sizes, end + room, is_big=is_big)
        packed = pack_directory(self._order, directory, at, is_big=is_big)
        return _header(self._order, at, is_big=is_big) + prefix[16 if is_big else 8 :] + packed

    def _layout(self, sizes: tuple[int, ...], start: int, *, is_big: bool) -> dict[int, Value]:
        """The tags of the picture, whose strips of these sizes begin at ``start``."""
        height, width, channels = self._shape
        offsets = tuple(accumulate(sizes[:-1], initial=start))
        tags = {
            256: self._numbers(_LONG, width),
            257: self._numbers(_LONG, height),
            258: self._numbers(_SHORT, *(8 * self._dtype.itemsize,) * channels),
            259: self._numbers(_SHORT, 8),  # Deflate
            262: self._numbers(_SHORT, 1 if channels < 3 else 2),  # black is zero, RGB
            _OFFSETS: self._numbers(_LONG8 if is_big else _LONG, *offsets),
            277: self._numbers(_SHORT, channels),
            278: self._numbers(_LONG, self.rows_each),
            _COUNTS: self._numbers(_LONG, *sizes),
            284: self._numbers(_SHORT, 1),  # interleaved
            317: self._numbers(_SHORT, 2),  # horizontal differences
        }
        if channels in (2, 4):
            tags[338] = self._numbers(_SHORT, 2)  # alpha that is not premultiplied
        return tags | self._blocks()

    def _blocks(self) -> dict[int, Value]:
        """The tags of what the metadata says."""
        metadata = self._metadata
        tags: dict[int, Value] = {}
        if metadata.dpi is not None:
            tags |= {282: self._rational(metadata.dpi[0]), 283: self._rational(metadata.dpi[1])}
            tags[296] = self._numbers(_SHORT, _INCH)
        if metadata.xmp is not None:
            tags[_XMP] = Value(_BYTE, len(metadata.xmp), metadata.xmp)
        if metadata.photoshop is not None:
            tags[_PHOTOSHOP] = Value(_BYTE, len(metadata.photoshop), metadata.photoshop)
            records = iptc_of(metadata.photoshop)
            if records:
                tags[_IPTC] = Value(_UNDEFINED, len(records), records)
        if metadata.icc_profile is not None:
            tags[_ICC] = Value(_UNDEFINED, len(metadata.icc_profile), metadata.icc_profile)
        return tags

    def _numbers(self, kind: int, *values: int) -> Value:
        packed = struct.pack(f"{self._order}{len(values)}{_LETTERS[kind]}", *values)
        return Value(kind, len(values), packed)

    def _rational(self, value: float) -> Value:
        parts = Fraction(value).limit_denominator(_FINEST).as_integer_ratio()
        return Value(_RATIONAL, 1, struct.pack(self._order + "II", *parts))


def _header(order: ByteOrder, directory: int, *, is_big: bool) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    if is_big:
        return mark + struct.pack(order + "HHHQ", 43, 8, 0, directory)
    return mark + struct.pack(order + "HI", 42, directory)


def write_tiff(stream: BinaryIO, levels: NDArray[Any], metadata: Metadata) -> None:
    """Write a TIFF of levels (H, W, c); the stream need not seek. See :class:`TiffCoder`."""
    height, width, channels = levels.shape
    coder = TiffCoder((height, width, channels), levels.dtype, metadata)
    strips = list(encoded_segments(coder, levels))
    stream.write(coder.head())
    stream.writelines(strips)

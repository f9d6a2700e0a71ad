"""TIFF of 8 and 16 bits a sample, compressed without loss (TIFF 6.0; Adobe's Deflate), and
BigTIFF where a TIFF would end.

Pillow writes 16 bits for grey alone, and a full disk without its reason.

    levels -> strips of whole rows -> differences to the left neighbour -> zlib
    header | directory (tags, EXIF) | strips
"""

import zlib
from itertools import accumulate
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from vdsr_cli.images.picture import Metadata
from vdsr_cli.images.segments import Segment, encoded_segments, rows_a_segment

_HEADER: Final = b"II*\0\x08\0\0\0"
_BIG_HEADER: Final = b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"
_COMPRESSION_LEVEL: Final = 4
_OFFSETS: Final = 273
_COUNTS: Final = 279
_XMP: Final = 700
_ICC: Final = 34675
_LONG, _BYTE, _UNDEFINED, _LONG8 = 4, 1, 7, 16
_LONGEST_FILE_BYTES: Final = 2**32 - 1
_EXPANSION: Final = 1.01  # with some bytes a strip, more than zlib makes of noise
_STRIP_BYTES: Final = 64


class TiffCoder:
    """Encodes one picture, little-endian; a :class:`~vdsr_cli.images.segments.SegmentCoder`.

    Its head, of which only the size is known before the end, leaves room for a BigTIFF's where
    the file may become one.

    Args:
        shape: (H, W, c); c = 1 grey, 2 with alpha, 3 RGB, 4 with alpha.
        dtype: uint8 or uint16; levels are not premultiplied.
        metadata: its ICC profile, EXIF, XMP and resolution are written.
    """

    def __init__(
        self, shape: tuple[int, int, int], dtype: np.dtype[Any], metadata: Metadata
    ) -> None:
        self._shape, self._dtype, self._metadata = shape, dtype, metadata
        height, width, channels = shape
        self.rows_each = min(height, rows_a_segment(width, channels, dtype))
        self.rows_done = 0
        self._strips = -(-height // self.rows_each)
        self._sizes: list[int] = []
        head_bytes = len(self._head_of(_HEADER, 0))
        samples_bytes = height * width * channels * dtype.itemsize
        most_bytes = samples_bytes * _EXPANSION + self._strips * _STRIP_BYTES
        if head_bytes + most_bytes > _LONGEST_FILE_BYTES:
            head_bytes = len(self._head_of(_BIG_HEADER, 0))
        self._head_bytes = head_bytes

    def head(self) -> bytes:
        """Header and directory, of the strips so far."""
        is_big = self._head_bytes + sum(self._sizes) > _LONGEST_FILE_BYTES
        header = _BIG_HEADER if is_big else _HEADER
        room = self._head_bytes - len(self._head_of(header, 0))
        return self._head_of(header, room).ljust(self._head_bytes, b"\0")

    def encoded(self, levels: NDArray[Any]) -> Segment:
        """Rows as one strip."""
        differences = levels.copy()
        differences[:, 1:] -= levels[:, :-1]
        little = differences.astype(differences.dtype.newbyteorder("<"), copy=False)
        strip = zlib.compress(little.tobytes(), _COMPRESSION_LEVEL)
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

    def _head_of(self, header: bytes, room: int) -> bytes:
        """Header and directory where the strips begin ``room`` bytes behind them."""
        directory = _directory(header, self._shape, self._dtype, self._metadata)
        directory[278] = self.rows_each
        directory.tagtype[_OFFSETS] = _LONG if header == _HEADER else _LONG8
        directory.tagtype[_COUNTS] = _LONG
        sizes = (*self._sizes, *[0] * (self._strips - len(self._sizes)))
        # Pillow counts offsets from the end of the directory, when it packs the tags.
        directory[_OFFSETS] = tuple(accumulate(sizes[:-1], initial=room))
        directory[_COUNTS] = sizes
        return header + directory.tobytes(len(header))


def write_tiff(stream: BinaryIO, levels: NDArray[Any], metadata: Metadata) -> None:
    """Write a TIFF of levels (H, W, c); the stream need not seek. See :class:`TiffCoder`."""
    height, width, channels = levels.shape
    coder = TiffCoder((height, width, channels), levels.dtype, metadata)
    strips = list(encoded_segments(coder, levels))
    stream.write(coder.head())
    stream.writelines(strips)


def _directory(
    header: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any], metadata: Metadata
) -> ImageFileDirectory_v2:
    """The tags of the picture, without where its strips lie."""
    height, width, channels = shape
    directory = ImageFileDirectory_v2(header)
    if metadata.exif is not None:
        _add_exif(directory, metadata.exif)
    directory[256], directory[257] = width, height
    directory[258] = (8 * dtype.itemsize,) * channels
    directory[259] = 8  # Deflate
    directory[262] = 1 if channels < 3 else 2  # black is zero, RGB
    directory[277] = channels
    directory[284] = 1  # interleaved
    directory[317] = 2  # horizontal differences
    if channels in (2, 4):
        directory[338] = 2  # alpha that is not premultiplied
    if metadata.dpi is not None:
        directory[282], directory[283], directory[296] = *metadata.dpi, 2
    if metadata.xmp is not None:
        directory.tagtype[_XMP] = _BYTE
        directory[_XMP] = metadata.xmp
    if metadata.icc_profile is not None:
        directory.tagtype[_ICC] = _UNDEFINED
        directory[_ICC] = metadata.icc_profile
    return directory


def _add_exif(directory: ImageFileDirectory_v2, exif: bytes) -> None:
    block = Image.Exif()
    block.load(exif)
    for tag in list(block):
        is_nested = tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
        directory[tag] = block.get_ifd(tag) if is_nested else block[tag]
    details = block.get_ifd(ExifTags.IFD.Exif)
    if ExifTags.IFD.Interop in details:
        details[ExifTags.IFD.Interop] = block.get_ifd(ExifTags.IFD.Interop)

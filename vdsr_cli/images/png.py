"""PNG of 8 and 16 bits a sample (PNG specification, 3rd edition).

rows -> the differences that the filter Average leaves -> zlib, run lengths alone -> IDAT chunks

Pillow writes 16 bits for grey alone, and takes twice as long to write 8: it tries every filter on
every row. Average with run lengths makes files of photographs about as small.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from vdsr_cli.images.metadata import pixels_a_metre
from vdsr_cli.images.picture import Metadata

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES: Final = {1: 0, 2: 4, 3: 2, 4: 6}
_BLOCK_BYTES: Final = 1 << 18  # small enough to stay in the processor's cache
_AVERAGE: Final = 3  # section 9.2


def write_png(stream: BinaryIO, levels: NDArray[Any], metadata: Metadata) -> None:
    """Write a PNG; the stream need not seek.

    Args:
        stream: open for writing.
        levels: (H, W, c) uint8 or uint16, not premultiplied; c = 1 grey, 2 with alpha, 3 RGB,
            4 with alpha.
        metadata: its ICC profile, EXIF, XMP and resolution are written.
    """
    height, width, channels = levels.shape
    bits = 8 * levels.itemsize
    header = struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPES[channels], 0, 0, 0)
    stream.write(_SIGNATURE + _chunk(b"IHDR", header))
    for kind, data in _metadata_chunks(metadata):
        stream.write(_chunk(kind, data))
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE)
    for rows in _filtered_rows(levels):
        _write_data(stream, deflate.compress(rows))
    _write_data(stream, deflate.flush())
    stream.write(_chunk(b"IEND", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _write_data(stream: BinaryIO, data: bytes) -> None:
    if data:
        stream.write(_chunk(b"IDAT", data))


def _metadata_chunks(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    if metadata.icc_profile is not None:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc_profile)
    if metadata.dpi is not None:
        yield b"pHYs", struct.pack(">IIB", *pixels_a_metre(metadata.dpi), 1)
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")
    if metadata.xmp is not None:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp


def _filtered_rows(levels: NDArray[Any]) -> Iterator[bytes]:
    """Blocks of whole rows, each row the filter's number and then its differences.

    The prediction is floor((left + above) / 2), byte by byte, without leaving 8 bits.
    """
    height, width, channels = levels.shape
    pixel_bytes = channels * levels.itemsize
    row_bytes = width * pixel_bytes
    step = max(1, _BLOCK_BYTES // row_bytes)
    above = np.zeros((1, row_bytes), np.uint8)
    for top in range(0, height, step):
        stored = levels[top : top + step].astype(levels.dtype.newbyteorder(">"), order="C")
        block = stored.view(np.uint8).reshape(-1, row_bytes)
        up = np.concatenate([above, block[:-1]])
        left = np.zeros_like(block)
        left[:, pixel_bytes:] = block[:, :-pixel_bytes]
        rows = np.empty((len(block), 1 + row_bytes), np.uint8)
        rows[:, 0] = _AVERAGE
        np.subtract(block, (left & up) + ((left ^ up) >> 1), out=rows[:, 1:])
        yield rows.tobytes()
        above = block[-1:]

"""PNG of 16 bits a sample, which Pillow writes for grey alone (PNG specification, 3rd edition).

rows -> the filter of each row that leaves the smallest differences -> zlib -> IDAT chunks
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
PNG_COMPRESSION: Final = 2


def write_png16(stream: BinaryIO, levels: NDArray[np.uint16], metadata: Metadata) -> None:
    """Write a 16-bit PNG; the stream need not seek.

    Args:
        stream: open for writing.
        levels: (H, W, c) uint16, not premultiplied; c = 1 grey, 2 with alpha, 3 RGB, 4 with alpha.
        metadata: its ICC profile, EXIF, XMP and resolution are written.
    """
    height, width, channels = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    stream.write(_SIGNATURE + _chunk(b"IHDR", header))
    for kind, data in _metadata_chunks(metadata):
        stream.write(_chunk(kind, data))
    deflate = zlib.compressobj(PNG_COMPRESSION)
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


def _filtered_rows(levels: NDArray[np.uint16]) -> Iterator[bytes]:
    """Blocks of whole rows, each row its filter's number and then its differences."""
    height, width, channels = levels.shape
    row_bytes = 2 * width * channels
    above = np.zeros((1, row_bytes), np.uint8)
    step = max(1, _BLOCK_BYTES // row_bytes)
    for top in range(0, height, step):
        stored = levels[top : top + step].astype(">u2", order="C")
        block = stored.view(np.uint8).reshape(-1, row_bytes)
        up = np.concatenate([above, block[:-1]])
        yield _filtered(block, up, 2 * channels).tobytes()
        above = block[-1:]


def _filtered(block: NDArray[np.uint8], up: NDArray[np.uint8], bpp: int) -> NDArray[np.uint8]:
    """The best of the filters Sub (1), Up (2) and Paeth (4) for each row (section 9).

    Args:
        block: (rows, n) the bytes of whole rows.
        up: (rows, n) the bytes of the row above each.
        bpp: bytes a pixel.
    """
    left, up_left = _shifted(block, bpp), _shifted(up, bpp)
    filters = np.array([1, 2, 4], np.uint8)
    candidates = np.stack([block - left, block - up, block - _paeth(left, up, up_left)])
    # Differences count by their size as signed bytes.
    costs = np.minimum(candidates, -candidates).sum(axis=2, dtype=np.int64)
    best = costs.argmin(axis=0)
    chosen = candidates[best, np.arange(len(block))]
    return np.concatenate([filters[best][:, None], chosen], axis=1)


def _shifted(rows: NDArray[np.uint8], bpp: int) -> NDArray[np.uint8]:
    shifted = np.zeros_like(rows)
    shifted[:, bpp:] = rows[:, :-bpp]
    return shifted


def _paeth(
    left: NDArray[np.uint8], up: NDArray[np.uint8], up_left: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Whichever neighbour is nearest to left + up - up_left; ties in that order (section 9.4)."""
    a, b, c = (plane.astype(np.int16) for plane in (left, up, up_left))
    to_left, to_up, to_both = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    is_left = (to_left <= to_up) & (to_left <= to_both)
    predicted: NDArray[Any] = np.where(is_left, left, np.where(to_up <= to_both, up, up_left))
    return predicted.astype(np.uint8, copy=False)

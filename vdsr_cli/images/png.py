"""PNG of 8 and 16 bits a sample (PNG specification, 3rd edition).

rows -> the differences that the filter Average leaves -> Deflate, run lengths alone -> IDAT chunks

Pillow writes 16 bits for grey alone, and takes twice as long to write 8: it tries every filter on
every row. Average with run lengths makes files of photographs about as small. Run lengths look
back one byte, so that segments which do not know each other cost nothing.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from vdsr_cli.images.metadata import pixels_a_metre
from vdsr_cli.images.picture import Metadata
from vdsr_cli.images.segments import Segment, encoded_segments, rows_a_segment

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES: Final = {1: 0, 2: 4, 3: 2, 4: 6}
_BLOCK_BYTES: Final = 1 << 18  # small enough to stay in the processor's cache
_SUB, _AVERAGE = 1, 3  # section 9.2
_ZLIB_HEADER: Final = b"\x78\x01"  # RFC 1950: Deflate, a window of 32 KiB, fastest
_ADLER_BASE: Final = 65521
_LAST_BLOCK: Final = b"\x03\x00"  # RFC 1951: an empty block that is marked as the last


class PngCoder:
    """Encodes one picture; a :class:`~vdsr_cli.images.segments.SegmentCoder`.

    Args:
        shape: (H, W, c); c = 1 grey, 2 with alpha, 3 RGB, 4 with alpha.
        dtype: uint8 or uint16; levels are not premultiplied.
        metadata: its ICC profile, EXIF, XMP and resolution are written.
    """

    def __init__(
        self, shape: tuple[int, int, int], dtype: np.dtype[Any], metadata: Metadata
    ) -> None:
        _, width, channels = shape
        self.rows_each, self.rows_done = rows_a_segment(width, channels, dtype), 0
        self._row_bytes = 1 + width * channels * dtype.itemsize
        self._adler = zlib.adler32(b"")
        chunks = [*metadata_chunks(metadata), (b"IDAT", _ZLIB_HEADER)]
        self._head = header(shape, dtype) + b"".join(chunk(kind, data) for kind, data in chunks)

    def head(self) -> bytes:
        """Everything up to the pixels."""
        return self._head

    def encoded(self, levels: NDArray[Any]) -> Segment:
        """Rows as one IDAT chunk, which ends on a whole byte of the stream."""
        deflate = zlib.compressobj(1, wbits=-zlib.MAX_WBITS, strategy=zlib.Z_RLE)
        parts, adler = [], zlib.adler32(b"")
        for rows in _filtered_rows(levels):
            adler = zlib.adler32(rows, adler)
            parts.append(deflate.compress(rows))
        data = chunk(b"IDAT", b"".join([*parts, deflate.flush(zlib.Z_FULL_FLUSH)]))
        return Segment(data=data, rows=levels.shape[0], checksum=adler)

    def add(self, segment: Segment) -> None:
        """Adds its checksum to that of the picture."""
        self.rows_done += segment.rows
        size = segment.rows * self._row_bytes
        self._adler = combined_adler(self._adler, segment.checksum, size)

    def tail(self) -> bytes:
        """The end of the pixels, their checksum, the end of the file."""
        end = chunk(b"IDAT", _LAST_BLOCK + struct.pack(">I", self._adler))
        return end + chunk(b"IEND", b"")

    def state(self) -> dict[str, Any]:
        """The checksum so far."""
        return {"rows": self.rows_done, "adler": self._adler}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on with a checksum."""
        self.rows_done, self._adler = state["rows"], state["adler"]


def write_png(stream: BinaryIO, levels: NDArray[Any], metadata: Metadata) -> None:
    """Write a PNG of levels (H, W, c); the stream need not seek. See :class:`PngCoder`."""
    height, width, channels = levels.shape
    coder = PngCoder((height, width, channels), levels.dtype, metadata)
    stream.write(coder.head())
    stream.writelines(encoded_segments(coder, levels))
    stream.write(coder.tail())


def header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Signature and header of a picture (H, W, c)."""
    height, width, channels = shape
    bits, colour = 8 * dtype.itemsize, _COLOUR_TYPES[channels]
    return _SIGNATURE + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    )


def deflated(levels: NDArray[Any]) -> bytes:
    """The pixels of a whole picture, as its data chunks hold them."""
    deflate = zlib.compressobj(6)
    parts = [deflate.compress(rows) for rows in _filtered_rows(levels)]
    return b"".join([*parts, deflate.flush()])


def combined_adler(first: int, second: int, second_bytes: int) -> int:
    """The Adler-32 of two pieces of data, one behind the other, of their own (RFC 1950, 8.2)."""
    total = (first & 0xFFFF) + (second & 0xFFFF) - 1
    # The sum of totals begins anew with the second piece, where each was larger by the first's.
    totals = (first >> 16) + (second >> 16) + second_bytes * ((first & 0xFFFF) - 1)
    return totals % _ADLER_BASE << 16 | total % _ADLER_BASE


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a file."""
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def metadata_chunks(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of the chunks that say what the metadata does."""
    if metadata.cicp is not None:
        yield b"cICP", bytes(metadata.cicp)
    if metadata.icc_profile is not None:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc_profile)
    if metadata.dpi is not None:
        yield b"pHYs", struct.pack(">IIB", *pixels_a_metre(metadata.dpi), 1)
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")
    if metadata.xmp is not None:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp
    if metadata.photoshop is not None:
        yield b"zTXt", _raw_profile(b"iptc", metadata.photoshop)
    if metadata.comment is not None:
        yield _text_chunk(b"Comment", metadata.comment.replace(b"\0", b" "))
    yield from metadata.png_chunks


def _text_chunk(keyword: bytes, text: bytes) -> tuple[bytes, bytes]:
    """Kind and data of a chunk with a text: tEXt is Latin-1, and iTXt UTF-8."""
    latin = b"tEXt", keyword + b"\0" + text
    if text.isascii():
        return latin
    try:
        text.decode()
    except UnicodeDecodeError:
        return latin
    return b"iTXt", keyword + bytes(5) + text


def _raw_profile(name: bytes, profile: bytes) -> bytes:
    """A text chunk as ImageMagick and ExifTool have it for what PNG has no chunk for."""
    digits = profile.hex()
    lines = [digits[start : start + 72] for start in range(0, len(digits), 72)]
    text = f"\n{name.decode()}\n{len(profile):8d}\n" + "\n".join(lines) + "\n"
    return b"Raw profile type " + name + b"\0\0" + zlib.compress(text.encode())


def _filtered_rows(levels: NDArray[Any]) -> Iterator[bytes]:
    """Blocks of whole rows, each row the filter's number and then its differences.

    The first row is predicted from its left neighbours alone. The others' prediction is
    floor((left + above) / 2), byte by byte, without leaving 8 bits.
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
        if top == 0:
            rows[0, 0] = _SUB
            np.subtract(block[0], left[0], out=rows[0, 1:])
        yield rows.tobytes()
        above = block[-1:]

"""The chunks of a PNG file: those that make its pixels, and what the others say
(PNG specification, 3rd edition).

Pillow decodes the pixels. It takes a text called ``gamma`` for the picture's gamma, refuses long
profiles and texts, and does not know cICP; so it sees the first kind of chunks alone.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from vdsr_cli.images.colour import Primaries
from vdsr_cli.images.png import chunk as packed
from vdsr_cli.images.stored import NOT_SQUARE, Stored

_PIXELS: Final = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT")
TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
"""Types of chunks that hold text."""
_KEPT: Final = (b"mDCV", b"cLLI")
_XMP_KEYWORD: Final = b"XML:com.adobe.xmp"
_RAW_PROFILE: Final = b"Raw profile type "
_LONGEST_BYTES: Final = 1 << 28
_METRES_AN_INCH: Final = 0.0254


def split_png(data: bytes) -> tuple[bytes, Stored]:
    """The file with no more than its pixels, and what its other chunks say.

    What cannot be made sense of is left out, with a note. Nothing is said of damaged pixels:
    decoding them will.
    """
    stored = Stored()
    pixels: list[bytes | memoryview] = [data[:8]]
    for kind, body, chunk in _chunks(data):
        if kind in _PIXELS or not kind[0] & 0x20:
            pixels.append(chunk)
        else:
            try:
                if chunk != packed(kind, bytes(body)):
                    raise ValueError("cut off, or of another checksum")
                _take(kind, bytes(body), stored)
            except (IndexError, ValueError, struct.error, zlib.error):
                name = kind.decode("latin-1")
                stored.notes.append(f"its {name} chunk is damaged and was left out")
    return b"".join(pixels), stored


def text_keyword(chunk: tuple[bytes, bytes]) -> str:
    """The keyword of a text chunk."""
    return chunk[1].split(b"\0", 1)[0].decode("latin-1")


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Kind, body and whole of each chunk; the last may be cut off."""
    view, at = memoryview(data), 8
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + size
        yield kind, view[at + 8 : end - 4], view[at:end]
        at = end
        if kind == b"IEND":
            return
    yield b"IEND", view[:0], view[at:]


def _take(kind: bytes, body: bytes, stored: Stored) -> None:
    """Notes what a chunk says."""
    if kind in TEXTS:
        _take_text(kind, body, stored)
    elif kind == b"iCCP":
        stored.icc_profile = _inflated(body[body.index(b"\0") + 2 :])
    elif kind == b"eXIf":
        stored.exif = body
    elif kind == b"cICP":
        primaries, transfer, matrix, is_full = body
        stored.cicp = (primaries, transfer, matrix, is_full)
    elif kind == b"gAMA":
        stored.gamma = struct.unpack(">I", body)[0] / 100_000 or None
    elif kind == b"cHRM":
        x = [value / 100_000 for value in struct.unpack(">8I", body)]
        stored.primaries = Primaries((x[0], x[1]), (x[2], x[3]), (x[4], x[5]), (x[6], x[7]))
    elif kind == b"sRGB":
        stored.is_srgb = True
    elif kind == b"pHYs":
        across, down, unit = struct.unpack(">IIB", body)
        if unit == 1:
            stored.dpi = across * _METRES_AN_INCH, down * _METRES_AN_INCH
        elif across != down and across and down:
            stored.notes.append(NOT_SQUARE)
    elif kind in _KEPT:
        stored.png_chunks.append((kind, body))
    elif kind == b"caBX":
        stored.notes.append("its content credentials (C2PA) do not hold for the output")


def _take_text(kind: bytes, body: bytes, stored: Stored) -> None:
    keyword = body.split(b"\0", 1)[0]
    if kind == b"iTXt" and keyword == _XMP_KEYWORD:
        stored.xmp = _text(kind, body)
    elif keyword.startswith(_RAW_PROFILE):
        _take_profile(keyword.removeprefix(_RAW_PROFILE), _raw_profile(_text(kind, body)), stored)
    else:
        stored.png_chunks.append((kind, body))


def _take_profile(name: bytes, profile: bytes, stored: Stored) -> None:
    """A profile that ImageMagick has put into a text; chunks of their own come first."""
    if name in (b"exif", b"APP1") and profile.startswith((b"Exif\0\0", b"II", b"MM")):
        stored.exif = stored.exif or profile
    elif name in (b"xmp", b"APP1"):
        stored.xmp = stored.xmp or profile.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")
    elif name in (b"iptc", b"8bim", b"APP13"):
        stored.photoshop = stored.photoshop or profile.removeprefix(b"Photoshop 3.0\0")
    elif name in (b"icc", b"icm"):
        stored.icc_profile = stored.icc_profile or profile


def _raw_profile(text: bytes) -> bytes:
    """Line break, name, length, then lines of hexadecimal digits."""
    return bytes.fromhex("".join(text.decode("ascii").split("\n")[3:]))


def _text(kind: bytes, body: bytes) -> bytes:
    """The text of a chunk behind its keyword, inflated."""
    text = body.split(b"\0", 1)[1]
    if kind == b"zTXt":
        return _inflated(text[1:])
    if kind == b"iTXt":
        is_deflated, (_, _, text) = text[0], text[2:].split(b"\0", 2)
        return _inflated(text) if is_deflated else text
    return text


def _inflated(data: bytes) -> bytes:
    inflate = zlib.decompressobj()
    text = inflate.decompress(data, _LONGEST_BYTES)
    if not inflate.eof:
        raise ValueError("it is too long, or cut off")
    return text

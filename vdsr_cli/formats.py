"""The kind of a file, told by its first bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEADER_BYTES: Final = 64
_CAMERA_RAWS: Final = frozenset(
    f".{name}"
    for name in (
        *("3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "gpr", "iiq", "k25"),
        *("kdc", "mef", "mos", "mrw", "nef", "nrw", "orf", "pef", "raf", "raw", "rw2", "rwl"),
        *("sr2", "srf", "srw", "x3f"),
    )
)
"""Extensions of what begins as a TIFF or JPEG, and holds no more than a preview as one."""
_SHORT_SIGNATURES: Final = ("BMP", "PPM", "JPEG XL")
"""Formats whose first bytes may well be those of a text."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file, told by its first bytes; one that is not read says what to do instead.

    In capitals its name is Pillow's.

    Attributes:
        extra: of this package, which reads it in Pillow's place.
    """

    name: str
    is_it: Callable[[bytes], bool]
    hint: str | None = None
    extra: str | None = None


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(signatures)


def _branded(*brands: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[4:8] == b"ftyp" and any(brand in head[8:64] for brand in brands)


KINDS: Final = (
    Kind("PNG", _starts(b"\x89PNG\r\n\x1a\n")),
    Kind("JPEG", _starts(b"\xff\xd8\xff")),
    Kind("WebP", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP"),
    Kind("TIFF", _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    Kind("BMP", _starts(b"BM")),
    Kind("GIF", _starts(b"GIF8")),
    Kind("AVIF", _branded(b"avif", b"avis")),
    Kind("PPM", lambda head: head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()),
    Kind("HEIF", _branded(b"heic", b"heix", b"heim", b"heis", b"mif1"), extra="heif"),
    Kind("JPEG XL", _starts(b"\xff\x0a", b"\0\0\0\x0cJXL "), extra="jxl"),
    Kind("JPEG 2000", _starts(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "convert it to PNG"),
    Kind("Photoshop", _starts(b"8BPS"), "export it as PNG or TIFF"),
    Kind("PDF", _starts(b"%PDF"), "extract its pictures: pdfimages -png"),
)


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file by its first bytes."""
    return next((kind for kind in KINDS if kind.is_it(head)), None)


def is_picture_file(path: Path) -> bool:
    """Whether the first bytes of a file are of a format that is read, whatever its name says."""
    if path.suffix.lower() in _CAMERA_RAWS:
        return False
    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(_HEADER_BYTES))
    except OSError:
        return False
    return kind is not None and kind.hint is None and kind.name not in _SHORT_SIGNATURES

"""The kind of a file, told by its first bytes, and whether it holds several pictures."""

import os
import struct
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

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
        format: the name of the format where it is written too, as ``paths.OUTPUT_SUFFIXES`` has it,
            or of a video ``paths.VIDEO_SUFFIXES``.
    """

    name: str
    is_it: Callable[[bytes], bool]
    hint: str | None = None
    extra: str | None = None
    format: str | None = None
    is_video: bool = False


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(signatures)


def _branded(*brands: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[4:8] == b"ftyp" and any(brand in head[8:64] for brand in brands)


def _video(name: str, is_it: Callable[[bytes], bool], format: str) -> Kind:
    hint = "vdsr upscale enlarges them; of a folder, name them"
    return Kind(name, is_it, hint, format=format, is_video=True)


_HEIF_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"mif1")
_EBML: Final = b"\x1aE\xdf\xa3"
KINDS: Final = (
    Kind("PNG", _starts(b"\x89PNG\r\n\x1a\n"), format="png"),
    Kind("JPEG", _starts(b"\xff\xd8\xff"), format="jpg"),
    Kind("WebP", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", format="webp"),
    Kind("TIFF", _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), format="tiff"),
    Kind("BMP", _starts(b"BM"), format="bmp"),
    Kind("GIF", _starts(b"GIF8"), format="gif"),
    Kind("AVIF", _branded(b"avif", b"avis"), format="avif"),
    Kind("PPM", lambda head: head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()),
    Kind("HEIF", _branded(*_HEIF_BRANDS), extra="heif", format="heif"),
    Kind("JPEG XL", _starts(b"\xff\x0a", b"\0\0\0\x0cJXL "), extra="jxl", format="jxl"),
    Kind("JPEG 2000", _starts(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "convert it to PNG"),
    Kind("Photoshop", _starts(b"8BPS"), "export it as PNG or TIFF"),
    Kind("PDF", _starts(b"%PDF"), "extract its pictures: pdfimages -png"),
    _video("QuickTime", lambda head: head[4:12] in (b"ftypqt  ", b"\0\0\0\x08wide"), "mov"),
    _video("MP4", lambda head: head[4:8] == b"ftyp", "mp4"),
    _video("WebM", lambda head: head[:4] == _EBML and b"webm" in head[:64], "webm"),
    _video("Matroska", _starts(_EBML), "mkv"),
    _video("AVI", lambda head: head[:4] == b"RIFF" and head[8:12] == b"AVI ", "mkv"),
)


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file by its first bytes."""
    return next((kind for kind in KINDS if kind.is_it(head)), None)


def unnoticed(path: str, flags: int) -> int:
    """For ``open``: a descriptor by which a file's access time stays, where the system allows."""
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # somebody else's file
        return os.open(path, flags)


def written_format(name: str | None) -> str | None:
    """The format in which a picture of Pillow's format is written again, as
    ``paths.OUTPUT_SUFFIXES`` has it; None where it is not."""
    names = {kind.name.lower(): kind.format for kind in KINDS}
    return names.get("jpeg" if name == "mpo" else name or "")


def is_picture_file(path: Path) -> bool:
    """Whether the first bytes of a file are of a format that is read, whatever its name says."""
    if path.suffix.lower() in _CAMERA_RAWS:
        return False
    try:
        with open(path, "rb", opener=unnoticed) as file:
            kind = kind_of(file.read(_HEADER_BYTES))
    except OSError:
        return False
    return kind is not None and kind.hint is None and kind.name not in _SHORT_SIGNATURES


@dataclass(frozen=True, slots=True)
class Content:
    """A file by what is in it.

    Attributes:
        format: as ``paths.OUTPUT_SUFFIXES`` has it; None where it is of none that is written.
        is_several: whether it is an animation, or has pages.
    """

    format: str | None = None
    is_several: bool = False
    is_video: bool = False


def is_video(path: Path) -> bool:
    """Whether the first bytes of an ordinary file are a video's."""
    content = content_of(path)
    return content is not None and content.is_video


def content_of(path: Path) -> Content | None:
    """Looks at what is in an ordinary file, by as few of its bytes as tell; None where there is
    none."""
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb", opener=unnoticed) as file:
            kind = kind_of(file.read(_HEADER_BYTES))
            if kind is None:
                return Content()
            pictures = _PICTURES[kind.name](file) if kind.name in _PICTURES else iter(())
            is_several = kind.is_video or len(list(islice(pictures, 2))) > 1
            return Content(kind.format, is_several, kind.is_video)
    except (OSError, OverflowError, ValueError, struct.error):
        return Content()


def _frames_of_png(file: BinaryIO) -> Iterator[int]:
    file.seek(8)
    while True:
        size, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"acTL":
            yield from range(*struct.unpack(">I", file.read(4)))
        if kind in (b"acTL", b"IDAT", b"IEND"):
            return
        file.seek(size + 4, os.SEEK_CUR)


def _frames_of_webp(file: BinaryIO) -> Iterator[int]:
    """As many as are looked for, where the header says that it is animated."""
    file.seek(12)
    kind, _, flags = struct.unpack("<4sIB", file.read(9))
    yield from range(2 if kind == b"VP8X" and flags & 2 else 1)


def is_whole_gif(file: BinaryIO) -> bool:
    """Whether a GIF has its end, which alone tells how many frames it has.

    Raises:
        OSError, struct.error: the file is damaged.
    """
    frames = _frames_of_gif(file)
    while True:
        try:
            next(frames)
        except StopIteration as end:
            return bool(end.value)


def _frames_of_gif(file: BinaryIO) -> Generator[int, None, bool]:
    """GIF89a, appendix B: blocks, each a mark, a header and the data in pieces; whether the last is
    the end of the file."""
    file.seek(10)
    _skip_colours(file, 2)
    while mark := file.read(1):
        if mark == b"!":
            file.seek(1, os.SEEK_CUR)
        elif mark == b",":
            yield 1
            file.seek(8, os.SEEK_CUR)
            _skip_colours(file, 1)
        elif mark == b";":
            return True
        else:
            continue
        while (size := file.read(1)) and size != b"\0":
            file.seek(size[0], os.SEEK_CUR)
    return False


def _skip_colours(file: BinaryIO, more: int) -> None:
    """Passes by flags, the colours that they tell of, and some bytes more."""
    (flags,) = struct.unpack("B", file.read(1))
    file.seek((3 << (flags & 7) + 1 if flags & 0x80 else 0) + more, os.SEEK_CUR)


def tiff_header(file: BinaryIO) -> tuple[str, bool, int]:
    """Byte order, whether it is a BigTIFF, and where the first directory is.

    Raises:
        OSError, struct.error, ValueError: there is no such header.
    """
    file.seek(0)
    header = file.read(16)
    order = "<" if header[:2] == b"II" else ">"
    is_big = header[2:4] in (b"+\0", b"\0+")
    place: int = struct.unpack_from(order + ("Q" if is_big else "I"), header, 8 if is_big else 4)[0]
    return order, is_big, place


def pages_of_tiff(file: BinaryIO) -> Iterator[int]:
    """Yields where each directory is but for those of reduced copies (TIFF 6.0, section 2).

    Raises:
        OSError, OverflowError, struct.error, ValueError: the file is damaged.
    """
    order, is_big, place = tiff_header(file)
    counted, where, entry = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    seen: set[int] = set()
    while place and place not in seen:
        seen.add(place)
        file.seek(place)
        (count,) = struct.unpack(order + counted, file.read(struct.calcsize(counted)))
        table = file.read(min(count, 1 << 16) * entry)
        is_copy = False
        for at in range(0, len(table), entry):
            tag, kind = struct.unpack_from(order + "HH", table, at)
            if tag == _TIFF_SUBFILE:
                letter = "H" if kind == _SHORT else "I"
                (value,) = struct.unpack_from(order + letter, table, at + (12 if is_big else 8))
                is_copy = bool(value & 1)
        if not is_copy:
            yield place
        (place,) = struct.unpack(order + where, file.read(struct.calcsize(where)))


_TIFF_SUBFILE, _SHORT = 254, 3
_PICTURES: Final[dict[str, Callable[[BinaryIO], Iterator[int]]]] = {
    "PNG": _frames_of_png,
    "WebP": _frames_of_webp,
    "GIF": _frames_of_gif,
    "TIFF": pages_of_tiff,
}
"""Generators that yield once a picture of a file of a kind, twice where there are more."""

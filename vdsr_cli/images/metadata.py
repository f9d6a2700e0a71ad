"""EXIF, XMP, ICC, IPTC, text and resolution: found in a picture, cleaned, fitted to an output.

    file ─► Stored ─► carried ─► Metadata ─► fitted ─► what the encoders write

What describes the stored pixels is no longer true of the output: orientation becomes 1 (the pixels
are turned), the thumbnail and, from a TIFF, the tags of its layout are left out, and the
dimensions are set when the output's are known. All else keeps its bytes. Nothing is left out
without a note.
"""

import io
import math
import re
from typing import Any, BinaryIO, Final

from PIL import Image

from vdsr_cli.images import exif as exif_tags
from vdsr_cli.images import xmp
from vdsr_cli.images.colour import SRGB_CICP, profile_of_cicp, profile_of_figures
from vdsr_cli.images.directories import (
    Directory,
    Value,
    as_classic,
    pack_directory,
    read_directory,
)
from vdsr_cli.images.exif import ExifBlock
from vdsr_cli.images.picture import Metadata
from vdsr_cli.images.resources import iptc_of, kept_resources, resources_of_iptc
from vdsr_cli.images.stored import NOT_SQUARE, Stored

LAYOUT_TAGS: Final = frozenset(
    {*range(254, 269), 273, *range(277, 282), 284, *range(288, 294), 297, 301, 317}
    | {*range(320, 348), *range(512, 533)}
    | {700, 33723, 34377, 34675, 37724}  # XMP, IPTC, Photoshop, ICC: carried apart or not at all
    | {50706, 50707}  # which make a TIFF a camera raw
)
"""Tags of a TIFF's first directory that are about its pixels, or are carried by themselves."""

_XMP, _IPTC, _PHOTOSHOP, _ICC = 700, 33723, 34377, 34675
_MAKER_NOTE: Final = 0x927C
_MAP_TURNED: Final = "its map coordinates are of the picture before it was turned: left out"
_PROFILE_SPACES: Final = {b"RGB ": "RGB", b"GRAY": "grey", b"CMYK": "CMYK", b"Lab ": "LAB"}
_INCHES_A_METRE: Final = 1 / 0.0254
MOST_DPI: Final = 65535
"""The most pixels an inch that every format can say."""

_PARTS: Final = {
    "gain map": "its gain map (HDR) was left out: the output is the standard picture",
    "video": "the video of this motion photo was left out",
    "extended XMP": "the extended part of its XMP was left out",
}
_KNOWN_SEGMENTS: Final = (
    *(b"JFIF\0", b"JFXX\0", b"Exif\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"Adobe\0", b"Adobe"),
    *(b"http://ns.adobe.com/", b"MPF\0", b"urn:iso:std:iso:ts:21496", b"Ducky"),
)
_TAIL_BYTES: Final = 1 << 16
_CONTENT_CREDENTIALS: Final = "its content credentials (C2PA) do not hold for the output"


def stored_in(image: Image.Image, stream: BinaryIO, head: bytes) -> Stored:
    """The metadata of an opened image of any format but PNG."""
    info = image.info
    stored = Stored(
        exif=_bytes(info.get("exif")),
        xmp=_bytes(info.get("xmp")),
        icc_profile=_bytes(info.get("icc_profile")),
        dpi=_density(info) if hasattr(image, "applist") else info.get("dpi"),
        comment=_bytes(info.get("comment")),
    )
    if image.format == "TIFF":
        _take_tiff(stream, stored)
    if image.format == "GIF":
        stored.xmp = stored.xmp or _gif_xmp(stream)
    _take_segments(getattr(image, "applist", ()), stored)
    if _is_oblong(image, head):
        stored.notes.append(NOT_SQUARE)
    if info.get("has_gain_map"):
        stored.notes.append(_PARTS["gain map"])
    is_told = stored.xmp and xmp.without_claims(stored.xmp)[1]
    if image.format == "JPEG" and not is_told and _is_followed(stream):
        stored.notes.append("what stands behind the picture in its file was left out")
    codes = _nclx(image, head)
    if codes is not None:
        stored.cicp = (*codes, 0, 1)  # as decoded: full-range RGB
    return stored


def _nclx(image: Image.Image, head: bytes) -> tuple[int, int] | None:
    """Code points of primaries and transfer function, of an AVIF or HEIF."""
    nclx = image.info.get("nclx")
    if nclx is not None:
        return nclx["color_primaries"], nclx["transfer_characteristics"]
    box = head.find(b"colrnclx") if image.format == "AVIF" else -1
    if box < 0 or len(head) < box + 15:
        return None
    return int.from_bytes(head[box + 8 : box + 10]), int.from_bytes(head[box + 10 : box + 12])


def _density(info: dict[Any, Any]) -> tuple[float, float] | None:
    """A JPEG's resolution in pixels an inch; Pillow would make one up where there is none."""
    if info.get("jfif_unit") in (1, 2):
        factor = 1.0 if info["jfif_unit"] == 1 else 2.54
        across, down = info["jfif_density"]
        return factor * across, factor * down
    try:
        return ExifBlock(info["exif"]).dpi
    except (KeyError, ValueError):
        return None


def _is_oblong(image: Image.Image, head: bytes) -> bool:
    """Whether the pixels of a JPEG or GIF are not square, beside any resolution."""
    if image.format == "GIF":
        return head[12] not in (0, 49)  # 64ths, less 15
    across, down = image.info.get("jfif_density", (1, 1))
    return image.info.get("jfif_unit") == 0 and across != down and min(across, down) > 0


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and value else None


def _gif_xmp(stream: BinaryIO) -> bytes | None:
    """The packet of a GIF's application extension, which a magic trailer ends (XMP, part 3)."""
    place = stream.tell()
    stream.seek(0)
    _, _, behind = stream.read().partition(b"\x0bXMP DataXMP")
    stream.seek(place)
    packet, end, _ = behind.partition(b"\x01\xff\xfe\xfd")
    return packet if end else None


def _take_segments(segments: Any, stored: Stored) -> None:
    """Notes what a JPEG's application segments say, beyond what Pillow makes of them."""
    resources = b"Photoshop 3.0\0"
    found = [data[len(resources) :] for name, data in segments if data.startswith(resources)]
    stored.photoshop = b"".join(found) or stored.photoshop
    if any(name == "APP2" and b"21496:-1" in data[:40] for name, data in segments):
        stored.notes.append(_PARTS["gain map"])
    if any(name == "APP11" and b"c2pa" in data for name, data in segments):
        stored.notes.append(_CONTENT_CREDENTIALS)
    others = [
        data
        for name, data in segments
        if name.startswith("APP") and not data.startswith(_KNOWN_SEGMENTS)
    ]
    names = dict.fromkeys(filter(None, map(_segment_name, others)))
    if names:
        stored.notes.append(f"its segments {', '.join(names)} were left out")


def _segment_name(data: bytes) -> str:
    """The printable characters that an application's segment begins with."""
    found = re.match(rb"[\x21-\x7e]{2,32}", data)
    return found.group().decode() if found else ""


def _is_followed(stream: BinaryIO) -> bool:
    """Whether something but zeros stands behind the last end marker of a JPEG, near its end."""
    place = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - _TAIL_BYTES))
    _, found, behind = stream.read().rpartition(b"\xff\xd9")
    stream.seek(place)
    return bool(found) and bool(behind.strip(b"\0\r\n "))


def _take_tiff(stream: BinaryIO, stored: Stored) -> None:
    """A TIFF's own directory as an EXIF block, and what stands in it beside that."""
    place = stream.tell()
    order, directory = read_directory(stream)
    stream.seek(place)
    stored.xmp, stored.icc_profile = _data(directory, _XMP), _data(directory, _ICC)
    iptc = _data(directory, _IPTC)
    resources = _data(directory, _PHOTOSHOP) or b""
    if iptc and not iptc_of(resources):
        resources = resources_of_iptc(iptc) + resources
    stored.photoshop = resources or None
    kept: Directory = {t: v for t, v in directory.items() if t not in LAYOUT_TAGS}
    details = kept.get(exif_tags.EXIF_DIRECTORY)
    if isinstance(details, dict) and _MAKER_NOTE in details:
        stored.notes.append("its maker's notes were moved: some programs will not read them")
    if kept:
        header = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
        tree = as_classic(kept, order)
        stored.exif = header + pack_directory(order, tree, len(header), is_big=False)


def _data(directory: Directory, tag: int) -> bytes | None:
    value = directory.get(tag)
    return value.data if isinstance(value, Value) else None


def orientation_of(stored: Stored) -> int:
    """The orientation, 1 to 8: of EXIF, or else of XMP; 1 when there is none that makes sense."""
    try:
        told = ExifBlock(stored.exif).orientation if stored.exif else None
    except ValueError:
        told = None
    return told or (stored.xmp and xmp.orientation_in(stored.xmp)) or 1


def carried(
    stored: Stored,
    *,
    size: tuple[int, int],
    bit_depth: Any,
    is_grey: bool,
    is_srgb: bool,
    source_format: str | None,
) -> tuple[Metadata, list[str]]:
    """The metadata that outputs get, and a note on each thing that is not.

    Args:
        size: width and height of the picture, upright.
        bit_depth, is_grey, source_format: as :class:`~vdsr_cli.images.picture.Metadata` has them.
        is_srgb: whether the pixels were converted to sRGB.
    """
    notes = list(stored.notes)
    is_turned = orientation_of(stored) > 4
    dpi = _real_dpi(stored.dpi, notes)
    icc, cicp = (None, None) if is_srgb else _colours(stored, is_grey, notes)
    packet, parts = xmp.without_claims(stored.xmp) if stored.xmp else (None, ())
    notes += [_PARTS[part] for part in parts if _PARTS[part] not in notes]
    metadata = Metadata(
        bit_depth=bit_depth,
        is_grey=is_grey,
        source_format=source_format,
        size=size,
        icc_profile=icc,
        cicp=cicp,
        exif=_clean_exif(stored, size, notes),
        xmp=None if packet is None else xmp.set_upright(packet),
        dpi=(dpi[1], dpi[0]) if dpi and is_turned else dpi,
        photoshop=stored.photoshop and kept_resources(stored.photoshop),
        comment=stored.comment,
        png_chunks=tuple(stored.png_chunks),
        is_panorama=packet is not None and not is_turned and xmp.is_all_around(packet),
    )
    return metadata, notes


def _clean_exif(stored: Stored, size: tuple[int, int], notes: list[str]) -> bytes | None:
    """The block, upright, without its thumbnail and without a resolution that is none."""
    if stored.exif is None:
        return None
    try:
        block = ExifBlock(stored.exif)
        if block.is_map and orientation_of(stored) > 1:
            block.drop(*exif_tags.GEO_TAGS)
            notes.append(_MAP_TURNED)
        block.drop_thumbnail()
        block.set_upright(size)
        if block.has_absurd_resolution:
            block.drop(exif_tags.X_RESOLUTION, exif_tags.Y_RESOLUTION)
            notes.append("the resolution in its EXIF block is none that can be, and was left out")
        return None if block.is_empty else block.tobytes()
    except ValueError:
        notes.append("its EXIF block is damaged and was left out")
        return None


def _as_dpi(value: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(each) for each in value or ())
    except (ArithmeticError, TypeError, ValueError):
        return None
    return (across, down) if math.isfinite(across) and math.isfinite(down) else None


def _real_dpi(value: Any, notes: list[str]) -> tuple[float, float] | None:
    """The resolution in pixels an inch, or None where there is none, or none that can be."""
    dpi = _as_dpi(value)
    if dpi is None or min(dpi) <= 1:
        return None
    if max(dpi) > MOST_DPI:
        notes.append(f"its resolution of {max(dpi):g} pixels an inch was left out")
        return None
    return dpi


def _colours(
    stored: Stored, is_grey: bool, notes: list[str]
) -> tuple[bytes | None, tuple[int, int, int, int] | None]:
    """The profile that the pixels are in, None for sRGB, and the code points of a PNG.

    The first that is there counts: cICP of a PNG, a profile, sRGB, gAMA and cHRM (PNG, 4.3).
    """
    icc, cicp = stored.icc_profile, stored.cicp
    space = "grey" if is_grey else "RGB"
    if icc is not None and profile_space(icc) != space:
        notes.append(f"its ICC profile is for {profile_space(icc)} pictures and was left out")
        icc = None
    is_told = cicp is not None and cicp[1] != 2  # 2 is unspecified
    if cicp is not None and is_told and cicp[:2] != SRGB_CICP:
        if icc is None:
            icc = profile_of_cicp(cicp[0], cicp[1], is_grey=is_grey)
        if icc is None:
            notes.append(f"no ICC profile can say its colour code {cicp[0]}/{cicp[1]}")
        return icc, cicp
    if icc is None and not is_told and not stored.is_srgb and (stored.gamma or stored.primaries):
        icc = profile_of_figures(stored.gamma, stored.primaries, is_grey=is_grey)
    return icc, None


def sized_exif(block: bytes, *, width: int, height: int, like: Metadata) -> bytes:
    """A clean EXIF block whose figures in pixels and map, where it has them, are the output's."""
    edited = ExifBlock(block)
    edited.set_size(width, height)
    if like.size is not None:
        factors = width / like.size[0], height / like.size[1]
        edited.scale_figures(*factors)
        edited.scale_map(*factors)
    return edited.tobytes()


def with_dpi(block: bytes | None, dpi: tuple[float, float]) -> bytes:
    """The block, or one of its own, with a resolution in pixels an inch where it names none."""
    edited = ExifBlock(block or exif_tags.EMPTY)
    edited.set_dpi(dpi)
    return edited.tobytes()


def without_orientation(block: bytes) -> bytes:
    """The block without an orientation, which is 1 then too."""
    edited = ExifBlock(block)
    edited.drop(exif_tags.ORIENTATION)
    return edited.tobytes()


def pixels_a_metre(dpi: tuple[float, float]) -> tuple[int, int]:
    """Pixels an inch -> whole pixels a metre, as PNG stores them."""
    return round(dpi[0] * _INCHES_A_METRE), round(dpi[1] * _INCHES_A_METRE)


def profile_space(icc_profile: bytes) -> str:
    """The colour space of an ICC profile's device side: RGB, grey, CMYK, LAB or unknown."""
    return _PROFILE_SPACES.get(icc_profile[16:20], "unknown")

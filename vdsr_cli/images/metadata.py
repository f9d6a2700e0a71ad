"""EXIF, XMP, ICC and resolution: read from a picture, cleaned, and fitted to an output.

A block that describes the stored pixels is no longer true of the output: orientation becomes 1
(the pixels are turned), the thumbnail and, from a TIFF, the tags of its layout are left out, and
the dimensions are set when the output's are known.
"""

import math
import re
import struct
from typing import Final

from PIL import ExifTags, Image

EXIF_ERRORS: Final = (
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    ZeroDivisionError,
)
"""What Pillow raises on damaged EXIF."""

_ORIENTATION: Final = ExifTags.Base.Orientation
_PROFILE_SPACES: Final = {b"RGB ": "RGB", b"GRAY": "grey", b"CMYK": "CMYK", b"Lab ": "LAB"}
_LAYOUT_TAGS: Final = frozenset(
    {*range(254, 269), 273, *range(277, 282), 284, *range(288, 294), 297, 301, 317}
    | {*range(320, 348), *range(512, 533)}
    | {700, 33723, 34377, 34675, 37724}  # XMP, IPTC, Photoshop, ICC: carried apart or not at all
)
_XMP_ORIENTATION: Final = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))[0-9]""")
_INCHES_A_METRE: Final = 1 / 0.0254


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, of a decoded image; 1 when there is none that makes sense."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except EXIF_ERRORS:
        return 1
    return orientation if orientation in range(1, 9) else 1


def clean_exif(image: Image.Image) -> bytes | None:
    """The EXIF block of a decoded image, upright and without what described the file's layout.

    Raises:
        One of ``EXIF_ERRORS``: the block is damaged.
    """
    exif = image.getexif()
    for tag in _LAYOUT_TAGS.intersection(exif):
        del exif[tag]
    if _ORIENTATION in exif:
        exif[_ORIENTATION] = 1
    exif.bigtiff = False  # A BigTIFF's block gets the header that EXIF has elsewhere.
    return exif.tobytes() if len(exif) else None


def sized_exif(exif: bytes, *, width: int, height: int) -> Image.Exif:
    """A clean EXIF block whose pixel dimensions, where it names them, are the output's."""
    block = Image.Exif()
    block.load(exif)
    details = block.get_ifd(ExifTags.IFD.Exif)
    sizes = {ExifTags.Base.ExifImageWidth: width, ExifTags.Base.ExifImageHeight: height}
    details.update({tag: size for tag, size in sizes.items() if tag in details})
    return block


def clean_xmp(image: Image.Image) -> bytes | None:
    """The XMP packet of an image, its orientation set to 1."""
    packet = image.info.get("xmp")
    if not isinstance(packet, bytes) or not packet:
        return None
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet)


def dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """The resolution in pixels an inch, or None where there is none or it is no real one."""
    try:
        across, down = (float(value) for value in image.info.get("dpi", ()))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    is_real = math.isfinite(across) and math.isfinite(down) and min(across, down) > 1
    return (across, down) if is_real else None


def pixels_a_metre(dpi: tuple[float, float]) -> tuple[int, int]:
    """Pixels an inch -> whole pixels a metre, as PNG stores them."""
    return round(dpi[0] * _INCHES_A_METRE), round(dpi[1] * _INCHES_A_METRE)


def profile_space(icc_profile: bytes) -> str:
    """The colour space of an ICC profile's device side: RGB, grey, CMYK, LAB or unknown."""
    return _PROFILE_SPACES.get(icc_profile[16:20], "unknown")

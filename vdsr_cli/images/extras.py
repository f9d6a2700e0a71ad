"""Formats that Pillow leaves to other packages, each behind an extra of this one.

heif   pillow-heif              HEIC, HEIF
jxl    pillow-jxl-plugin        JPEG XL
tiff   tifffile, imagecodecs    TIFF of floating point, of 9 to 15 or 32 bits, ...
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from PIL import Image

from vdsr_cli.errors import InputError
from vdsr_cli.images.samples import Samples

SPLIT_PAGES: Final = "vdsr upscale takes them all; for one: tiffsplit FILE"
"""Advice on a file of several pages where one is wanted."""

_PACKAGES: Final = {
    "heif": ("pillow_heif",),
    "jxl": ("pillow_jxl",),
    "tiff": ("tifffile", "imagecodecs"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A decoded file.

    Attributes:
        image: carries its format, EXIF, profile and the like; its own pixels are not looked at.
        is_upright: whether they are turned already, whatever EXIF says.
        notes: what was not read exactly as stored, one line each.
    """

    image: Image.Image
    samples: Samples
    is_upright: bool = False
    notes: tuple[str, ...] = ()


def has_extra(extra: str) -> bool:
    """Whether the packages of an extra are installed."""
    return all(find_spec(package) is not None for package in _PACKAGES[extra])


def install_hint(extra: str) -> str:
    """How to install an extra."""
    return f"pip install 'vdsr-cli[{extra}]'"


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuses a picture before it is decoded. Raises InputError."""
    if width * height > max_pixels:
        raise too_large(f"{width}x{height} = {width * height:,}")
    if width * height == 0:
        raise InputError("it has no pixels")


def too_large(size: str) -> InputError:
    """The error of a picture of more pixels than are allowed."""
    return InputError(f"it has {size} pixels", hint="--max-pixels allows more")


def camera_raw() -> InputError:
    """The error of a TIFF or DNG whose pixels are a sensor's."""
    return InputError(
        "it is a camera raw, whose first picture is a preview",
        hint="develop it to TIFF or PNG first",
    )


def bare_image(format: str, **info: object) -> Image.Image:
    """An image of one pixel that carries a file's format and blocks, as Pillow's readers do."""
    image = Image.new("1", (1, 1))
    image.format = format
    image.info = {key: value for key, value in info.items() if value is not None}
    return image

"""TIFF that Pillow does not read, by tifffile: floating point, 9 to 15 and 32 bits, grey with
alpha of 16 bits, planes of 16 bits, big-endian BigTIFF, pixels coded as WebP, JPEG 2000, ...
"""

import logging
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import ImageFile

from vdsr_cli.errors import InputError
from vdsr_cli.images.extras import SPLIT_PAGES, Decoded, bare_image, camera_raw, check_size
from vdsr_cli.images.samples import Samples, colour_channels, long_samples, unit_samples

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_JPEG, _WEBP, _JPEG_XL = 7, 50001, 50002
_CODED_AS_RGB: Final = (_JPEG, _WEBP, _JPEG_XL)
_BITS, _COMPRESSION, _PLANAR = 258, 259, 284
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = 282, 283, 296
_DNG_VERSION = 50706
_MOST_CHANNELS: Final = 16
_MOST_PAGES: Final = 100
_UNITS_AN_INCH: Final = {2: 1.0, 3: 2.54}
_UNHEARD: Final = logging.NullHandler()


def why_rare(image: ImageFile.ImageFile) -> str | None:
    """The part of an opened TIFF that Pillow reads wrongly, or not at all."""
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_COMPRESSION) == _WEBP:
        return "its pixels are coded as WebP"
    if tags.get(_PLANAR) == 2 and max(tags.get(_BITS, (8,))) > 8:
        return "its 16-bit colours lie in separate planes"
    return None


def read_rare_tiff(stream: BinaryIO, max_pixels: int) -> Decoded:
    """Decodes the one page of a file.

    Raises:
        InputError: what it holds cannot be taken for a picture, or is too large.
        TiffFileError, ValueError and others of tifffile's: the file is damaged.
    """
    import tifffile

    logging.getLogger("tifffile").addHandler(_UNHEARD)
    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        page = _only_page(file)
        check_size(page.imagewidth, page.imagelength, max_pixels)
        _refuse_foreign(page)
        samples = _samples(page)
        image = bare_image("TIFF", dpi=_dpi_of(page))
    return Decoded(image=image, samples=samples)


def _only_page(file: Any) -> Any:
    """The page that is no reduced copy of another."""
    # A damaged file of some bytes may lead from page to page without end.
    found = list(islice(file.pages, _MOST_PAGES + 1))
    if len(found) > _MOST_PAGES:
        raise InputError(f"it has more than {_MOST_PAGES} pages", hint=SPLIT_PAGES)
    if any(_DNG_VERSION in page.tags for page in found):
        raise camera_raw()
    pages = [page for page in found if page.dtype is not None and not page.subfiletype & 1]
    if not pages:
        raise ValueError("it holds no picture of a known kind")
    if len(pages) > 1:
        raise InputError(f"it has {len(pages)} pages", hint=SPLIT_PAGES)
    return pages[0]


def _refuse_foreign(page: Any) -> None:
    """Refuses what is no grey or RGB picture, or of samples of several kinds."""
    kind = int(page.photometric)
    is_rgb = kind == _RGB or (kind == _YCBCR and int(page.compression) in _CODED_AS_RGB)
    if not (is_rgb or kind in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)):
        raise InputError(f"its colours are of TIFF's kind {kind}, which is not read")
    if page.imagedepth > 1:
        raise InputError(f"it is a volume of {page.imagedepth} layers")
    if page.dtype.kind not in "uf":
        raise InputError(
            "its samples are signed or complex numbers", hint="save it as a 16-bit TIFF or PNG"
        )
    if page.samplesperpixel > _MOST_CHANNELS:
        raise InputError(f"it has {page.samplesperpixel} channels")


def _samples(page: Any) -> Samples:
    planes = page.shaped[0]
    stored = page.asarray(squeeze=False)[:, 0]
    levels = np.moveaxis(stored[..., 0], 0, -1) if planes > 1 else stored[0]
    is_grey = int(page.photometric) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    extras = [int(kind) for kind in page.extrasamples]
    channels, is_premultiplied, notes = colour_channels(
        levels.shape[2], 1 if is_grey else 3, extras
    )
    levels = levels[..., channels]
    if levels.dtype.kind == "f":
        samples = unit_samples(levels.astype(np.float32, copy=False))
    elif levels.dtype.itemsize > 2:
        samples = long_samples(levels)
    else:
        samples = Samples(levels=levels, full=2**page.bitspersample - 1)
    if int(page.photometric) == _WHITE_IS_ZERO:
        samples.levels[..., :1] = samples.full - samples.levels[..., :1]
    return replace(samples, is_premultiplied=is_premultiplied, notes=samples.notes + notes)


def _dpi_of(page: Any) -> tuple[float, float] | None:
    factor = _UNITS_AN_INCH.get(int(page.tags.valueof(_UNIT, 2)))
    across, down = (page.tags.valueof(code) for code in (_X_RESOLUTION, _Y_RESOLUTION))
    if factor is None or across is None or down is None or 0 in (across[1], down[1]):
        return None
    return factor * across[0] / across[1], factor * down[0] / down[1]

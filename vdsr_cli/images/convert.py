"""Pictures that are in memory already: arrays and Pillow's images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vdsr_cli.errors import InputError
from vdsr_cli.images.decode import DECODE_ERRORS, to_tensors
from vdsr_cli.images.picture import Metadata, Picture
from vdsr_cli.images.samples import Samples, read_cmyk

_FULL = {"uint8": 255, "uint16": 65535}


PictureInMemory = Image.Image | np.ndarray[Any, Any]


def to_picture(source: PictureInMemory) -> Picture:
    """A picture as the models take it, without metadata but an image's ICC profile.

    Args:
        source: an image of Pillow's, which is turned upright; or uint8 or uint16 (h, w) or
            (h, w, c), c = 1 grey, 2 with alpha, 3 RGB, 4 with alpha.

    Raises:
        InputError: another dtype or shape, an image of mode I or F, or neither of the two.
    """
    if isinstance(source, Image.Image):
        try:
            upright = ImageOps.exif_transpose(source)
            if upright.mode == "CMYK":
                samples, icc_profile = read_cmyk(upright), None
            else:
                samples, icc_profile = _stored(_levels(upright)), upright.info.get("icc_profile")
        except DECODE_ERRORS as error:
            raise InputError(f"the image cannot be read: {error}") from error
        return _picture(samples, icc_profile)
    if not isinstance(source, np.ndarray):
        raise InputError(
            f"a {type(source).__name__} is no picture", hint="a path, an array, a file or an image"
        )
    return _picture(_stored(source), None)


def _levels(image: Image.Image) -> NDArray[Any]:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        raise InputError(
            f"an image of mode {image.mode} has no white", hint="give an array uint8 or uint16"
        )
    opaque = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return np.asarray(image.convert(opaque + "A" if image.has_transparency_data else opaque))


def _stored(levels: NDArray[Any]) -> Samples:
    """The samples of an array. Raises InputError."""
    full = _FULL.get(str(levels.dtype))
    if full is None or levels.ndim not in (2, 3) or 0 in levels.shape:
        raise InputError(
            f"an array of {levels.dtype} {levels.shape} is no picture",
            hint="uint8 or uint16, (h, w) or (h, w, c)",
        )
    stored = levels if levels.ndim == 3 else levels[:, :, None]
    if stored.shape[2] not in (1, 2, 3, 4):
        raise InputError(f"a picture has 1 to 4 channels, not {stored.shape[2]}")
    return Samples(levels=stored, full=full)


def _picture(samples: Samples, icc_profile: bytes | None) -> Picture:
    rgb, alpha = to_tensors(samples, 1)
    metadata = Metadata(
        bit_depth=8 if samples.full == 255 else 16,
        is_grey=samples.levels.shape[2] < 3,
        icc_profile=icc_profile,
    )
    return Picture(rgb=rgb, alpha=alpha, metadata=metadata, notes=samples.notes)

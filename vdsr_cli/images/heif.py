"""HEIC and HEIF by pillow-heif, at the depth that is stored; written with 8 or 10 bits a sample."""

from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from vdsr_cli.images.extras import Decoded, bare_image, check_size
from vdsr_cli.images.picture import Metadata
from vdsr_cli.images.samples import Samples

_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_GAIN_MAPS: Final = ("hdrgainmap", "21496")
"""Parts of the kinds of auxiliary pictures: Apple's, and ISO 21496-1's."""


def read_heif(stream: BinaryIO, max_pixels: int) -> Decoded:
    """Decodes the primary picture of a file, upright.

    Raises:
        InputError: it is too large.
        OSError, RuntimeError, ValueError and others of the decoder's: the file is damaged.
    """
    import pillow_heif

    file = pillow_heif.open_heif(stream, convert_hdr_to_8bit=False)
    image = file[file.primary_index]
    check_size(image.size[0], image.size[1], max_pixels)
    levels = np.atleast_3d(np.asarray(image))[:, : image.size[0]]
    info: dict[str, Any] = image.info
    icc = info.get("icc_profile") or None
    nclx = info.get("nclx_profile")
    kinds = [str(kind) for kind in info.get("aux", ())]
    others = [kind for kind in kinds if not any(mark in kind for mark in _GAIN_MAPS)]
    shell = bare_image(
        "HEIF",
        exif=info["exif"],
        xmp=info.get("xmp"),
        icc_profile=icc,
        nclx=nclx,
        has_gain_map=len(others) < len(kinds),
    )
    notes = [f"the first of {len(file)} pictures in the file was read"] if len(file) > 1 else []
    if any(info.get("depth_images", ())):
        notes.append("its depth map was left out")
    if others:
        notes.append("its auxiliary pictures, such as mattes, were left out")
    # Of 10 or 12 bits the decoder makes 16 by zeros behind them.
    bits = 8 if levels.dtype == np.uint8 else int(info["bit_depth"])
    samples = Samples(
        levels=levels,
        full=255 if bits == 8 else (2**bits - 1) << (16 - bits),
        is_premultiplied=image.premultiplied_alpha,
    )
    # The decoder turns the picture as the container asks, which counts and not EXIF's word.
    return Decoded(image=shell, samples=samples, is_upright=True, notes=tuple(notes))


def write_heif(stream: BinaryIO, levels: NDArray[Any], metadata: Metadata, quality: int) -> None:
    """Encodes levels (H, W, 1, 3 or 4), uint8, or uint16 of which 10 bits are kept.

    Raises:
        OSError, RuntimeError, ValueError: the encoder fails.
    """
    import pillow_heif

    height, width, channels = levels.shape
    mode = _MODES[channels]
    if levels.dtype == np.uint16:
        # To the nearest of 10 bits; the encoder itself would cut.
        levels = ((levels.astype(np.uint32) * 1023 + 32767) // 65535).astype(np.uint16)
        mode += ";10"
    file = pillow_heif.from_bytes(mode, (width, height), levels.tobytes())
    if metadata.icc_profile is not None:
        file.info["icc_profile"] = metadata.icc_profile
    file.save(
        stream,
        quality=quality,
        chroma=444 if quality >= 90 else 420,
        exif=metadata.exif,
        xmp=metadata.xmp,
    )

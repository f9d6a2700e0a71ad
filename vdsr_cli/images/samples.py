"""Every pixel mode of Pillow -> one array of levels, at the full depth that is stored.

Pillow itself reads 16 bits a sample for one channel only; of colours it keeps the high bytes
(python-pillow/Pillow#1888). Its decoders, however, move whole samples and leave it to the *raw
mode* which byte of each is kept. So such a picture is decoded twice, the second time with the
raw mode of the other byte order, which keeps the low bytes.
"""

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from vdsr_cli.errors import InputError
from vdsr_cli.images.metadata import profile_space

_GREY_MODES: Final = ("LA", "La")
_OTHER_ORDER: Final = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_WIDE_CHANNELS: Final = {"RGB": 3, "RGBX": 3, "RGBA": 4, "RGBa": 4}
_COLOURS: Final = {"L": 1, "RGB": 3, "CMYK": 4}
_UNSEEN: Final = 0.5 / 255
_TIFF_BITS: Final = 258
_TIFF_PHOTOMETRIC: Final = 262
_TIFF_CHANNELS: Final = 277
_TIFF_EXTRA: Final = 338
_TIFF_SAMPLE_FORMAT: Final = 339
_PREMULTIPLIED, _STRAIGHT = 1, 2

Reopen = Callable[[], ImageFile.ImageFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Decoded pixels as stored.

    Attributes:
        levels: (h, w, c); c = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. uint8, uint16,
            or float32 in [0, 1].
        full: the level that stands for 1.
        is_premultiplied: whether the colours are already multiplied by alpha.
        is_srgb: whether the colours were converted to sRGB, so that the profile is used up.
        notes: what was not read exactly as stored.
    """

    levels: NDArray[Any]
    full: int = 255
    is_premultiplied: bool = False
    is_srgb: bool = False
    notes: tuple[str, ...] = ()

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.levels.shape[2] in (2, 4)


def read_samples(image: ImageFile.ImageFile, reopen: Reopen) -> Samples:
    """Decode an opened image.

    Args:
        image: opened, not yet loaded.
        reopen: opens the same file once more, for the low bytes of 16-bit colours.

    Raises:
        InputError: a kind of pixels that cannot be read faithfully.
        OSError, SyntaxError, ValueError and others of Pillow's: the file is damaged.
    """
    rawmode = _rawmode(image)
    told = _left_out(image, rawmode)
    samples = _read(image, reopen, rawmode)
    return replace(samples, notes=(*samples.notes, *told))


def _left_out(image: ImageFile.ImageFile, rawmode: str) -> tuple[str, ...]:
    """A note on channels of an interleaved TIFF that are neither colours nor alpha."""
    colours = _COLOURS.get(rawmode.partition(";")[0].rstrip("AaX"))
    if colours is None or not isinstance(image, TiffImageFile):
        return ()
    count, extras = image.tag_v2.get(_TIFF_CHANNELS, 1), image.tag_v2.get(_TIFF_EXTRA, ())
    return colour_channels(count, colours, extras)[2]


def _read(image: ImageFile.ImageFile, reopen: Reopen, rawmode: str) -> Samples:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _read_single(image)
    if image.mode == "CMYK":
        return read_cmyk(image, is_wide=";16" in rawmode)
    if image.mode == "LAB":
        return Samples(levels=_to_srgb(image, ImageCms.createProfile("LAB")), is_srgb=True)
    if rawmode == "LA;16B":
        return _read_wide_grey_alpha(image)
    packing, mark, order = rawmode.partition(";16")
    if mark and packing in _WIDE_CHANNELS and order in _OTHER_ORDER:
        return _read_wide(image, reopen, rawmode)
    maximum = _ppm_maximum(image)
    samples = _read_bytes(image, rawmode)
    if maximum > 255:
        return replace(samples, notes=("a PPM in text of more than 8 bits was read at 8 bits",))
    return samples


def colour_channels(
    count: int, colours: int, extras: Sequence[int]
) -> tuple[list[int], bool, tuple[str, ...]]:
    """Which of so many channels of a TIFF are colours or, behind them, alpha (TIFF 6.0,
    ExtraSamples); whether that is premultiplied; and a note on those that are neither."""
    alpha = next((kind for kind in extras if kind in (_PREMULTIPLIED, _STRAIGHT)), None)
    channels = list(range(colours))
    if alpha is not None:
        channels.append(colours + extras.index(alpha))
    left_out = count - len(channels)
    notes = (f"{left_out} channels that are no colour were left out",) if left_out > 0 else ()
    return channels, alpha == _PREMULTIPLIED, notes


def read_frame(image: ImageFile.ImageFile) -> Samples:
    """One frame of an animation, sought but not yet loaded, as it is shown; at 8 bits.

    Raises:
        OSError, SyntaxError, ValueError and others of Pillow's: the file is damaged.
    """
    rawmode = _rawmode(image)
    image.load()
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.uint32)[:, :, None]
        samples = Samples(levels=((levels + 128) // 257).astype(np.uint8))
        key = image.info.get("transparency")
        return _with_alpha(samples, levels != key) if isinstance(key, int) else samples
    return _read_bytes(image, rawmode)


def _rawmode(image: ImageFile.ImageFile) -> str:
    """How the first tile's samples are packed, such as ``RGB;16B``; empty when not stated."""
    if not image.tile:
        return ""
    codec, args = image.tile[0].codec_name, image.tile[0].args
    first = args[0] if isinstance(args, tuple) and args else args
    if codec == "ppm" and first == "RGB" and _ppm_maximum(image) > 255:
        return "RGB;16B"
    return first if isinstance(first, str) else ""


def _ppm_maximum(image: ImageFile.ImageFile) -> int:
    """The level that stands for 1 in a PPM of other than 255, which Pillow scales; 0 of others."""
    args = image.tile[0].args if image.tile and image.format == "PPM" else None
    return int(args[1]) if isinstance(args, tuple) and len(args) == 2 else 0


def _read_single(image: ImageFile.ImageFile) -> Samples:
    """One channel of 12 or 16 bits, integers of 32 bits that fit 16, or floating point."""
    tags = getattr(image, "tag_v2", {})
    full = 4095 if tags.get(_TIFF_BITS) == 12 or tags.get(_TIFF_BITS) == (12,) else 65535
    is_negative = image.mode != "I" and tags.get(_TIFF_PHOTOMETRIC) == 0
    key = image.info.get("transparency")
    values = np.asarray(image)
    if image.mode == "F":
        return unit_samples((1 - values if is_negative else values)[:, :, None])
    if (
        image.mode == "I"
        and tags.get(_TIFF_SAMPLE_FORMAT, (1,)) == (1,)
        and tags.get(_TIFF_BITS) == (32,)
    ):
        return long_samples(values.view(np.uint32)[:, :, None])
    if values.size and (values.min() < 0 or values.max() > full):
        raise InputError(
            f"its whole-number samples run from {values.min()} to {values.max()}, "
            "which is more than 16 bits",
            hint="rescale it to a 16-bit PNG or TIFF first",
        )
    levels = values.astype(np.uint16)
    levels = (full - levels if is_negative else levels)[:, :, None]
    samples = Samples(levels=levels, full=full)
    return _with_alpha(samples, levels != key) if isinstance(key, int) else samples


def unit_samples(values: NDArray[np.float32]) -> Samples:
    """Floating point (h, w, c), of which 0 is black and 1 white.

    Raises:
        InputError: some are not finite, or more than white by what 8 bits would show.
    """
    if not np.isfinite(values).all():
        raise InputError("some of its floating-point samples are not finite")
    if values.size and values.max() > 1 + _UNSEEN:
        raise InputError(
            f"its floating-point samples reach {values.max():g}; 0 to 1 is black to white",
            hint="bring them to that range first: what lies above would be lost",
        )
    is_negative = bool(values.size and values.min() < -_UNSEEN)
    notes = ("floating-point samples below 0 became black",) if is_negative else ()
    return Samples(levels=values.clip(0, 1), full=1, notes=notes)


def long_samples(values: NDArray[Any]) -> Samples:
    """Whole numbers (h, w, c) of 32 or 64 bits: on their whole range, unless 16 bits would do.

    Raises:
        InputError: on their whole range they would be all but black.
    """
    full = int(np.iinfo(values.dtype).max)
    highest = int(values.max(initial=0))
    if highest < 2**16:
        return Samples(levels=values.astype(np.uint16), full=2**16 - 1)
    if highest < full // 256:
        raise InputError(
            f"its whole-number samples reach {highest:,} of {full:,}: all but black",
            hint="rescale it to a 16-bit PNG or TIFF first",
        )
    return Samples(levels=(values / full).astype(np.float32), full=1)


def _read_wide(image: ImageFile.ImageFile, reopen: Reopen, rawmode: str) -> Samples:
    """RGB or RGBA of 16 bits: the high bytes, then the low bytes."""
    packing, order = rawmode.split(";16")
    # Premultiplied pairs must come as they are: RGBa would divide the bytes.
    straight = packing.replace("a", "A")
    full = _ppm_maximum(image) or 65535
    channels = _WIDE_CHANNELS[packing]
    _repack(image, f"{straight};16{order}")
    levels = np.asarray(image)[:, :, :channels].astype(np.uint16)
    levels <<= 8
    again = reopen()
    _repack(again, f"{straight};16{_OTHER_ORDER[order]}")
    levels |= np.asarray(again)[:, :, :channels]
    levels = levels.clip(max=full)
    samples = Samples(levels=levels, full=full, is_premultiplied=packing == "RGBa")
    key = image.info.get("transparency")
    return _keyed(samples, key) if packing == "RGB" and isinstance(key, tuple) else samples


def _repack(image: ImageFile.ImageFile, rawmode: str) -> None:
    """Have an image that is not yet loaded decoded by another raw mode."""
    image.tile = [_repacked(tile, rawmode) for tile in image.tile]


def _repacked(tile: ImageFile._Tile, rawmode: str) -> ImageFile._Tile:
    if tile.codec_name == "ppm":
        return tile._replace(codec_name="raw", args=rawmode)
    is_alone = isinstance(tile.args, str)
    return tile._replace(args=rawmode if is_alone else (rawmode, *(tile.args or ())[1:]))


def _keyed(samples: Samples, key: tuple[int, ...]) -> Samples:
    """Turn the one colour that PNG's tRNS names into an alpha channel."""
    return _with_alpha(
        samples, (samples.levels != np.array(key, np.uint16)).any(axis=2, keepdims=True)
    )


def _with_alpha(samples: Samples, is_seen: NDArray[np.bool_]) -> Samples:
    """The samples with alpha that is all or nothing."""
    alpha = np.where(is_seen, samples.full, 0).astype(samples.levels.dtype)
    return replace(samples, levels=np.concatenate([samples.levels, alpha], axis=2))


def _read_wide_grey_alpha(image: ImageFile.ImageFile) -> Samples:
    """PNG's grey and alpha of 16 bits: the four bytes of a pixel pass as 8-bit RGBA."""
    _repack(image, "RGBA")
    levels = np.ascontiguousarray(np.asarray(image)).view(">u2").astype(np.uint16)
    return Samples(levels=levels, full=65535)


def read_cmyk(image: Image.Image, *, is_wide: bool = False) -> Samples:
    """An image of mode CMYK in sRGB: by its profile, or approximately and with a note.

    Args:
        is_wide: whether it was stored with 16 bits.
    """
    notes = ("16-bit CMYK was read at 8 bits",) if is_wide else ()
    icc = image.info.get("icc_profile")
    if icc and profile_space(icc) == "CMYK":
        try:
            levels = _to_srgb(image, ImageCms.ImageCmsProfile(io.BytesIO(icc)))
            return Samples(levels=levels, is_srgb=True, notes=notes)
        except (ImageCms.PyCMSError, OSError):
            notes = (*notes, "its CMYK profile is damaged")
    image.load()
    notes = (*notes, "CMYK without a usable profile: the colours are approximate")
    return Samples(levels=np.asarray(image.convert("RGB")), is_srgb=True, notes=notes)


def _to_srgb(image: Image.Image, profile: Any) -> NDArray[np.uint8]:
    image.load()
    converted = ImageCms.profileToProfile(
        image,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None  # only the in-place form returns None
    return np.asarray(converted)


def _read_bytes(image: ImageFile.ImageFile, rawmode: str) -> Samples:
    """Everything of 8 bits or fewer: grey, palette, RGB, with or without transparency."""
    image.load()
    if image.mode in ("1", "L"):
        return _read_grey_bytes(image, rawmode)
    opaque = "L" if image.mode in _GREY_MODES else "RGB"
    target = opaque + "A" if image.has_transparency_data else opaque
    return Samples(levels=np.atleast_3d(np.asarray(image.convert(target))))


def _read_grey_bytes(image: ImageFile.ImageFile, rawmode: str) -> Samples:
    samples = Samples(levels=np.asarray(image.convert("L"))[:, :, None])
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return samples
    # Pillow scales grey of fewer bits to 8, but not always the level that tRNS names.
    scaled = 255 * bool(key) if image.mode == "1" else key * {"L;2": 85, "L;4": 17}.get(rawmode, 1)
    return _keyed(samples, (scaled,))

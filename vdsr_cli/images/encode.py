"""Levels -> a file of each format, with what the format can hold and a note on what it cannot."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from vdsr_cli.errors import OutputError, UsageError
from vdsr_cli.images import xmp as packets
from vdsr_cli.images.atomic import atomic_write, writing_to
from vdsr_cli.images.extras import has_extra, install_hint
from vdsr_cli.images.gif import write_gif
from vdsr_cli.images.heif import write_heif
from vdsr_cli.images.jpeg_xl import write_jxl
from vdsr_cli.images.metadata import profile_space, sized_exif, with_dpi, without_orientation
from vdsr_cli.images.output_spec import Frame
from vdsr_cli.images.picture import Metadata
from vdsr_cli.images.png import PngCoder, write_png
from vdsr_cli.images.png_chunks import TEXTS, text_keyword
from vdsr_cli.images.segments import SegmentCoder
from vdsr_cli.images.tiff import TiffCoder, write_tiff
from vdsr_cli.paths import output_format

_JPEG_SEGMENT_BYTES: Final = 65_500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """The capabilities of a format.

    Attributes:
        channels: the counts it takes, of 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        bits: a sample, at most.
        codec: by which Pillow tells whether it was built with the format.
        has_dpi: whether the resolution has a place beside EXIF.
        extra: of this package, which writes it in Pillow's place.
    """

    name: str
    channels: tuple[int, ...]
    longest_px: int
    bits: int = 8
    has_profile: bool = True
    has_metadata: bool = True
    has_exif: bool = True
    has_dpi: bool = False
    has_iptc: bool = False
    has_comment: bool = False
    has_chunks: bool = False
    has_frames: bool = False
    has_pages: bool = False
    codec: str | None = None
    extra: str | None = None


_FORMATS: Final = {
    "png": _Format(
        name="PNG",
        channels=(1, 2, 3, 4),
        longest_px=2**31 - 1,
        bits=16,
        has_dpi=True,
        has_iptc=True,
        has_comment=True,
        has_chunks=True,
        has_frames=True,
    ),
    "tiff": _Format(
        name="TIFF",
        channels=(1, 2, 3, 4),
        longest_px=2**31 - 1,
        bits=16,
        has_dpi=True,
        has_iptc=True,
        has_pages=True,
    ),
    "jpg": _Format(
        name="JPEG",
        channels=(1, 3),
        longest_px=65_500,
        has_dpi=True,
        has_iptc=True,
        has_comment=True,
        codec="jpg",
    ),
    "webp": _Format(name="WebP", channels=(3, 4), longest_px=16_383, has_frames=True, codec="webp"),
    "avif": _Format(name="AVIF", channels=(1, 3, 4), longest_px=65_536, codec="avif"),
    "bmp": _Format(
        name="BMP", channels=(1, 3), longest_px=2**31 - 1, has_profile=False, has_metadata=False
    ),
    "gif": _Format(
        name="GIF",
        channels=(3, 4),
        longest_px=65_535,
        has_profile=False,
        has_exif=False,
        has_comment=True,
        has_frames=True,
    ),
    "heif": _Format(name="HEIF", channels=(1, 3, 4), longest_px=16_384, bits=10, extra="heif"),
    "jxl": _Format(
        name="JPEG XL", channels=(1, 2, 3, 4), longest_px=2**30, has_profile=False, extra="jxl"
    ),
}

_WRITERS: Final[dict[str, Callable[[BinaryIO, NDArray[Any], Metadata, int], None]]] = {
    "HEIF": write_heif,
    "JPEG XL": write_jxl,
    "GIF": write_gif,
}
_CODERS: Final[dict[str, Callable[..., SegmentCoder]]] = {"png": PngCoder, "tiff": TiffCoder}


def save_levels(
    path: Path,
    levels: NDArray[Any],
    *,
    like: Metadata | None = None,
    format: str | None = None,
    quality: int = 95,
    replace: bool = True,
) -> tuple[str, ...]:
    """Write a picture to a file, whole or not at all.

    Args:
        path: the file; missing folders are made.
        format: a key of ``paths.OUTPUT_SUFFIXES``' values; None for the path's extension.

    Returns:
        Notes on what the format could not hold, one line each.

    Raises:
        OutputError: the file cannot be written, or not in this format.
        UsageError: no format is given and the extension names none.
    """
    chosen = format or output_format(path)
    with atomic_write(path, replace=replace) as stream:
        return encode_levels(
            stream, levels, format=chosen, like=like, quality=quality, name=str(path)
        )


def encode_levels(
    stream: BinaryIO,
    levels: NDArray[Any],
    *,
    format: str,
    like: Metadata | None = None,
    quality: int = 95,
    name: str = "standard output",
) -> tuple[str, ...]:
    """Write a picture to a stream, which need not seek.

    Sixteen bits become eight by rounding, alpha is laid on white and grey becomes RGB where the
    format has no room for them.

    Args:
        levels: (H, W, c) uint8 or uint16, not premultiplied; c = 1 grey, 2 with alpha, 3 RGB,
            4 with alpha.
        format: png, jpg, webp, tiff, avif, bmp, gif, heif or jxl.
        quality: 1 to 100, for JPEG, WebP and JPEG XL (of which 100 is lossless), AVIF and HEIF.
        name: what errors call the output.

    Returns:
        Notes on what the format could not hold, one line each.

    Raises:
        OutputError: the stream fails, or the picture is too large for the format.
        UsageError: an unknown format.
    """
    if format not in _FORMATS:
        raise UsageError(
            f"{format} is no format that can be written", hint=f"use one of {', '.join(_FORMATS)}"
        )
    spec = _FORMATS[format]
    refuse_impossible(format, levels.shape[0], levels.shape[1], name=name)
    fitted, metadata, notes = fit(levels, like or Metadata(), format)
    with writing_to(name):
        if spec.name == "TIFF":
            write_tiff(stream, fitted, metadata)
        elif spec.name == "PNG":
            write_png(stream, fitted, metadata)
        else:
            stream.write(_encoded(fitted, metadata, spec, quality, name))
        stream.flush()
    return notes


def fit(
    levels: NDArray[Any], like: Metadata, format: str
) -> tuple[NDArray[Any], Metadata, tuple[str, ...]]:
    """Levels (H, W, c) and metadata as a format holds them, and notes on what it does not."""
    spec = _FORMATS[format]
    notes: list[str] = []
    fitted = _fitted(levels, spec, notes)
    metadata = _fitted_metadata(like, fitted.shape, spec, notes)
    return fitted, metadata, tuple(notes)


def is_segmented(format: str) -> bool:
    """Whether a picture of this format can be written while its rows arrive."""
    return format in _CODERS


def fit_levels(levels: NDArray[Any], format: str) -> NDArray[Any]:
    """Rows (rows, W, c) as a segmented format holds them; it holds all that they say."""
    return _fitted(levels, _FORMATS[format], [])


def open_coder(format: str, frame: Frame) -> tuple[SegmentCoder, tuple[str, ...]]:
    """The coder for the rows of a picture, made to fit, in a segmented format.

    Returns:
        The coder, and notes on what of the metadata the format could not hold.
    """
    shape, dtype, metadata, notes = fit_frame(frame, format)
    return _CODERS[format](shape, dtype, metadata), notes


def fit_frame(
    frame: Frame, format: str
) -> tuple[tuple[int, int, int], np.dtype[Any], Metadata, tuple[str, ...]]:
    """Shape and type of the levels of a picture and its metadata as a format holds them, before
    there are any, and notes on what of the metadata it does not."""
    spec = _FORMATS[format]
    pixel = _fitted(np.zeros((1, 1, frame.shape[2]), frame.dtype), spec, [])
    shape = frame.height, frame.width, pixel.shape[2]
    notes: list[str] = []
    metadata = _fitted_metadata(frame.like, shape, spec, notes)
    return shape, pixel.dtype, metadata, tuple(notes)


def refuse_several(format: str, *, is_animation: bool, name: str) -> None:
    """Refuses a format that holds one picture for an animation, or for pages.

    Raises:
        OutputError: ``name`` is what the message calls the output.
    """
    spec = _FORMATS[format]
    if not (spec.has_frames if is_animation else spec.has_pages):
        raise OutputError(
            f"{name}: {spec.name} holds {'no animation' if is_animation else 'one page alone'}",
            hint=f"--format {'gif, webp or png' if is_animation else 'tiff'}",
        )


def refuse_impossible(format: str, height: int, width: int, *, name: str) -> None:
    """Refuses a size that a format cannot hold, or a format that this Pillow cannot write.

    Raises:
        OutputError: either; ``name`` is what the message calls the output.
    """
    spec = _FORMATS[format]
    if spec.codec is not None and not features.check(spec.codec):
        raise OutputError(
            f"{name}: this Pillow was built without {spec.name}",
            hint="pip install --upgrade pillow, or --format png",
        )
    if spec.extra is not None and not has_extra(spec.extra):
        raise OutputError(
            f"{name}: {spec.name} is written by an extra", hint=install_hint(spec.extra)
        )
    if max(height, width) > spec.longest_px:
        raise OutputError(
            f"{name}: {width}x{height} pixels are too many for {spec.name}, "
            f"which ends at {spec.longest_px}",
            hint="--format png",
        )


def _fitted(levels: NDArray[Any], spec: _Format, notes: list[str]) -> NDArray[Any]:
    """Reduce levels to what a format holds, noting what is lost."""
    if levels.dtype == np.uint16 and spec.bits < 16:
        notes.append(f"{spec.name} holds {spec.bits} bits a sample: the 16 bits were rounded")
        levels = to_8_bits(levels) if spec.bits == 8 else levels
    if spec.name == "GIF":
        notes.append("GIF holds 255 colours: --format webp or png keeps all")
        alpha = levels[..., -1]
        if levels.shape[2] in (2, 4) and bool(((alpha > 0) & (alpha < 255)).any()):
            notes.append("GIF knows no half transparency: half and more is opaque")
    channels = levels.shape[2]
    if channels not in spec.channels and channels in (2, 4) and 4 not in spec.channels:
        notes.append(f"{spec.name} holds no transparency: the picture was laid on white")
        levels = flattened(levels)
    if levels.shape[2] not in spec.channels:
        levels = levels[:, :, [0, 0, 0, 1][: levels.shape[2] + 2]]
    return np.ascontiguousarray(levels)


def to_8_bits(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """uint16 -> uint8 to the nearest level (no value lies half-way); uint8 as it is."""
    if levels.dtype == np.uint8:
        return levels
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def flattened(levels: NDArray[Any]) -> NDArray[Any]:
    """Lay (H, W, 2 or 4) on white: (H, W, 1 or 3). Opaque levels come back as they are."""
    if levels.shape[2] in (1, 3):
        return levels
    full = int(np.iinfo(levels.dtype).max)
    alpha = levels[:, :, -1:].astype(np.uint32)
    mixed = levels[:, :, :-1] * alpha + full * (full - alpha)
    return ((mixed + full // 2) // full).astype(levels.dtype)


def _fitted_metadata(
    like: Metadata, shape: tuple[int, ...], spec: _Format, notes: list[str]
) -> Metadata:
    """The metadata that a format holds beside levels (H, W, c), its EXIF with their dimensions."""
    if not spec.has_metadata:
        blocks = like.icc_profile, like.exif, like.xmp, like.photoshop, like.comment
        if any(blocks) or like.png_chunks:
            notes.append(f"{spec.name} holds no metadata: the colours may look different")
        return Metadata(dpi=like.dpi)
    like = _with_room(like, spec, notes)
    height, width, channels = shape
    if like.icc_profile and not spec.has_profile:
        notes.append(f"{spec.name} is written without a profile: the colours may look different")
        like = replace(like, icc_profile=None)
    if like.icc_profile and profile_space(like.icc_profile) != ("grey" if channels < 3 else "RGB"):
        space = profile_space(like.icc_profile)
        notes.append(f"the {space} profile does not fit {spec.name} and was left out")
        like = replace(like, icc_profile=None)
    if like.dpi is not None and spec.has_exif and not spec.has_dpi:
        like = replace(like, exif=with_dpi(like.exif, like.dpi))
    if like.exif is not None:
        exif = sized_exif(like.exif, width=width, height=height, like=like)
        # Pillow would put a block with an orientation together anew for AVIF.
        like = replace(like, exif=without_orientation(exif) if spec.name == "AVIF" else exif)
    if like.xmp is not None:
        like = replace(like, xmp=packets.set_size(like.xmp, width, height, like.size))
    if spec.name == "JPEG":
        like = _shortened(like, notes)
    return like


def _with_room(like: Metadata, spec: _Format, notes: list[str]) -> Metadata:
    """The metadata without what a format has no place for."""
    texts = [chunk for chunk in like.png_chunks if chunk[0] in TEXTS]
    if texts and not spec.has_chunks:
        names = ", ".join(dict.fromkeys(map(text_keyword, texts)))
        notes.append(f"{spec.name} holds no PNG text: {names} was left out")
    lost: dict[str, Any] = {}
    for block, name, is_held in (
        ("comment", "comment", spec.has_comment),
        ("exif", "EXIF", spec.has_exif),
        ("dpi", "resolution", spec.has_exif or spec.has_dpi),
        ("photoshop", "IPTC", spec.has_iptc),
    ):
        if getattr(like, block) is not None and not is_held:
            notes.append(f"{spec.name} holds no {name}: it was left out")
            lost[block] = None
    if like.cicp is not None and not like.cicp[3] and not spec.has_chunks:
        notes.append(f"{spec.name} holds no narrow-range RGB: the colours will look different")
    if not spec.has_chunks:
        lost |= {"png_chunks": (), "cicp": None}
    return replace(like, **lost)


def _shortened(like: Metadata, notes: list[str]) -> Metadata:
    """The metadata without what a segment of a JPEG has no room for."""
    lost: dict[str, Any] = {}
    for block, name in (
        ("exif", "EXIF block"),
        ("xmp", "XMP packet"),
        ("photoshop", "IPTC block"),
        ("comment", "comment"),
    ):
        if len(getattr(like, block) or b"") > _JPEG_SEGMENT_BYTES:
            notes.append(f"the {name} is too long for JPEG and was left out")
            lost[block] = None
    return replace(like, **lost)


def _encoded(
    levels: NDArray[Any], metadata: Metadata, spec: _Format, quality: int, name: str
) -> memoryview:
    """A picture as Pillow or an extra's package writes it."""
    write = _WRITERS.get(spec.name, partial(_write_by_pillow, spec))
    encoded = BytesIO()
    try:
        write(encoded, levels, metadata, quality)
    except (OSError, RuntimeError, ValueError, SystemError) as error:
        raise OutputError(f"{name}: cannot be encoded as {spec.name}: {error}") from error
    return encoded.getbuffer()


def _write_by_pillow(
    spec: _Format, stream: BinaryIO, levels: NDArray[np.uint8], metadata: Metadata, quality: int
) -> None:
    image = Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)
    options = _metadata_options(metadata) | coding_options(spec.name, quality)
    image.save(stream, spec.name, **options)


def _metadata_options(metadata: Metadata) -> dict[str, Any]:
    blocks: dict[str, Any] = {
        "icc_profile": metadata.icc_profile,
        "exif": metadata.exif,
        "dpi": metadata.dpi,
        "xmp": metadata.xmp,
        "comment": metadata.comment,
        "extra": metadata.photoshop and _resources_segment(metadata.photoshop),
    }
    return {key: block for key, block in blocks.items() if block is not None}


def _resources_segment(resources: bytes) -> bytes:
    """Photoshop's resources as a segment of a JPEG."""
    body = b"Photoshop 3.0\0" + resources
    return b"\xff\xed" + (len(body) + 2).to_bytes(2) + body


def coding_options(name: str, quality: int) -> dict[str, Any]:
    """Pillow's options for a format, by its name there."""
    if name == "JPEG":
        return {"quality": quality, "subsampling": 0 if quality >= 90 else 2, "optimize": True}
    if name == "WebP":
        return {"quality": quality, "lossless": quality >= 100, "method": 4}
    if name == "AVIF":
        return {"quality": quality, "subsampling": "4:4:4" if quality >= 90 else "4:2:0"}
    return {}

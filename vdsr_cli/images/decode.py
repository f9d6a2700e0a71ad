"""Reading pictures: which kind a file is, whether it may be read, and its pixels."""

import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError, features
from torch import Tensor

from vdsr_cli.config import MAX_PIXELS, Truncated
from vdsr_cli.errors import InputError, UnexpectedError
from vdsr_cli.formats import Kind, kind_of
from vdsr_cli.images.bitfields import has_bitfields, read_bitfields
from vdsr_cli.images.extras import (
    SPLIT_PAGES,
    Decoded,
    camera_raw,
    check_size,
    has_extra,
    install_hint,
    too_large,
)
from vdsr_cli.images.heif import read_heif
from vdsr_cli.images.jpeg_xl import read_jxl
from vdsr_cli.images.libtiff import libtiff_complaints
from vdsr_cli.images.metadata import carried, orientation_of, stored_in
from vdsr_cli.images.picture import Picture
from vdsr_cli.images.planes import has_planes, read_planes
from vdsr_cli.images.png_chunks import split_png
from vdsr_cli.images.rare_tiff import read_rare_tiff, why_rare
from vdsr_cli.images.samples import Reopen, Samples, read_samples
from vdsr_cli.images.stored import Stored

DECODE_ERRORS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""Errors that Pillow raises on damaged files."""
_EXTRA_READERS: Final = {"heif": read_heif, "jxl": read_jxl, "tiff": read_rare_tiff}
_HEADER_BYTES: Final = 4096
_MOST_PIXEL_BYTES: Final = 16
_PIECE_BYTES: Final = 1 << 24
_ROOM_BYTES: Final = 1 << 28  # for profiles, thumbnails, a second picture
_CODECS: Final = {"JPEG": "jpg", "WebP": "webp", "AVIF": "avif"}
_TIFF_SUBFILE: Final = 254
_DNG_VERSION: Final = 50706

# Pillow's warning filters and its limits are global to the process, so reading takes turns.
_PILLOW_TURN: Final = threading.Lock()
_UNHEARD: Final = logging.NullHandler()  # for Pillow's log, else the last resort is stderr


class _UnknownKindError(InputError):
    """Pillow makes nothing of a file, though it begins as its format does."""


def read_picture(
    source: Path | BinaryIO,
    *,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
    truncated: Truncated = Truncated.refuse,
) -> Picture:
    """Read a picture: turned upright, at its full depth, premultiplied by alpha.

    Args:
        source: a path, of a pipe too, or an open binary stream, which is read to its end.
        max_pixels: the most pixels, told from the header before anything is decoded.
        name: what messages call the source; None for the path or "standard input".
        truncated: whether the rows that there are of a file that ends too soon are kept.

    Returns:
        rgb (1, 3, h, w) and alpha (1, 1, h, w) or None, float32 in [0, 1], with the metadata and
        notes on whatever could not be taken over exactly. Colours stay in the space of the
        picture's ICC profile, but for CMYK and LAB, which become sRGB. Alpha that is opaque
        throughout is left out.

    Raises:
        InputError: one line, with the name, on why it cannot be read.
        UnexpectedError: something else went wrong, of which nothing is known.
    """
    with reading(name or name_of(source)):
        if not isinstance(source, Path):
            return read_opened(open_source(source, max_pixels), max_pixels, truncated)
        with source.open("rb") as stream:
            return read_opened(open_source(stream, max_pixels), max_pixels, truncated)


def name_of(source: Path | BinaryIO) -> str:
    """The name by which messages call a source."""
    return str(source) if isinstance(source, Path) else "standard input"


@contextmanager
def reading(called: str) -> Iterator[None]:
    """Turns whatever goes wrong while a picture is read into one line with its name.

    Raises:
        InputError: it cannot be read.
        UnexpectedError: something else went wrong, of which nothing is known.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{called}: {error}", hint=error.hint) from error
    except OSError as error:
        reason = _reason(error)
        hint = None
        if isinstance(error, FileNotFoundError):
            if os.path.islink(called):
                reason = "it is a link to a file that is not there"
            else:
                hint = _nearest(Path(called))
        raise InputError(f"{called}: cannot be read: {reason}", hint=hint) from error
    except MemoryError as error:
        raise InputError(f"{called}: there is not enough memory to decode it") from error
    except Exception as error:  # a picture never takes others down with it
        raise UnexpectedError(called, error) from error


def _nearest(missing: Path) -> str | None:
    """A hint with the file beside a missing one whose name is nearest to its own, if any is."""
    try:
        beside = os.listdir(missing.parent)
    except OSError:
        return None
    close = get_close_matches(missing.name, beside, n=1)
    return f"did you mean {missing.with_name(close[0])}?" if close else None


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, PermissionError):
        return "permission denied"
    return error.strerror or str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A file whose kind is known.

    Attributes:
        stream: it, from its start to its end; of a PNG the pixels alone.
        stored: what a PNG says beside its pixels.
    """

    stream: BinaryIO
    kind: Kind
    head: bytes
    stored: Stored | None = None


def open_source(stream: BinaryIO, max_pixels: int) -> Opened:
    """Looks what a stream is; what cannot seek is read to its end. Raises InputError."""
    head = _first_bytes(stream)
    kind = _identify(head)
    if not stream.seekable() or kind.name == "PNG":
        stream = BytesIO(head + _rest(stream, max_pixels))
    if kind.name != "PNG":
        return Opened(stream=stream, kind=kind, head=head)
    pixels, stored = split_png(stream.read())
    return Opened(stream=BytesIO(pixels), kind=kind, head=head, stored=stored)


def read_opened(opened: Opened, max_pixels: int, truncated: Truncated) -> Picture:
    """The one picture of a file. Raises InputError, and what only :func:`reading` knows."""
    stream, kind, head, stored = opened.stream, opened.kind, opened.head, opened.stored
    with pillow_at_rest(max_pixels) as complaints:
        if kind.name == "BMP" and has_bitfields(head):
            decoded = _decode_bitfields(stream, kind, max_pixels)
        else:
            decoded = _decode(stream, kind, max_pixels, truncated)
        image, samples = decoded.image, decoded.samples
        stored = stored or stored_in(image, stream, head)
    notes = [*depth_notes(head, kind), *decoded.notes]
    if complaints:
        notes.append(f"the file is damaged ({complaints[0]}): parts of the picture may be wrong")
    rgb, alpha = to_tensors(samples, 1 if decoded.is_upright else orientation_of(stored))
    metadata, more = carried(
        stored,
        size=(rgb.shape[3], rgb.shape[2]),
        bit_depth=8 if samples.full == 255 else 16,
        is_grey=samples.levels.shape[2] < 3,
        is_srgb=samples.is_srgb,
        source_format=(image.format or "").lower() or None,
    )
    return Picture(
        rgb=rgb,
        alpha=alpha,
        metadata=metadata,
        notes=(*samples.notes, *notes, *more),
        jpeg_table=_luma_table(image),
    )


def _decode(stream: BinaryIO, kind: Kind, max_pixels: int, truncated: Truncated) -> Decoded:
    if kind.extra is not None:
        return _decode_by_extra(stream, kind, kind.extra, max_pixels)
    try:
        image = open_image(stream, kind, max_pixels)
    except _UnknownKindError:
        if kind.name != "TIFF" or not has_extra("tiff"):
            raise
        return _decode_by_extra(stream, kind, "tiff", max_pixels)
    if has_planes(image):
        return _decode_planes(image, stream, partial(open_image, kind=kind, max_pixels=max_pixels))
    reason = why_rare(image)
    if reason is not None:
        if not has_extra("tiff"):
            raise InputError(f"{reason}, which cannot be read", hint=install_hint("tiff"))
        return _decode_by_extra(stream, kind, "tiff", max_pixels)
    reopen = partial(open_image, stream, kind, max_pixels)
    try:
        notes = _refuse_several(image)
        samples = read_samples(image, reopen)
    except DECODE_ERRORS as error:
        if truncated is Truncated.refuse or not ends_too_soon(error):
            raise damaged(kind, error, is_begun=True) from error
        samples = _read_cut_off(kind, reopen)
        notes = ["the file is truncated: what is missing is blank"]
    is_upright = kind.name == "TIFF"  # which Pillow turns by itself
    return Decoded(image=image, samples=samples, is_upright=is_upright, notes=tuple(notes))


def _decode_planes(
    image: ImageFile.ImageFile, stream: BinaryIO, open_file: Callable[..., ImageFile.ImageFile]
) -> Decoded:
    try:
        notes = _refuse_several(image)
        samples = read_planes(image, stream, open_file)
    except DECODE_ERRORS as error:
        raise InputError(f"the TIFF file is damaged: {error}") from error
    return Decoded(image=image, samples=samples, is_upright=True, notes=tuple(notes))


def _decode_bitfields(stream: BinaryIO, kind: Kind, max_pixels: int) -> Decoded:
    try:
        return read_bitfields(stream, max_pixels)
    except DECODE_ERRORS as error:
        raise damaged(kind, error) from error


def _decode_by_extra(stream: BinaryIO, kind: Kind, extra: str, max_pixels: int) -> Decoded:
    if not has_extra(extra):
        raise InputError(f"{kind.name} files are read by an extra", hint=install_hint(extra))
    stream.seek(0)
    try:
        return _EXTRA_READERS[extra](stream, max_pixels)
    except DECODE_ERRORS as error:
        raise damaged(kind, error) from error


def _first_bytes(stream: BinaryIO) -> bytes:
    """The header; a pipe may give it in pieces."""
    head = b""
    while len(head) < _HEADER_BYTES and (piece := stream.read(_HEADER_BYTES - len(head))):
        head += piece
    return head


def _rest(stream: BinaryIO, max_pixels: int) -> bytes:
    """The bytes that follow the header, as long as that may be of a picture of so many pixels."""
    most = max_pixels * _MOST_PIXEL_BYTES + _ROOM_BYTES
    rest = bytearray()
    # Asked for all at once, a stream makes room for all, however short it is.
    while piece := stream.read(_PIECE_BYTES):
        rest += piece
        if len(rest) > most:
            raise InputError(f"it is longer than {most:,} bytes", hint="--max-pixels allows more")
    return bytes(rest)


def _read_cut_off(kind: Kind, reopen: Reopen) -> Samples:
    """The samples that there are, on black. Called while Pillow is at rest."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        return read_samples(reopen(), reopen)
    except DECODE_ERRORS as error:
        raise damaged(kind, error) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _luma_table(image: Image.Image) -> tuple[int, ...] | None:
    """The quantisation steps of a JPEG's luma, whose table is the first one."""
    tables = getattr(image, "quantization", None)
    return tuple(tables[min(tables)]) if tables else None


def _identify(head: bytes) -> Kind:
    if not head:
        raise InputError("the file is empty")
    kind = kind_of(head)
    if kind is None:
        raise InputError("it is not a picture of a known format")
    if kind.hint is not None:
        raise InputError(f"{kind.name} files cannot be read", hint=kind.hint)
    if kind.name in _CODECS and not features.check(_CODECS[kind.name]):
        raise InputError(
            f"this Pillow was built without {kind.name}", hint="pip install --upgrade pillow"
        )
    return kind


@contextmanager
def pillow_at_rest(max_pixels: int) -> Iterator[list[str]]:
    """Have Pillow keep its warnings to itself, its size limit at ours and refuse what is cut off;
    yield what its libtiff complains of.

    The one place that touches Pillow's global state: decoders check ``MAX_IMAGE_PIXELS``
    themselves (and refuse twice its value) before they allocate, so ours must reach them.
    """
    with _PILLOW_TURN, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        logging.getLogger("PIL").addHandler(_UNHEARD)
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            with libtiff_complaints() as complaints:
                yield complaints
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def open_image(stream: BinaryIO, kind: Kind, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header alone and check the size."""
    stream.seek(0)
    try:
        image = Image.open(stream, formats=(kind.name.upper(),))
    except Image.DecompressionBombError as error:
        raise too_large(f"more than {max_pixels:,}") from error
    except UnidentifiedImageError as error:
        is_helped = kind.name == "TIFF" and not has_extra("tiff")
        raise _UnknownKindError(
            f"it is a damaged {kind.name} file or of a rare kind",
            hint=f"{install_hint('tiff')} reads more kinds"
            if is_helped
            else "open it in another program and save it as PNG",
        ) from error
    except DECODE_ERRORS as error:
        raise damaged(kind, error) from error
    check_size(image.width, image.height, max_pixels)
    return image


def ends_too_soon(error: Exception) -> bool:
    return "truncated" in str(error).lower() or isinstance(error, EOFError)


def damaged(kind: Kind, error: Exception, *, is_begun: bool = False) -> InputError:
    """The error for a file that ``error`` ended; ``is_begun`` where pixels of it may be kept."""
    if ends_too_soon(error):
        return InputError(
            f"the {kind.name} file is truncated: its end is missing",
            hint="vdsr upscale --truncated keep reads what there is" if is_begun else None,
        )
    text = " ".join(str(error).split()) or "it makes no sense"
    return InputError(f"the {kind.name} file is damaged: {text}")


def _refuse_several(image: ImageFile.ImageFile) -> list[str]:
    """Refuse animations, documents of several pages and camera raws; note a JPEG's companions."""
    count = getattr(image, "n_frames", 1)
    if image.format == "TIFF":
        _refuse_pages(image, count)
    elif image.format == "MPO":
        return [f"the first of {count} pictures in the file was read"] if count > 1 else []
    elif count > 1:
        raise InputError(
            f"it is animated, with {count} frames",
            hint="vdsr upscale takes it whole; for one: ffmpeg -i FILE frame_%05d.png",
        )
    return []


def _refuse_pages(image: ImageFile.ImageFile, count: int) -> None:
    tags: Any = getattr(image, "tag_v2", {})
    if _DNG_VERSION in tags or tags.get(_TIFF_SUBFILE, 0) & 1:
        raise camera_raw()
    pages = 1
    for index in range(1, count):
        image.seek(index)
        # Reduced copies of the picture are no pages of their own.
        pages += not image.tag_v2.get(_TIFF_SUBFILE, 0) & 1  # type: ignore[attr-defined]
    image.seek(0)
    if pages > 1:
        raise InputError(f"it has {pages} pages", hint=SPLIT_PAGES)


def depth_notes(head: bytes, kind: Kind) -> list[str]:
    """Pillow decodes AVIF to 8 bits; the configuration box tells of more."""
    box = head.find(b"av1C") if kind.name == "AVIF" else -1
    is_deep = box >= 0 and len(head) > box + 6 and bool(head[box + 6] & 0x40)
    return ["AVIF of more than 8 bits was read at 8 bits"] if is_deep else []


def to_tensors(samples: Samples, orientation: int) -> tuple[Tensor, Tensor | None]:
    """Levels (h, w, c) -> rgb (1, 3, h, w), premultiplied, and alpha (1, 1, h, w) or None."""
    planes = _upright(samples.levels, orientation).transpose(2, 0, 1)
    values = torch.from_numpy(planes.astype(np.float32, order="C")).unsqueeze(0).div_(samples.full)
    channels = values.shape[1] - samples.has_alpha
    rgb = values[:, :channels].expand(-1, 3, -1, -1).contiguous()
    alpha = values[:, channels:].contiguous() if samples.has_alpha else None
    if alpha is None or bool((alpha == 1).all()):
        return rgb, None
    return (torch.minimum(rgb, alpha) if samples.is_premultiplied else rgb * alpha), alpha


def _upright(levels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation, 1 to 8, on (h, w, c); 5 to 8 swap height and width."""
    if orientation in (5, 6, 7, 8):
        levels = levels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        levels = levels[::-1]
    if orientation in (2, 3, 6, 7):
        levels = levels[:, ::-1]
    return levels

"""Several pictures of one file, read one at a time: the frames of an animation, the pages of a
document.

Every one is decoded once when the file is opened, so that a damaged one is found before any work,
and what all of them need is known: whether they have alpha, whether they are grey.
"""

import hashlib
import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import torch
from PIL import Image, ImageFile

from vdsr_cli.config import MAX_PIXELS, Truncated
from vdsr_cli.errors import InputError
from vdsr_cli.formats import is_whole_gif, pages_of_tiff, tiff_header
from vdsr_cli.images.decode import (
    DECODE_ERRORS,
    Opened,
    damaged,
    depth_notes,
    name_of,
    open_image,
    open_source,
    pillow_at_rest,
    read_opened,
    read_picture,
    reading,
    to_tensors,
)
from vdsr_cli.images.extras import too_large
from vdsr_cli.images.metadata import carried, orientation_of, stored_in
from vdsr_cli.images.picture import Picture
from vdsr_cli.images.samples import Samples, read_frame

_MOST_PAGES: Final = 10_000
_FINEST_SECOND: Final = 65_535
"""The finest part of a second that an APNG tells, which Pillow reads as a float."""


class Shape(NamedTuple):
    """The shape of a picture before it is read."""

    height: int
    width: int
    has_alpha: bool

    def stand_in(self, like: Picture) -> Picture:
        """A picture of this shape without pixels of its own, for plans."""
        nothing = torch.zeros(())
        return Picture(
            rgb=nothing.expand(1, 3, self.height, self.width),
            alpha=nothing.expand(1, 1, self.height, self.width) if self.has_alpha else None,
            metadata=like.metadata,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """The pictures of a file, in their order, each read when it is asked for.

    Attributes:
        format: of the file, as ``paths.OUTPUT_SUFFIXES`` has it; None where it is not written.
        shapes: of the pictures; those of an animation are all the same.
        plays: how often an animation is played, 0 for ever; None for pages.
        durations: how long each frame is shown, in milliseconds; none for pages.
        notes: what was not read exactly as stored, of any of them.
        digest: gives the SHA-256 of the file, in hexadecimal.
    """

    format: str | None
    shapes: tuple[Shape, ...]
    plays: int | None = None
    durations: tuple[Fraction, ...] = ()
    notes: tuple[str, ...] = ()
    read: Callable[[int], Picture]
    digest: Callable[[], str]

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Picture:
        """One of them. Raises InputError."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.read(index)

    def __iter__(self) -> Iterator[Picture]:
        return map(self.__getitem__, range(len(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How inputs are read.

    Attributes:
        max_pixels: largest input, in pixels; of each picture of a file.
        truncated: what becomes of inputs that end too soon.
        strip_metadata: whether outputs carry no more than their profile.
    """

    max_pixels: int = MAX_PIXELS
    truncated: Truncated = Truncated.refuse
    strip_metadata: bool = False

    def read(self, source: Path | BinaryIO) -> Picture:
        """:func:`read_picture` with these options."""
        picture = read_picture(source, max_pixels=self.max_pixels, truncated=self.truncated)
        return self._as_wanted(picture)

    @contextmanager
    def open(self, source: Path | BinaryIO) -> Iterator[Picture | Series]:
        """:func:`open_pictures` with these options."""
        pictures = open_pictures(source, max_pixels=self.max_pixels, truncated=self.truncated)
        with pictures as opened:
            if isinstance(opened, Picture):
                yield self._as_wanted(opened)
            else:
                yield replace(opened, read=lambda index: self._as_wanted(opened[index]))

    def _as_wanted(self, picture: Picture) -> Picture:
        if not self.strip_metadata:
            return picture
        return replace(picture, metadata=picture.metadata.stripped())


@contextmanager
def open_pictures(
    source: Path | BinaryIO,
    *,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
    truncated: Truncated = Truncated.refuse,
) -> Iterator[Picture | Series]:
    """Opens a file of one picture, which is read, or of several, which are read while it is open.

    Of a file that ends too soon, the frames that there are may be kept. Otherwise as
    :func:`~vdsr_cli.images.decode.read_picture`.
    """
    called = name or name_of(source)
    with reading(called):
        stream = source.open("rb") if isinstance(source, Path) else source
    try:
        with reading(called):
            file = open_source(stream, max_pixels)
            opened = _series_of(file, max_pixels, truncated, called)
            if opened is None:
                opened = read_opened(file, max_pixels, truncated)
        yield opened
    finally:
        if stream is not source:
            stream.close()


def _series_of(
    file: Opened, max_pixels: int, truncated: Truncated, called: str
) -> Series | Picture | None:
    """The pictures of a file; None where it holds but one."""
    if file.kind.name == "TIFF":
        return _pages_of(file, max_pixels, truncated, called)
    if file.kind.name not in ("GIF", "PNG", "WebP", "AVIF"):
        return None
    with pillow_at_rest(max_pixels):
        image = _open_animation(file, max_pixels)
        try:
            count: int = getattr(image, "n_frames", 1)
        except DECODE_ERRORS:  # reading it will tell
            return None
    if count == 1:
        return None
    # The picture of a PNG that is for programs that do not play it may be no frame.
    first = int(bool(getattr(image, "default_image", False)))
    frames = _Frames(file, image, range(first, count), max_pixels)
    return frames.series(truncated, called)


def _digest(file: Opened) -> str:
    file.stream.seek(0)
    return hashlib.file_digest(file.stream, "sha256").hexdigest()  # type: ignore[arg-type]


# Animations.


def _open_animation(file: Opened, max_pixels: int) -> ImageFile.ImageFile:
    image = open_image(file.stream, file.kind, max_pixels)
    if file.kind.name == "WebP":
        # Where each frame is opaque, and none covers the whole, the header tells of no alpha.
        image.rawmode = image._mode = "RGBA"  # type: ignore[attr-defined]
    return image


class _Frames:
    """The frames of an open file, each as it is shown: laid on those before it."""

    def __init__(
        self, file: Opened, image: ImageFile.ImageFile, places: range, max_pixels: int
    ) -> None:
        self._file, self._image, self._places = file, image, places
        self._max_pixels = max_pixels
        self._size = image.height, image.width
        with pillow_at_rest(max_pixels):
            self._stored = file.stored or stored_in(image, file.stream, file.head)
        self._orientation = orientation_of(self._stored)

    def series(self, truncated: Truncated, called: str) -> Series:
        """Looks at all of them."""
        notes = depth_notes(self._file.head, self._file.kind)
        if self._file.kind.name == "PNG" and self._file.head[24] > 8:
            notes.append("an animated PNG of 16 bits was read at 8 bits")
        if self._places.start:
            notes.append("its still picture, which is none of its frames, was left out")
        if not self._is_whole():
            if truncated is Truncated.refuse:
                raise damaged(self._file.kind, EOFError(), is_begun=True)
            notes.append("the file is truncated: frames may be missing")
        durations, shape, is_grey = self._seen(truncated, notes)
        metadata, more = carried(
            self._stored,
            size=(shape.width, shape.height),
            bit_depth=8,
            is_grey=is_grey,
            is_srgb=False,
            source_format=(self._image.format or "").lower() or None,
        )

        def read(index: int) -> Picture:
            with reading(called):
                rgb, alpha = to_tensors(self._samples(index), self._orientation)
                if alpha is None and shape.has_alpha:
                    alpha = torch.ones_like(rgb[:, :1])
                return Picture(rgb=rgb, alpha=alpha, metadata=metadata)

        return Series(
            format=self._file.kind.format,
            shapes=(shape,) * len(durations),
            plays=self._plays(),
            durations=tuple(durations),
            notes=(*notes, *more),
            read=read,
            digest=partial(_digest, self._file),
        )

    def _seen(self, truncated: Truncated, notes: list[str]) -> tuple[list[Fraction], Shape, bool]:
        """The durations of the frames, their shape, and whether they are grey."""
        durations: list[Fraction] = []
        has_alpha, is_grey = False, True
        for index in range(len(self._places)):
            try:
                samples = self._samples(index)
            except InputError as error:
                if truncated is Truncated.refuse or not index or "truncated" not in str(error):
                    raise
                notes.append(f"the file is truncated: {index} of {len(self._places)} frames")
                break
            seconds = (self._image.info.get("duration") or 0) / 1000
            durations.append(1000 * Fraction(seconds).limit_denominator(_FINEST_SECOND))
            is_grey &= samples.levels.shape[2] < 3
            has_alpha |= samples.has_alpha and bool((samples.levels[..., -1] < 255).any())
        height, width = samples.levels.shape[:2]
        if self._orientation > 4:
            height, width = width, height
        return durations, Shape(height, width, has_alpha), is_grey

    def _is_whole(self) -> bool:
        if self._file.kind.name != "GIF":
            return True
        place = self._file.stream.tell()
        try:
            return is_whole_gif(self._file.stream)
        except (OSError, struct.error):
            return False
        finally:
            self._file.stream.seek(place)

    def _samples(self, index: int) -> Samples:
        try:
            with pillow_at_rest(self._max_pixels):
                if self._places[index] < self._image.tell():
                    # Pillow loses the palette of a PNG on its way back.
                    self._image = _open_animation(self._file, self._max_pixels)
                self._image.seek(self._places[index])
                samples = read_frame(self._image)
        except Image.DecompressionBombError as error:
            raise too_large(f"more than {self._max_pixels:,}") from error
        except DECODE_ERRORS as error:
            raise damaged(self._file.kind, error) from error
        # A frame of a GIF that reaches beyond its screen makes Pillow enlarge that.
        height, width = self._size
        return replace(samples, levels=samples.levels[:height, :width])

    def _plays(self) -> int:
        """A GIF says how often it is played again, or nothing."""
        loop = self._image.info.get("loop")
        if self._file.kind.name != "GIF":
            return int(loop or 0)
        return 1 if loop is None else int(loop) + 1 if loop else 0


# Pages.


def _pages_of(
    file: Opened, max_pixels: int, truncated: Truncated, called: str
) -> Series | Picture | None:
    try:
        places = _places_of(file)
    except (OSError, OverflowError, ValueError, struct.error):
        return None  # reading it will tell
    if len(places) < 2:
        return None

    def page(index: int) -> Picture:
        with reading(f"page {index + 1}"):
            alone = io.BufferedReader(_OnePage(file.stream, places[index]))
            return read_opened(replace(file, stream=alone), max_pixels, truncated)

    def read(index: int) -> Picture:
        with reading(called):
            return page(index)

    notes, shapes = [], []
    for index in range(len(places)):
        picture = page(index)
        shapes.append(Shape(picture.height, picture.width, picture.alpha is not None))
        notes += [f"page {index + 1}: {note}" for note in picture.notes]
    return Series(
        format="tiff",
        shapes=tuple(shapes),
        notes=tuple(notes),
        read=read,
        digest=partial(_digest, file),
    )


def _places_of(file: Opened) -> list[int]:
    places = []
    for place in pages_of_tiff(file.stream):
        places.append(place)
        if len(places) > _MOST_PAGES:
            raise InputError(f"it has more than {_MOST_PAGES:,} pages")
    # One that begins with a reduced copy is a camera's.
    return places if places and places[0] == tiff_header(file.stream)[2] else []


class _OnePage(io.RawIOBase):
    """A TIFF as a file of one of its pages: the first, and the last, for whoever reads it.

    Args:
        place: where the page's directory is.
    """

    def __init__(self, stream: BinaryIO, place: int) -> None:
        self._stream, self._at = stream, 0
        order, is_big, _ = tiff_header(stream)
        counted, where, entry, header = ("Q", "Q", 20, 8) if is_big else ("H", "I", 12, 4)
        stream.seek(place)
        head = struct.calcsize(counted)
        (count,) = struct.unpack(order + counted, stream.read(head))
        self._changed = {
            header: struct.pack(order + where, place),
            place + head + entry * count: bytes(struct.calcsize(where)),
        }

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset += self._stream.seek(0, io.SEEK_END)
        elif whence == io.SEEK_CUR:
            offset += self._at
        if offset < 0:
            raise ValueError(f"negative seek position {offset}")
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._stream.seek(self._at)
        data = bytearray(self._stream.read(len(buffer)))
        for place, new in self._changed.items():
            start, end = max(place, self._at), min(place + len(new), self._at + len(data))
            if start < end:
                data[start - self._at : end - self._at] = new[start - place : end - place]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

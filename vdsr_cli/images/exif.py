"""EXIF blocks, edited in place: what is not about the pixels keeps its bytes and its offset.

    Exif\\0\\0 | header | directory 0 | directories of Exif, GPS, interoperability | values
             | directory 1 and the thumbnail

Makers' notes hold offsets that only their makers know, and text comes in any encoding: a block
that is taken apart and put together again loses both. So orientation, resolution and what is
counted in pixels are set where they stand, and the thumbnail is cut off (Exif 2.32; TIFF 6.0,
section 2). A resolution that has no place there makes directory 0 anew, behind all else.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from vdsr_cli.images.directories import (
    FIELD_BYTES,
    KIND_BYTES,
    Directory,
    Value,
    byte_order,
    pack_directory,
)

PREFIX: Final = b"Exif\0\0"
"""The beginning of a block in a JPEG."""
EMPTY: Final = PREFIX + b"II*\0\x08\0\0\0" + bytes(6)
"""A block that says nothing."""

WIDTH, HEIGHT, ORIENTATION, X_RESOLUTION, Y_RESOLUTION = 256, 257, 274, 282, 283
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY = 0x8769, 0x8825, 0xA005
_THUMBNAIL_START, _THUMBNAIL_BYTES = 513, 514
_STRIP_STARTS, _STRIP_BYTES = 273, 279
_SHORT, _LONG, _RATIONAL, _DOUBLE = 3, 4, 5, 12
_MOST_LONG: Final = (1 << 32) - 1
_FINEST: Final = 1 << 16
_WIDTHS: Final = {EXIF_DIRECTORY: (0xA002, 0xA003), INTEROP_DIRECTORY: (0x1001, 0x1002)}
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS = 33550, 33922, 34264, 34735
_POLYNOMIALS: Final = 50844
GEO_TAGS: Final = (
    *(_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS, 34736, 34737),
    _POLYNOMIALS,
)
"""Tags that say where on the Earth the pixels are."""
_FOCAL_X, _FOCAL_Y = 0xA20E, 0xA20F
_SUBJECT_AREA, _SUBJECT_LOCATION = 0x9214, 0xA214
_RESOLUTION_UNIT, _INCH = 296, 2
_UNITS_AN_INCH: Final = {_INCH: 1.0, 3: 2.54}
_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2


@dataclass(frozen=True, slots=True)
class _Field:
    """One entry of a directory: where it stands, and where its value does."""

    tag: int
    kind: int
    count: int
    at: int
    start: int
    end: int


class ExifBlock:
    """A block that is being edited.

    Args:
        block: from ``Exif\\0\\0`` on, or from the TIFF header on.

    Raises:
        ValueError: it has no header, or its first directory is not inside it.
    """

    def __init__(self, block: bytes) -> None:
        while block.startswith(PREFIX):
            block = block[len(PREFIX) :]
        self._data = bytearray(block)
        self._order = byte_order(block)
        (self._first,) = self._unpack("I", 4)
        if block[2:4] not in (b"*\0", b"\0*") or self._first + 6 > len(block):
            raise ValueError("no EXIF block")

    def tobytes(self) -> bytes:
        """The block, from ``Exif\\0\\0`` on."""
        return PREFIX + bytes(self._data)

    @property
    def orientation(self) -> int | None:
        """The orientation, 1 to 8, or None where there is none that makes sense."""
        value = self._number(self._find(self._first, ORIENTATION))
        return value if value in range(1, 9) else None

    @property
    def dpi(self) -> tuple[float, float] | None:
        """The resolution in pixels an inch, or None where it names none."""
        unit = self._number(self._find(self._first, _RESOLUTION_UNIT)) or _INCH
        pairs = self._resolution
        if len(pairs) < 2 or unit not in _UNITS_AN_INCH or not all(pair[1] for pair in pairs):
            return None
        across, down = (_UNITS_AN_INCH[unit] * pair[0] / pair[1] for pair in pairs)
        return across, down

    @property
    def is_empty(self) -> bool:
        """Whether its first directory has no entries."""
        return not any(self._fields(self._first))

    @property
    def has_absurd_resolution(self) -> bool:
        """Whether its resolution is a fraction of more than 65535 or of nothing."""
        return any(pair[0] > 65535 * pair[1] for pair in self._resolution)

    @property
    def _resolution(self) -> list[tuple[int, ...]]:
        """Numerator and denominator of the resolution across and down, as far as they are told."""
        fields = [self._find(self._first, tag) for tag in (X_RESOLUTION, Y_RESOLUTION)]
        found = [f for f in fields if f is not None and f.kind == _RATIONAL and f.count == 1]
        return [self._unpack("II", field.start) for field in found]

    def set_upright(self, size: tuple[int, int]) -> None:
        """Sets the orientation to 1, and turns resolutions and subject with the pixels.

        Args:
            size: width and height of the picture, upright.
        """
        orientation = self.orientation or 1
        details = self._directory(EXIF_DIRECTORY)
        if orientation > 4:
            self._swap(self._first, X_RESOLUTION, Y_RESOLUTION)
            self._swap(details, _FOCAL_X, _FOCAL_Y)
        for field, (x, y, *extent) in self._subjects():
            if orientation > 4:
                x, y, extent = y, x, extent[::-1]
            if orientation in (2, 3, 6, 7):
                x = size[0] - 1 - x
            if orientation in (3, 4, 7, 8):
                y = size[1] - 1 - y
            self._set_shorts(field, (x, y, *extent))
        self._set(self._find(self._first, ORIENTATION), 1)

    def set_size(self, width: int, height: int) -> None:
        """Sets the dimensions, wherever the block names them, to those of the output, in pixels."""
        for tag, value in ((WIDTH, width), (HEIGHT, height)):
            self._set(self._find(self._first, tag), value)
        for directory, tags in _WIDTHS.items():
            for tag, value in zip(tags, (width, height), strict=True):
                self._set(self._find(self._directory(directory), tag), value)

    def set_dpi(self, dpi: tuple[float, float]) -> None:
        """Has it name a resolution in pixels an inch, where it names none.

        Only the first directory is another, behind all else.
        """
        if len(self._resolution) == 2:
            return
        directory: dict[int, Value | Directory | bytes] = dict(self.fields())
        for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), dpi, strict=True):
            parts = Fraction(value).limit_denominator(_FINEST).as_integer_ratio()
            directory[tag] = Value(_RATIONAL, 1, struct.pack(self._order + "II", *parts))
        directory[_RESOLUTION_UNIT] = Value(_SHORT, 1, struct.pack(self._order + "H", _INCH))
        self._data += bytes(len(self._data) % 2)
        self._first = len(self._data)
        self._data += pack_directory(self._order, directory, self._first, is_big=False)
        self._pack("I", 4, self._first)

    def scale_figures(self, across: float, down: float) -> None:
        """Has the sensor's pixels and the subject's place and size be larger by these factors
        (Exif 2.32, 4.6.5)."""
        details = self._directory(EXIF_DIRECTORY)
        for tag, factor in ((_FOCAL_X, across), (_FOCAL_Y, down)):
            field = self._find(details, tag)
            if field is not None and field.kind == _RATIONAL and field.count == 1:
                above, below = self._unpack("II", field.start)
                self._pack("II", field.start, *_scaled(above, below, factor))
        for field, values in self._subjects():
            # A diameter is one number for both axes.
            factors = (across, down, across, down)
            self._set_shorts(field, [v * f for v, f in zip(values, factors, strict=False)])

    def scale_map(self, across: float, down: float) -> None:
        """Has a GeoTIFF's pixels be smaller by these factors (GeoTIFF 1.1, 7.2 and B.6).

        Where its coordinates are of the centres of pixels, those of the first moves too.
        """
        shift = 0.5 if self._is_point() else 0.0
        factors = (across, down)
        scales = self._doubles(_PIXEL_SCALE)
        if scales:
            self._set_doubles(_PIXEL_SCALE, [s / f for s, f in zip(scales, factors, strict=False)])
        points = self._doubles(_TIE_POINTS)
        for first in range(0, len(points) - 5, 6):
            for axis, factor in enumerate(factors):
                points[first + axis] = (points[first + axis] + shift) * factor - shift
        self._set_doubles(_TIE_POINTS, points)
        matrix = self._doubles(_TRANSFORMATION)
        for row in range(0, len(matrix) - 3, 4) if len(matrix) == 16 else ():
            a, b = matrix[row] / across, matrix[row + 1] / down
            # A pixel (i, j) of the output was ((i + shift) / factor - shift, ...) of the input.
            matrix[row + 3] += shift * (a - matrix[row] + b - matrix[row + 1])
            matrix[row], matrix[row + 1] = a, b
        self._set_doubles(_TRANSFORMATION, matrix)
        polynomials = self._doubles(_POLYNOMIALS)
        for axis, factor in ((2, down), (3, across)) if len(polynomials) == 92 else ():
            # Its offset from the centre of the first pixel, and five further on its scale.
            polynomials[axis] = (polynomials[axis] + 0.5) * factor - 0.5
            polynomials[axis + 5] *= factor
        self._set_doubles(_POLYNOMIALS, polynomials)

    @property
    def is_map(self) -> bool:
        """Whether it says where on the Earth the pixels are."""
        tags = _PIXEL_SCALE, _TRANSFORMATION, _POLYNOMIALS
        return any(self._doubles(tag) for tag in tags)

    def drop(self, *tags: int) -> None:
        """Takes entries out of the first directory; those behind move up."""
        for tag in tags:
            field = self._find(self._first, tag)
            if field is None:
                continue
            (count,) = self._unpack("H", self._first)
            behind = min(self._first + 2 + FIELD_BYTES * count + 4, len(self._data))
            moved = self._data[field.at + FIELD_BYTES : behind]
            self._data[field.at : behind] = moved + bytes(behind - field.at - len(moved))
            self._pack("H", self._first, count - 1)

    def drop_thumbnail(self) -> None:
        """Cuts off the second directory and its picture; what stands behind them stays in place."""
        (count,) = self._unpack("H", self._first)
        link = self._first + 2 + FIELD_BYTES * count
        if link + 4 > len(self._data):
            return
        (second,) = self._unpack("I", link)
        self._pack("I", link, 0)
        kept = _joined(self._kept_ranges())
        dropped = _joined(r for r in self._thumbnail_ranges(second) if not _meets(kept, *r))
        for start, end in dropped:
            self._data[start:end] = bytes(end - start)
        for start, end in reversed(dropped):
            if end == len(self._data):
                del self._data[start:]

    def fields(self) -> Iterator[tuple[int, bytes]]:
        """Tag and bytes of every entry of the first directory, as they stand."""
        for field in self._fields(self._first):
            yield field.tag, bytes(self._data[field.at : field.at + FIELD_BYTES])

    def _thumbnail_ranges(self, second: int) -> Iterator[tuple[int, int]]:
        fields = list(self._fields(second))
        if fields:
            yield second, min(second + 2 + FIELD_BYTES * len(fields) + 4, len(self._data))
        values = {field.tag: field for field in fields}
        for field in fields:
            if field.start != field.at + 8:
                yield field.start, field.end
        for starts, sizes in (
            (_THUMBNAIL_START, _THUMBNAIL_BYTES),
            (_STRIP_STARTS, _STRIP_BYTES),
        ):
            start, size = self._number(values.get(starts)), self._number(values.get(sizes))
            if start and size is not None and start < len(self._data):
                yield start, min(start + size, len(self._data))

    def _kept_ranges(self) -> Iterator[tuple[int, int]]:
        """Where the header, the directories that stay and their values are."""
        yield 0, 8
        starts = [self._first, *map(self._directory, (EXIF_DIRECTORY, GPS_DIRECTORY))]
        for start in [*starts, self._directory(INTEROP_DIRECTORY)]:
            fields = list(self._fields(start))
            if fields and start is not None:
                yield start, start + 2 + FIELD_BYTES * len(fields) + 4
            yield from ((f.start, f.end) for f in fields if f.start != f.at + 8)

    def _directory(self, tag: int) -> int | None:
        """Where a directory below the first begins."""
        above = self._directory(EXIF_DIRECTORY) if tag == INTEROP_DIRECTORY else self._first
        return self._number(self._find(above, tag))

    def _find(self, directory: int | None, tag: int) -> _Field | None:
        return next((field for field in self._fields(directory) if field.tag == tag), None)

    def _fields(self, directory: int | None) -> Iterator[_Field]:
        """The entries of a directory that lie in the block, value and all."""
        if directory is None or not 8 <= directory <= len(self._data) - 2:
            return
        (count,) = self._unpack("H", directory)
        for at in range(directory + 2, directory + 2 + FIELD_BYTES * count, FIELD_BYTES):
            if at + FIELD_BYTES > len(self._data):
                return
            tag, kind, values = self._unpack("HHI", at)
            size = KIND_BYTES.get(kind, 0) * values
            start = at + 8 if size <= 4 else self._unpack("I", at + 8)[0]
            if start + size <= len(self._data):
                yield _Field(tag, kind, values, at, start, start + size)

    def _is_point(self) -> bool:
        field = self._find(self._first, _GEO_KEYS)
        if field is None or field.kind != _SHORT:
            return False
        keys = self._unpack(f"{field.count}H", field.start)
        rows = [keys[first : first + 4] for first in range(4, len(keys) - 3, 4)]
        return any(row[0] == _RASTER_TYPE and row[3] == _PIXEL_IS_POINT for row in rows)

    def _doubles(self, tag: int) -> list[float]:
        field = self._find(self._first, tag)
        if field is None or field.kind != _DOUBLE:
            return []
        return list(self._unpack(f"{field.count}d", field.start))

    def _set_doubles(self, tag: int, values: list[float]) -> None:
        field = self._find(self._first, tag)
        if field is not None and values:
            self._pack(f"{len(values)}d", field.start, *values)

    def _set_shorts(self, field: _Field, values: Iterable[float]) -> None:
        """Sets whole numbers, as near as 16 bits say them."""
        shorts = [max(0, min(round(value), 65535)) for value in values]
        self._pack(f"{field.count}H", field.start, *shorts)

    def _number(self, field: _Field | None) -> int | None:
        letter = {1: "B", _SHORT: "H", _LONG: "I", 13: "I"}.get(field.kind) if field else None
        if field is None or letter is None or field.count < 1:
            return None
        return int(self._unpack(letter, field.start)[0])

    def _set(self, field: _Field | None, value: int) -> None:
        if field is None:
            return
        kind = _SHORT if field.kind == _SHORT and value < 1 << 16 else _LONG
        self._pack("HI", field.at + 2, kind, 1)
        self._data[field.at + 8 : field.at + 12] = bytes(4)
        self._pack("H" if kind == _SHORT else "I", field.at + 8, value)

    def _swap(self, directory: int | None, first: int, second: int) -> None:
        """Exchanges the fractions of two tags."""
        across, down = self._find(directory, first), self._find(directory, second)
        if across and down and across.kind == down.kind == _RATIONAL:
            x, y = across.start, down.start
            self._data[x : x + 8], self._data[y : y + 8] = (
                self._data[y : y + 8],
                self._data[x : x + 8],
            )

    def _subjects(self) -> Iterator[tuple[_Field, tuple[int, ...]]]:
        """Where the subject is: x, y, and perhaps a diameter, or width and height."""
        details = self._directory(EXIF_DIRECTORY)
        for tag in (_SUBJECT_AREA, _SUBJECT_LOCATION):
            field = self._find(details, tag)
            if field is not None and field.kind == _SHORT and 2 <= field.count <= 4:
                yield field, self._unpack(f"{field.count}H", field.start)

    def _unpack(self, format: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self._order + format, self._data, at)
        except struct.error as error:
            raise ValueError("an EXIF block ends too soon") from error

    def _pack(self, format: str, at: int, *values: float) -> None:
        struct.pack_into(self._order + format, self._data, at, *values)


def _scaled(above: int, below: int, factor: float) -> tuple[int, int]:
    """A fraction of two numbers of 32 bits, multiplied; as it is where it is none, or too large."""
    if not above or not below:
        return above, below
    product = Fraction(above, below) * Fraction(factor)
    finest = min(_MOST_LONG, int(_MOST_LONG / product))
    return product.limit_denominator(finest).as_integer_ratio() if finest else (above, below)


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in their order, those that meet as one: a block may name the same bytes often."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def _meets(joined: list[tuple[int, int]], start: int, end: int) -> bool:
    """Whether a range shares bytes with any of those."""
    behind = bisect_left(joined, (end,))
    return behind > 0 and joined[behind - 1][1] > start

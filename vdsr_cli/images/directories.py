"""The directories of TIFF and EXIF as trees of values, whose bytes are never looked at
(TIFF 6.0, section 2; BigTIFF).

    header -> directory -> tag: kind, count, value ─┬─ 4 bytes or fewer (BigTIFF: 8), in place
                                                    └─ or where they are
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Final, Literal

FIELD_BYTES: Final = 12
"""Size of one entry of a directory; 20 in a BigTIFF."""

KIND_BYTES: Final = {
    **dict.fromkeys((1, 2, 6, 7), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
"""How many bytes a value of each kind takes."""

_POINTERS: Final = (0x8769, 0x8825, 0xA005)
"""Tags of directories: Exif, GPS, and interoperability below Exif."""
_RATIONALS: Final = (5, 10)
_LONG, _LONG8, _SLONG8, _IFD8 = 4, 16, 17, 18
_MOST_BYTES: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Value:
    """The value of an entry, in the byte order of its file."""

    kind: int
    count: int
    data: bytes


Directory = dict[int, "Value | Directory"]
ByteOrder = Literal["<", ">"]


def byte_order(header: bytes) -> ByteOrder:
    """``<`` or ``>``. Raises ValueError where the header is none of a TIFF."""
    if header[:2] == b"II":
        return "<"
    if header[:2] == b"MM":
        return ">"
    raise ValueError("no TIFF header")


def read_directory(stream: BinaryIO) -> tuple[ByteOrder, Directory]:
    """Byte order and first directory of a TIFF or BigTIFF, with the directories below it.

    Entries that do not lie in the file, or are absurdly long together, are left out, and so are
    second directories of one tag; nothing is decoded.

    Raises:
        ValueError: it has no header.
        OSError: of the stream.
    """
    stream.seek(0)
    header = stream.read(16)
    order = byte_order(header)
    is_big = struct.unpack_from(order + "H", header, 2)[0] == 43
    (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), header, 8 if is_big else 4)
    return order, _read(stream, order, start, depth=2, is_big=is_big)


def _read(stream: BinaryIO, order: str, start: int, *, depth: int, is_big: bool) -> Directory:
    entry, field, where = (20, "HHQ", "Q") if is_big else (FIELD_BYTES, "HHI", "I")
    head = struct.calcsize(order + field)
    try:
        stream.seek(start)
        (count,) = struct.unpack(order + "HQ"[is_big], stream.read(8 if is_big else 2))
    except (struct.error, OverflowError, ValueError):
        return {}
    table = stream.read(min(count, 1 << 16) * entry)
    found: Directory = {}
    room = _MOST_BYTES  # for entries may share the same bytes of the file
    for at in range(0, len(table) - entry + 1, entry):
        tag, kind, values = struct.unpack_from(order + field, table, at)
        size = KIND_BYTES.get(kind, 0) * values
        data = table[at + head : at + entry][:size]
        if size > entry - head:
            (offset,) = struct.unpack_from(order + where, table, at + head)
            data = _bytes_at(stream, offset, size) if size <= room else b""
            room -= len(data)
        if not size or len(data) != size:
            continue
        if tag in _POINTERS and values == 1 and size in (4, 8):
            below = int.from_bytes(data, "little" if order == "<" else "big")
            if depth and tag not in found:
                found[tag] = _read(stream, order, below, depth=depth - 1, is_big=is_big)
        else:
            found[tag] = Value(kind, values, data)
    return found


def _bytes_at(stream: BinaryIO, offset: int, size: int) -> bytes:
    try:
        stream.seek(offset)
        return stream.read(size)
    except (OverflowError, ValueError):
        return b""


def pack_directory(
    order: str,
    directory: Mapping[int, "Value | Directory | bytes"],
    at: int,
    *,
    is_big: bool,
    following: int = 0,
) -> bytes:
    """A directory and behind it what its entries point to.

    Args:
        order: ``<`` or ``>``, in which the values are.
        directory: values, directories below it, or entries as bytes, which stay as they are.
        at: where in the file it will stand.
        is_big: whether the file is a BigTIFF.
        following: where the next of its chain will stand; 0 for the last.
    """
    entry, field, where = (20, "HHQ", "Q") if is_big else (FIELD_BYTES, "HHI", "I")
    room = entry - struct.calcsize(order + field)
    counted = struct.pack(order + "HQ"[is_big], len(directory))
    behind = at + len(counted) + entry * len(directory) + room
    entries, values = bytearray(), bytearray()
    for tag, value in sorted(directory.items()):
        if isinstance(value, bytes):
            entries += value
            continue
        place = behind + len(values)
        if isinstance(value, dict):
            kind = _LONG8 if is_big else _LONG
            packed = pack_directory(order, value, place, is_big=is_big)
            entries += struct.pack(order + field + where, tag, kind, 1, place)
        else:
            packed = value.data
            entries += struct.pack(order + field, tag, value.kind, value.count)
            entries += (
                packed.ljust(room, b"\0")
                if len(packed) <= room
                else struct.pack(order + where, place)
            )
            packed = packed if len(packed) > room else b""
        values += packed + bytes(len(packed) % 2)
    return counted + entries + struct.pack(order + where, following) + values


def as_classic(directory: Directory, order: str) -> Directory:
    """The same tree in kinds that a TIFF has; what does not fit them is left out."""
    fitted: Directory = {}
    for tag, value in directory.items():
        if isinstance(value, dict):
            fitted[tag] = as_classic(value, order)
        elif value.kind not in (_LONG8, _SLONG8, _IFD8):
            fitted[tag] = value
        else:
            numbers = struct.unpack(f"{order}{value.count}Q", value.data)
            if all(number < 1 << 32 for number in numbers):
                packed = struct.pack(f"{order}{value.count}I", *numbers)
                fitted[tag] = Value(_LONG, value.count, packed)
    return fitted


def little_endian_directory(block: bytes) -> Directory:
    """The tree of a block, from its TIFF header on, with values in little-endian order."""
    order, directory = read_directory(BytesIO(block))
    return directory if order == "<" else _swapped(directory)


def _swapped(directory: Directory) -> Directory:
    return {
        tag: _swapped(value)
        if isinstance(value, dict)
        else Value(value.kind, value.count, _swapped_bytes(value))
        for tag, value in directory.items()
    }


def _swapped_bytes(value: Value) -> bytes:
    size = 4 if value.kind in _RATIONALS else KIND_BYTES[value.kind]
    words = [value.data[at : at + size] for at in range(0, len(value.data), size)]
    return b"".join(word[::-1] for word in words)

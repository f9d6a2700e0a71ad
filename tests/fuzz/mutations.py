"""Bytes that were a sound file once: what the fuzz tests feed to readers."""

import struct
import zlib
from collections.abc import Sequence
from random import Random

from hypothesis import strategies as st

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXTREMES = (0, 1, 2, 3, 7, 8, 16, 127, 128, 254, 255, 256, 4096, 32767, 32768, 65535, 65536)
EXTREMES += (2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def mutated(originals: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """A strategy of mutations of the originals by :func:`mutate`."""
    return st.randoms(use_true_random=False).map(lambda chance: mutate(chance, originals))


def mutate(chance: Random, originals: Sequence[bytes]) -> bytes:
    """One of the originals, changed in one to six places; the chunks of a PNG sum up again."""
    data = bytearray(chance.choice(originals))
    other = chance.choice(originals)
    for _ in range(chance.randint(1, 6)):
        _change(chance, data, other)
    if data.startswith(PNG_SIGNATURE) and chance.choice((False, True)):
        return with_checksums(bytes(data))
    return bytes(data)


def _change(chance: Random, data: bytearray, other: bytes) -> None:
    # Headers decide most: half of all changes are made there.
    last = max(0, len(data) - 1)
    at = chance.randint(0, chance.choice((min(last, 128), last)))
    kind = chance.choice(("byte", "field", "field", "cut", "end", "repeat", "splice"))
    length = chance.randint(1, 64)
    if kind == "byte":
        data[at : at + 1] = bytes([chance.randint(0, 255)])
    elif kind == "field":
        order, size = chance.choice("<>"), chance.choice("HI")
        value = chance.choice(EXTREMES) & (0xFFFF if size == "H" else 0xFFFFFFFF)
        field = struct.pack(order + size, value)
        data[at : at + len(field)] = field
    elif kind == "cut":
        del data[at : at + length]
    elif kind == "end":
        del data[at:]
    elif kind == "repeat":
        data[at:at] = data[at : at + length] * chance.randint(1, 20)
    else:
        start = chance.randint(0, max(0, len(other) - 1))
        data[at : at + length] = other[start : start + length]


def with_checksums(png: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold, as far as there are chunks."""
    fixed, at = bytearray(png), len(PNG_SIGNATURE)
    while at + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, at)
        end = at + 8 + length
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)

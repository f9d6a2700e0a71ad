"""Bytes that were a sound file once: what the fuzz tests feed to readers."""

import struct
import zlib
from collections.abc import Sequence

from hypothesis import strategies as st

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXTREMES = (0, 1, 2, 3, 7, 8, 16, 127, 128, 254, 255, 256, 4096, 32767, 32768, 65535, 65536)
EXTREMES += (2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)


@st.composite
def mutated(draw, originals: Sequence[bytes]) -> bytes:
    """One of the originals, changed in one to six places; the chunks of a PNG sum up again."""
    data = bytearray(draw(st.sampled_from(originals)))
    other = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 6))):
        _change(draw, data, other)
    if data.startswith(PNG_SIGNATURE) and draw(st.booleans()):
        return with_checksums(bytes(data))
    return bytes(data)


def _change(draw, data: bytearray, other: bytes) -> None:
    # Headers decide most: half of all changes are made there.
    last = max(0, len(data) - 1)
    at = draw(st.one_of(st.integers(0, min(last, 128)), st.integers(0, last)))
    kind = draw(st.sampled_from(["byte", "field", "field", "cut", "end", "repeat", "splice"]))
    length = draw(st.integers(1, 64))
    if kind == "byte":
        data[at : at + 1] = bytes([draw(st.integers(0, 255))])
    elif kind == "field":
        order, size = draw(st.sampled_from("<>")), draw(st.sampled_from("HI"))
        value = draw(st.sampled_from(EXTREMES)) & (0xFFFF if size == "H" else 0xFFFFFFFF)
        field = struct.pack(order + size, value)
        data[at : at + len(field)] = field
    elif kind == "cut":
        del data[at : at + length]
    elif kind == "end":
        del data[at:]
    elif kind == "repeat":
        data[at:at] = data[at : at + length] * draw(st.integers(1, 20))
    else:
        start = draw(st.integers(0, max(0, len(other) - 1)))
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

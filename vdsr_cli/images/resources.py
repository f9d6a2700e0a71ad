"""Photoshop's image resources, in which JPEG and TIFF keep IPTC captions
(Photoshop file formats specification, "Image resources").

    8BIM | id | name, padded to even | size | data, padded to even | 8BIM | ...
"""

import struct
from collections.abc import Iterator
from typing import Final

IPTC: Final = 0x0404
_KEPT: Final = (IPTC, 0x040A, 0x040B, 0x0425)
"""IPTC, the copyright flag, the URL, the digest of IPTC: what does not describe the pixels."""


def kept_resources(block: bytes) -> bytes | None:
    """The resources that are as true of the output, byte for byte; None where there are none."""
    kept = [whole for number, whole, _ in _resources(block) if number in _KEPT]
    return b"".join(kept) or None


def iptc_of(block: bytes) -> bytes | None:
    """The IPTC records among resources."""
    return next((data for number, _, data in _resources(block) if number == IPTC), None)


def resources_of_iptc(records: bytes) -> bytes:
    """IPTC records as the one resource of a block."""
    head = b"8BIM" + struct.pack(">H2sI", IPTC, b"", len(records))
    return head + records + bytes(len(records) % 2)


def _resources(block: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, whole and data of each resource, as far as they make sense."""
    at = 0
    while block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        (number,) = struct.unpack_from(">H", block, at + 4)
        name = 1 + block[at + 6]
        start = at + 6 + name + name % 2 + 4
        if start > len(block):
            return
        (size,) = struct.unpack_from(">I", block, start - 4)
        data = block[start : start + size]
        end = start + size + size % 2
        if len(data) == size:
            yield number, block[at:end].ljust(end - at, b"\0"), data
        at = end

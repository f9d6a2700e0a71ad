"""BMP whose colours are any bits of 16 or 32 (Windows' BITMAPINFOHEADER, BITMAPV5HEADER).

Pillow knows some of the usual masks only.
"""

import struct
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from vdsr_cli.images.extras import Decoded, bare_image, check_size
from vdsr_cli.images.samples import Samples

_BITFIELDS: Final = (3, 6)
_MASKS_AT: Final = 14 + 40
_INCHES_A_METRE: Final = 0.0254


def has_bitfields(head: bytes) -> bool:
    """Whether the first bytes of a BMP say that its pixels are of bits by masks."""
    if len(head) < _MASKS_AT + 12 or struct.unpack_from("<I", head, 14)[0] < 40:
        return False
    bits, compression = struct.unpack_from("<HI", head, 28)
    return bits in (16, 32) and compression in _BITFIELDS


def read_bitfields(stream: BinaryIO, max_pixels: int) -> Decoded:
    """Decodes the file, at 8 bits a sample, or 16 where a mask is wider than 8.

    Raises:
        InputError: it is too large.
        EOFError, ValueError: it ends too soon, or its masks make no sense.
    """
    stream.seek(0)
    head = stream.read(_MASKS_AT + 16)
    (start,) = struct.unpack_from("<I", head, 10)
    header_bytes, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", head, 14)
    rows = abs(height)
    check_size(width, rows, max_pixels)
    across, down = struct.unpack_from("<ii", head, 38)
    masks = struct.unpack_from("<4I", head.ljust(_MASKS_AT + 16, b"\0"), _MASKS_AT)
    if header_bytes < 56 and compression != 6:
        masks = masks[:3]
    masks = masks if masks[-1] else masks[:3]
    row_bytes = -(-width * bits // 32) * 4
    stream.seek(start)
    data = stream.read(row_bytes * rows)
    if len(data) < row_bytes * rows:
        raise EOFError("the file is truncated")
    stored = np.frombuffer(data, np.uint8).reshape(rows, row_bytes)
    words = np.ascontiguousarray(stored[:, : width * bits // 8]).view(f"<u{bits // 8}")
    words = words[::-1] if height > 0 else words
    widest = max(mask.bit_count() for mask in masks)
    full = 65535 if widest > 8 else 255
    levels = np.stack([_channel(words, mask, full) for mask in masks], axis=2)
    dpi = (across * _INCHES_A_METRE, down * _INCHES_A_METRE)
    image = bare_image("BMP", dpi=dpi if min(dpi) > 0 else None)
    return Decoded(image=image, samples=Samples(levels=levels, full=full))


def _channel(
    words: NDArray[np.unsignedinteger], mask: int, full: int
) -> NDArray[np.unsignedinteger]:
    """The bits of a mask, as levels up to ``full``; raises ValueError for one with gaps or none."""
    shift = (mask & -mask).bit_length() - 1
    highest = mask >> max(shift, 0)
    if mask == 0 or highest & (highest + 1):
        raise ValueError("its masks make no sense")
    values = (words.astype(np.uint64) & mask) >> np.uint64(shift)
    scaled = (values * full + highest // 2) // highest
    return scaled.astype(np.uint16 if full == 65535 else np.uint8)

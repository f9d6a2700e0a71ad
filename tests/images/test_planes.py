"""TIFF whose channels lie in planes of their own, with alpha or 16 bits: every value is kept."""

import struct

import numpy as np
import pytest
from picture_files import random_levels, read, through

PACKBITS, LZW, DEFLATE = 32773, 5, 8


def packbits(data):
    return b"".join(
        bytes([len(data[at : at + 128]) - 1]) + data[at : at + 128]
        for at in range(0, len(data), 128)
    )


def lzw(data):
    """Codes of nine bits alone, with a clear code before the table grows."""
    bits = ""
    for index, byte in enumerate(data):
        bits += f"{256:09b}" if index % 200 == 0 else ""
        bits += f"{byte:09b}"
    bits += f"{257:09b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)


def planar(levels, *, compression=1, extra=None, order="<", photometric=None, rows=4):
    """A TIFF of separate planes, in strips of some rows."""
    import zlib

    pack = {1: bytes, PACKBITS: packbits, LZW: lzw, DEFLATE: zlib.compress}[compression]
    height, width, channels = levels.shape
    stored = levels.astype(levels.dtype.newbyteorder(order))
    strips = [
        pack(stored[top : top + rows, :, plane].tobytes())
        for plane in range(channels)
        for top in range(0, height, rows)
    ]
    offsets = [8 + sum(map(len, strips[:index])) for index in range(len(strips))]
    tags = {256: [width], 257: [height], 258: [8 * levels.itemsize] * channels, 259: [compression]}
    colour = photometric if photometric is not None else (1 if channels < 3 else 2)
    tags |= {262: [colour], 273: offsets, 277: [channels], 278: [rows], 284: [2]}
    tags[279] = list(map(len, strips))
    if extra is not None:
        tags[338] = [extra]
    start = 8 + sum(map(len, strips))
    entries, behind = b"", b""
    for tag, values in sorted(tags.items()):
        letter, kind = ("H", 3) if tag in (258, 259, 262, 277, 284, 338) else ("I", 4)
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(packed) > 4:
            where = start + 2 + 12 * len(tags) + 4 + len(behind)
            packed, behind = struct.pack(order + "I", where), behind + packed
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return b"".join([head, *strips, struct.pack(order + "H", len(tags)), entries, bytes(4), behind])


@pytest.mark.parametrize("compression", [1, PACKBITS, LZW, DEFLATE])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_straight_alpha(compression, order, channels, dtype):
    levels = random_levels(channels, dtype)
    data = planar(levels, compression=compression, extra=2, order=order)
    assert np.array_equal(through(data), levels)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("compression", [1, PACKBITS, LZW])
def test_associated_alpha(channels, compression):
    levels = random_levels(channels)
    levels[..., :-1] = np.minimum(levels[..., :-1], levels[..., -1:])
    picture = read(planar(levels, compression=compression, extra=1))
    stored = levels / np.float32(255)
    assert np.allclose(picture.alpha[0, 0].numpy(), stored[..., -1])
    assert np.allclose(picture.rgb[0].numpy(), np.moveaxis(stored[..., :-1], -1, 0), atol=1e-6)


def test_colours_of_16_bits():
    levels = random_levels(3, np.uint16)
    assert np.array_equal(through(planar(levels)), levels)


def test_white_as_zero():
    levels = random_levels(2)
    inverted = np.concatenate([255 - levels[..., :1], levels[..., 1:]], axis=2)
    assert np.array_equal(through(planar(levels, extra=2, photometric=0)), inverted)


def test_a_channel_that_is_no_alpha_is_told():
    levels = random_levels(4)
    picture = read(planar(levels, extra=0))
    assert picture.alpha is None
    assert picture.notes == ("1 channels that are no colour were left out",)


def test_a_plane_that_is_cut_off_is_refused():
    from vdsr_cli.errors import InputError

    data = planar(random_levels(4), extra=2, compression=DEFLATE)
    with pytest.raises(InputError):
        read(data[:8] + bytes(60) + data[68:])


@pytest.mark.parametrize(
    ("masks", "bits"),
    [
        ((0xF800, 0x7E0, 0x1F), 16),
        ((0x7C00, 0x3E0, 0x1F), 16),
        ((0x0600, 0x01C0, 0x3F), 16),
        ((0xFF0000, 0xFF00, 0xFF), 32),
        ((0xFFE00000, 0x1FFC00, 0x3FF), 32),
    ],
)
def test_bitfields_of_a_bmp(masks, bits):
    width, height = 5, 3
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << bits, (height, width), np.uint64)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 3, 0, 2835, 2835, 0, 0)
    padded = np.pad(words, ((0, 0), (0, width * bits // 8 % 4 // (bits // 8))))
    pixels = padded[::-1].astype(f"<u{bits // 8}").tobytes()
    start = 14 + 40 + 12
    data = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + head
    picture = read(data + struct.pack("<3I", *masks) + pixels)
    for channel, mask in zip(picture.rgb[0], masks, strict=True):
        full = mask >> (mask & -mask).bit_length() - 1
        unit = ((words & mask) >> (mask & -mask).bit_length() - 1) / full
        assert np.abs(channel.numpy() - unit).max() < 0.501 / 255
    assert picture.alpha is None

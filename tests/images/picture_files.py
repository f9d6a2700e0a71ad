"""Pictures as files, made from scratch."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from vdsr_cli.images import Canvas, encode_levels, read_picture

DATA = Path(__file__).parent.parent / "data"
ORIENTATION, MAKE, MODEL = 0x0112, 0x010F, 0x0110
EXIF_IFD, GPS_IFD, PIXEL_WIDTH, PIXEL_HEIGHT, LENS = 0x8769, 0x8825, 0xA002, 0xA003, 0xA434
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")


def random_levels(channels, dtype=np.uint8, shape=(11, 17), seed=0):
    """Noise whose alpha, if any, is never zero, so that no colour is lost."""
    full = np.iinfo(dtype).max
    levels = np.random.default_rng(seed).integers(0, full + 1, (*shape, channels), dtype=dtype)
    if channels in (2, 4):
        levels[..., -1] = np.maximum(levels[..., -1], 1)
    return levels


def encode(image, format, **options):
    """A Pillow image as the bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def ours(levels, format, **options):
    """Levels as the bytes of a file that this package writes."""
    stream = io.BytesIO()
    encode_levels(stream, levels, format=format, **options)
    return stream.getvalue()


def read(data, **options):
    return read_picture(io.BytesIO(data), **options)


def filled(picture):
    """The canvas of a picture that was not enlarged."""
    has_alpha = picture.alpha is not None
    canvas = Canvas(picture.height, picture.width, like=picture.metadata, has_alpha=has_alpha)
    canvas.put_rows(0, picture.rgb[0], picture.alpha[0] if has_alpha else None)
    return canvas


def through(data):
    """The levels of a file that is read, put on a canvas and read off."""
    return filled(read(data)).levels()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, rows, *chunks):
    """A PNG from raw rows (filter None), with extra chunks before the data."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + b"".join(png_chunk(*chunk) for chunk in chunks)
        + png_chunk(b"IDAT", data)
        + png_chunk(b"IEND", b"")
    )


def tiff(levels, *, order="<", tile=None, deflate=False, extra=None, planar=1, photometric=2):
    """A 16-bit TIFF of the kinds that this package does not write itself."""
    height, width, channels = levels.shape
    planes = [levels] if planar == 1 else np.split(levels, channels, axis=2)
    side_y, side_x = (tile, tile) if tile else (4, width)
    segments = []
    for plane in planes:
        for top in range(0, height, side_y):
            for left in range(0, width, side_x):
                part = plane[top : top + side_y, left : left + side_x]
                if tile:
                    padding = ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0))
                    part = np.pad(part, padding)
                raw = part.astype(order + "u2").tobytes()
                segments.append(zlib.compress(raw) if deflate else raw)
    offsets = [8 + sum(map(len, segments[:index])) for index in range(len(segments))]
    sizes = [len(segment) for segment in segments]
    tags = {256: [width], 257: [height], 258: [16] * channels, 259: [8 if deflate else 1]}
    tags |= {262: [photometric], 277: [channels], 284: [planar]}
    tags |= {322: [tile], 323: [tile], 324: offsets, 325: sizes} if tile else {}
    tags |= {} if tile else {273: offsets, 278: [side_y], 279: sizes}
    tags |= {} if extra is None else {338: [extra]}
    start = 8 + sum(sizes)
    entries, behind = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}L", *values)
        if len(values) > 1:
            where = start + 2 + 12 * len(tags) + 4 + len(behind)
            packed, behind = struct.pack(order + "L", where), behind + packed
        entries += struct.pack(order + "HHL", tag, 4, len(values)) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", start)
    directory = struct.pack(order + "H", len(tags)) + entries + b"\0\0\0\0" + behind
    return head + b"".join(segments) + directory


def cmyk_profile():
    """A printer profile by which any cyan ink prints a strong red, so that its use shows."""
    corners = np.zeros((2, 2, 2, 2, 3), np.uint8)
    corners[...] = (255, 128, 128)  # paper: L = 100
    corners[1] = (136, 208, 195)  # cyan ink: L = 53, a = 80, b = 67
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 if index % 4 == 0 else 0 for index in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + corners.tobytes() + ramp * 3
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": white, b"A2B0": lut}
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"", 0x02100000, b"prtr",
                       b"CMYK", b"Lab ")  # fmt: skip
    head += struct.pack(">6H4sI", 2026, 1, 1, 0, 0, 0, b"acsp", 0) + bytes(20)
    head += struct.pack(">I3i", 0, 63190, 65536, 54061) + bytes(48)
    assert len(head) == 128
    return head + table + body


def exif_block(orientation=1):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[MAKE], exif[MODEL] = "Maker", "Model 5"
    exif.get_ifd(EXIF_IFD).update({PIXEL_WIDTH: 17, PIXEL_HEIGHT: 11, LENS: "Lens 50"})
    exif.get_ifd(GPS_IFD).update({1: "N", 2: (48.0, 8.0, 30.0)})
    return exif


def kind_of(path):
    """The format of a file, as Pillow calls it."""
    with Image.open(path) as image:
        return image.format

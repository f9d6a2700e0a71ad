"""Damaged pictures of every kind: one line of an InputError, or a picture, in bounded memory."""

import io
import resource
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import mutated
from PIL import Image, features

from vdsr_cli.errors import InputError, OutputError
from vdsr_cli.images import Canvas, Metadata, read_picture
from vdsr_cli.images.extras import has_extra
from vdsr_cli.images.heif import write_heif
from vdsr_cli.images.jpeg_xl import write_jxl

MAX_PIXELS = 1_000_000
WEBP_MOST_SIDE = 16_383
BOUND_BYTES = 400 << 20
"""More than a picture of so many pixels takes in float32, its copies and its decoder together."""

SIDES = (23, 17)


def encoded(format: str, mode: str = "RGB", **options) -> bytes:
    """A small picture as a file."""
    rough = np.random.default_rng(0).integers(0, 256, (4, 5, 4), np.uint8)
    image = Image.fromarray(rough).resize(SIDES, Image.Resampling.BICUBIC).convert("RGBA")
    grey = np.asarray(image.convert("L"))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        image = image.convert(mode) if mode == "RGBA" else image.convert("RGB").convert(mode)
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def encoded_by_extras() -> list[bytes]:
    """The same as HEIC and JPEG XL, where what reads them is installed."""
    levels = np.random.default_rng(0).integers(0, 256, (17, 23, 4), np.uint8)
    streams = []
    for extra, write in (("heif", write_heif), ("jxl", write_jxl)):
        for channels in (3, 4) if has_extra(extra) else ():
            streams.append(io.BytesIO())
            write(streams[-1], levels[:, :, :channels], Metadata(exif=exif().tobytes()), 90)
    return [stream.getvalue() for stream in streams]


def exif() -> Image.Exif:
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x011A] = 6, "Maker", 72.0
    block.get_ifd(0x8769).update({0xA002: 17, 0xA003: 11, 0xA434: "Lens 50"})
    block.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 30.0)})
    return block


TAGGED = {"exif": exif(), "dpi": (72, 72)}
ORIGINALS = {
    "PNG": [
        encoded("PNG", **TAGGED),
        encoded("PNG", "RGBA"),
        encoded("PNG", "P", transparency=3),
        encoded("PNG", "1"),
        encoded("PNG", "I;16"),
        encoded("PNG", "LA"),
    ],
    "JPEG": [
        encoded("JPEG", **TAGGED),
        encoded("JPEG", progressive=True, comment=b"a comment"),
        encoded("JPEG", "CMYK"),
        encoded("JPEG", "L", subsampling=0, restart_marker_rows=1),
    ],
    "TIFF": [
        encoded("TIFF", **TAGGED),
        encoded("TIFF", "RGBA", compression="tiff_lzw"),
        encoded("TIFF", compression="tiff_adobe_deflate"),
        encoded("TIFF", compression="jpeg"),
        encoded("TIFF", "1", compression="group4"),
        encoded("TIFF", "I;16"),
        encoded("TIFF", "F"),
        encoded("TIFF", "LAB"),
        encoded("TIFF", "P", compression="packbits"),
        encoded("TIFF", big_tiff=True),
    ],
    "WEBP": [
        encoded("WEBP", exif=exif()),
        encoded("WEBP", "RGBA", lossless=True),
    ],
    "others": [
        encoded("GIF", "P"),
        encoded("BMP"),
        encoded("BMP", "P"),
        encoded("PPM"),
        encoded("PPM", "1"),
        encoded("PPM", "I;16"),
        *([encoded("AVIF", exif=exif())] if features.check("avif") else []),
    ],
    "extras": encoded_by_extras(),
}


def peak_bytes() -> int:
    """The most memory that this process has ever had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def check(data: bytes) -> bool:
    """Any bytes are refused in one line, or can be read and written again;
    which of the two it was."""
    before = peak_bytes()
    try:
        picture = read_picture(io.BytesIO(data), max_pixels=MAX_PIXELS)
    except InputError as error:
        assert "\n" not in str(error)
        return False
    finally:
        assert peak_bytes() - before < BOUND_BYTES
    assert picture.height * picture.width <= MAX_PIXELS
    assert torch.isfinite(picture.rgb).all()
    assert picture.rgb.min() >= 0 and picture.rgb.max() <= 1
    has_alpha = picture.alpha is not None
    canvas = Canvas(picture.height, picture.width, like=picture.metadata, has_alpha=has_alpha)
    canvas.put_rows(0, picture.rgb[0], picture.alpha[0] if has_alpha else None)
    # Whatever is said about the picture must not stop it from being written.
    for format in ("png", "tiff", "jpg", "webp"):
        is_too_long = format == "webp" and max(picture.height, picture.width) > WEBP_MOST_SIDE
        with pytest.raises(OutputError, match="too many") if is_too_long else nullcontext():
            canvas.save_to(io.BytesIO(), format)
    return True


@pytest.mark.parametrize("kind", ORIGINALS)
def test_sound_pictures_pass(kind):
    for data in ORIGINALS[kind]:
        assert check(data)


@pytest.mark.parametrize("kind", ORIGINALS)
def test_damaged_pictures(kind):
    if not ORIGINALS[kind]:
        pytest.skip("needs vdsr-cli[heif] or vdsr-cli[jxl]")

    @given(mutated(ORIGINALS[kind]))
    def damaged(data: bytes) -> None:
        check(data)

    damaged()


@given(
    st.sampled_from([data[:12] for kind in ORIGINALS.values() for data in kind]),
    st.binary(max_size=300),
)
def test_a_signature_and_anything_behind_it(head, rest):
    check(head + rest)

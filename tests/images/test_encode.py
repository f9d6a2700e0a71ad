"""Formats that hold less than the picture, and streams that cannot seek."""

import io
from pathlib import Path

import numpy as np
import pytest
from picture_files import filled, needs_avif, ours, random_levels, read, through

from vdsr_cli import images
from vdsr_cli.errors import OutputError, UsageError
from vdsr_cli.images import encode_levels
from vdsr_cli.images.encode import to_8_bits


@pytest.mark.parametrize("format", ["jpg", "webp", "bmp", pytest.param("avif", marks=needs_avif)])
def test_16_bits_are_rounded_with_a_note(format):
    levels = np.full((4, 4, 3), 128 * 257 + 128, np.uint16)
    stream = io.BytesIO()
    notes = encode_levels(stream, levels, format=format)
    assert len(notes) == 1
    assert "8 bits a sample" in notes[0]
    assert abs(int(through(stream.getvalue())[0, 0, 0]) - 128) <= 1


def test_rounding_to_8_bits_is_to_the_nearest():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    expected = np.rint(every / 257).astype(np.uint8)
    np.testing.assert_array_equal(to_8_bits(every), expected)


@pytest.mark.parametrize("format", ["jpg", "bmp"])
@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_laid_on_white_with_a_note(format, channels):
    levels = np.zeros((8, 8, channels), np.uint8)
    stream = io.BytesIO()
    notes = encode_levels(stream, levels, format=format)
    assert "laid on white" in notes[0]
    assert through(stream.getvalue()).min() >= 254


@pytest.mark.parametrize("format", ["webp", pytest.param("avif", marks=needs_avif)])
@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_kept(format, channels):
    levels = np.full((8, 8, channels), 200, np.uint8)
    levels[:4, :, -1] = 0
    picture = read(ours(levels, format, quality=100))
    assert picture.alpha is not None
    assert picture.alpha[0, 0, :4].max() < 0.02
    assert picture.rgb[0, :, 5:].mean() == pytest.approx((200 / 255) ** 2, abs=0.02)


def test_webp_of_quality_100_is_lossless():
    levels = random_levels(3)
    np.testing.assert_array_equal(through(ours(levels, "webp", quality=100)), levels)


def test_too_large_for_the_format():
    with pytest.raises(OutputError, match="16383") as caught:
        encode_levels(io.BytesIO(), np.zeros((1, 16384, 3), np.uint8), format="webp", name="a.webp")
    assert str(caught.value).startswith("a.webp: ")
    assert caught.value.hint == "--format png"


def test_unknown_format():
    with pytest.raises(UsageError, match="exr"):
        encode_levels(io.BytesIO(), random_levels(3), format="exr")
    with pytest.raises(UsageError, match=r"\.exr"):
        images.save_levels(Path("a.exr"), random_levels(3))


class Pipe(io.RawIOBase):
    """A stream that only writes, as a pipe does."""

    def __init__(self):
        self.data = b""

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data)
        return len(data)


@pytest.mark.parametrize("format", ["png", "tiff", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pipes(format, dtype):
    pipe = Pipe()
    filled(read(ours(random_levels(3, dtype), "png"))).save_to(pipe, format)
    assert read(pipe.data).rgb.shape == (1, 3, 11, 17)

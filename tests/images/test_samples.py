"""Every mode and layout is read at its full depth."""

import io
import struct

import numpy as np
import pytest
import torch
from picture_files import (
    DATA,
    cmyk_profile,
    encode,
    needs_avif,
    ours,
    png,
    random_levels,
    read,
    through,
    tiff,
)
from PIL import Image

from vdsr_cli.errors import InputError
from vdsr_cli.images import read_picture
from vdsr_cli.images.convert import to_picture


@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_formats_keep_every_value(format, channels, dtype):
    levels = random_levels(channels, dtype)
    data = ours(levels, format)
    picture = read(data)
    assert picture.notes == ()
    assert picture.metadata.bit_depth == 8 * np.dtype(dtype).itemsize
    assert picture.metadata.source_format == format
    result = through(data)
    np.testing.assert_array_equal(result, levels)
    assert result.dtype == dtype


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_our_16_bit_png_equals_a_plain_one(channels):
    levels = random_levels(channels, np.uint16, (9, 13))
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = [row.astype(">u2").tobytes() for row in levels]
    plain = png(13, 9, 16, colour, rows)
    np.testing.assert_array_equal(through(plain), levels)
    np.testing.assert_array_equal(through(ours(levels, "png")), levels)


def test_16_bit_png_of_several_blocks_keeps_every_value():
    levels = random_levels(3, np.uint16, (130, 1000))
    np.testing.assert_array_equal(through(ours(levels, "png")), levels)


def test_smooth_16_bit_pictures_compress():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    levels = np.broadcast_to(ramp[:, None, None], (256, 256, 3)).copy()
    assert len(ours(levels, "png")) < levels.nbytes / 50
    assert len(ours(levels, "tiff")) < levels.nbytes / 50


def test_a_dark_16_bit_picture_is_not_taken_for_8_bit():
    levels = random_levels(3, np.uint16) % 200
    picture = read(ours(levels, "png"))
    assert picture.metadata.bit_depth == 16
    assert picture.rgb.max() <= 200 / 65535
    np.testing.assert_array_equal(through(ours(levels, "tiff")), levels)


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("tile", [None, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("channels", "extra"), [(3, None), (4, 0), (4, 1), (4, 2)])
def test_16_bit_tiff_layouts(order, tile, deflate, channels, extra):
    levels = random_levels(channels, np.uint16, (19, 23))
    picture = read(tiff(levels, order=order, tile=tile, deflate=deflate, extra=extra))
    colours = torch.from_numpy(levels[..., :3].astype(np.float32)).permute(2, 0, 1) / 65535
    assert (picture.alpha is not None) == (extra in (1, 2))
    if extra in (1, 2):
        alpha = torch.from_numpy(levels[..., 3].astype(np.float32)) / 65535
        # 1 is alpha that is already multiplied in, 2 is not
        colours = torch.minimum(colours, alpha) if extra == 1 else colours * alpha
        torch.testing.assert_close(picture.alpha[0, 0], alpha)
    torch.testing.assert_close(picture.rgb[0], colours)


@pytest.mark.parametrize("deflate", [False, True])
def test_16_bit_planes_are_read_without_the_extra(monkeypatch, deflate):
    monkeypatch.setattr("vdsr_cli.images.decode.has_extra", lambda extra: False)
    levels = random_levels(3, np.uint16)
    data = tiff(levels, planar=2, deflate=deflate)
    np.testing.assert_array_equal(through(data), levels)


def test_16_bit_grey_tiff_with_white_as_zero():
    levels = random_levels(1, np.uint16)
    np.testing.assert_array_equal(through(tiff(levels, photometric=0)), 65535 - levels)


@pytest.mark.parametrize(
    ("mode", "is_grey"),
    [("1", True), ("L", True), ("LA", True), ("P", False), ("RGB", False), ("RGBA", False)],
)
def test_8_bit_modes(mode, is_grey):
    image = Image.fromarray(random_levels(3)).convert(mode)
    picture = read(encode(image, "PNG"))
    assert picture.metadata.is_grey == is_grey
    assert picture.metadata.bit_depth == 8
    expected = np.asarray(image.convert("RGB")).astype(np.float32) / 255
    np.testing.assert_allclose(picture.rgb[0].permute(1, 2, 0).numpy(), expected, atol=1e-7)
    assert picture.alpha is None  # opaque throughout


def test_shapes_dtype_and_range():
    picture = read(ours(random_levels(2), "png"))
    assert (picture.height, picture.width) == (11, 17)
    assert picture.rgb.shape == (1, 3, 11, 17)
    assert picture.alpha is not None
    assert picture.alpha.shape == (1, 1, 11, 17)
    assert picture.rgb.dtype == picture.alpha.dtype == torch.float32
    assert picture.rgb.min() >= 0
    assert (picture.rgb <= picture.alpha).all()
    assert picture.rgb.is_contiguous()


def test_one_pixel():
    levels = np.array([[[1, 2, 3]]], np.uint8)
    np.testing.assert_array_equal(through(ours(levels, "png")), levels)
    np.testing.assert_array_equal(
        through(ours(levels.astype(np.uint16), "png")), levels.astype(np.uint16)
    )


def test_palette_with_transparency():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    picture = read(encode(image, "PNG", transparency=bytes([255, 0, 128])))
    assert picture.alpha is not None
    torch.testing.assert_close(
        picture.alpha[0, 0, 0], torch.tensor([1, 0, 128 / 255]), rtol=0, atol=1e-6
    )
    assert picture.rgb[0, :, 0, 1].tolist() == [0, 0, 0]  # hidden green does not count
    assert not picture.metadata.is_grey


@pytest.mark.parametrize(
    ("bits", "colour", "row", "key"),
    [
        (1, 0, b"\x40", 1),
        (2, 0, b"\x20", 2),
        (4, 0, b"\x05", 5),
        (8, 0, b"\x04\x05", 5),
        (16, 0, b"\x01\x04\x01\x05", 0x0105),
        (8, 2, b"\x01\x02\x03\x04\x05\x06", (4, 5, 6)),
        (16, 2, b"\1\1\1\1\1\1\1\1\1\1\1\2", (257, 257, 258)),
    ],
)
def test_the_transparent_colour_of_png(bits, colour, row, key):
    """The second pixel has the colour that tRNS names, to the last bit."""
    packed = struct.pack(">H", key) if isinstance(key, int) else struct.pack(">3H", *key)
    picture = read(png(2, 1, bits, colour, [row], (b"tRNS", packed)))
    assert picture.alpha is not None
    assert picture.alpha.flatten().tolist() == [1, 0]
    assert picture.metadata.bit_depth == (16 if bits == 16 else 8)


def test_integers_and_floats():
    assert through(encode(Image.new("I;16", (2, 1), 300), "TIFF")).tolist() == [[[300], [300]]]
    assert through(encode(Image.new("I", (1, 1), 40000), "TIFF")).tolist() == [[[40000]]]
    half = read(encode(Image.new("F", (1, 1), 0.5), "TIFF"))
    assert half.rgb.flatten().tolist() == [0.5] * 3
    assert half.metadata.bit_depth == 16
    dark = Image.new("F", (4, 1), 0.25)
    dark.putpixel((0, 0), -0.5)
    assert read(encode(dark, "TIFF")).notes == ("floating-point samples below 0 became black",)
    bright = Image.new("F", (4, 1), 0.25)
    bright.putpixel((0, 0), 1.5)
    for image, message in [
        (Image.new("I", (1, 1), 70000), "more than 16 bits"),
        (bright, "samples reach 1.5"),
        (Image.new("F", (1, 1), 200.0), "floating-point"),
        (Image.new("F", (1, 1), float("nan")), "not finite"),
        (Image.new("F", (9, 9), 3e38), "floating-point"),
    ]:
        with pytest.raises(InputError, match=message):
            read(encode(image, "TIFF"))


def test_an_image_of_cmyk_in_memory_goes_through_its_profile():
    """As its file does."""
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    stored = encode(image, "TIFF", icc_profile=cmyk_profile())
    with Image.open(io.BytesIO(stored)) as opened:
        of_image = to_picture(opened)
    torch.testing.assert_close(of_image.rgb, read(stored).rgb)
    assert of_image.metadata.icc_profile is None and of_image.notes == ()
    assert "approximate" in to_picture(image).notes[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("colours", "extras"), [(1, (0,)), (3, (0,)), (3, (0, 0)), (3, (2, 0))])
def test_a_channel_of_a_tiff_that_is_no_colour_is_told(dtype, colours, extras):
    tifffile = pytest.importorskip("tifffile")
    levels = np.full((8, 8, colours + len(extras)), 100, dtype)
    stream = io.BytesIO()
    kind = "rgb" if colours == 3 else "minisblack"
    tifffile.imwrite(stream, levels, photometric=kind, extrasamples=extras, planarconfig="contig")
    picture = read(stream.getvalue())
    assert (picture.alpha is None) == (2 not in extras)
    assert picture.notes == (f"{extras.count(0)} channels that are no colour were left out",)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(format):
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    profiled = read(encode(image, format, icc_profile=cmyk_profile()))
    red, green, blue = profiled.rgb.mean(dim=(0, 2, 3)).tolist()
    assert red > 0.9
    assert max(green, blue) < 0.2
    assert profiled.metadata.icc_profile is None
    assert profiled.notes == ()
    plain = read(encode(image, format))
    assert plain.rgb[0, 0].mean() < 0.1  # cyan
    assert "approximate" in plain.notes[0]
    broken = read(encode(image, format, icc_profile=cmyk_profile()[:200]))
    assert broken.notes[0] == "its CMYK profile is damaged"


def test_lab_becomes_srgb():
    white = Image.new("LAB", (4, 4), (255, 128, 128))
    assert read(encode(white, "TIFF")).rgb.min() > 0.98


def test_ppm():
    levels = random_levels(3, np.uint16, (3, 4))
    data = b"P6 4 3 65535\n" + levels.astype(">u2").tobytes()
    np.testing.assert_array_equal(through(data), levels)
    assert through(b"P5 2 1 65535\n\x01\x02\x03\x04").tolist() == [[[0x0102], [0x0304]]]
    assert through(b"P6 1 1 255\n\1\2\3").tolist() == [[[1, 2, 3]]]


def test_ppm_of_levels_between(tmp_path):
    levels = np.array([[[0, 512, 1023], [1, 1022, 2000]]], ">u2")
    picture = read(b"P6 2 1 1023\n" + levels.tobytes())
    expected = torch.tensor(levels.astype(np.float32).clip(max=1023) / 1023)
    torch.testing.assert_close(picture.rgb[0].permute(1, 2, 0), expected)
    assert picture.metadata.bit_depth == 16 and picture.notes == ()


def test_a_ppm_in_text_of_many_levels_says_what_is_lost():
    picture = read(b"P3 1 1 65535\n32800 0 65535\n")
    assert picture.notes == ("a PPM in text of more than 8 bits was read at 8 bits",)
    assert read(b"P3 1 1 255\n1 2 3\n").notes == ()


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_lossless_inputs(format):
    image = Image.fromarray(random_levels(3)).quantize(64).convert("RGB")
    options = {"lossless": True} if format == "WEBP" else {}
    source = image.quantize(64) if format == "GIF" else image
    np.testing.assert_array_equal(through(encode(source, format, **options)), np.asarray(image))


@pytest.mark.parametrize("format", ["jpg", "webp", pytest.param("avif", marks=needs_avif)])
def test_lossy_formats_come_close(format):
    levels = np.asarray(Image.open(DATA / "roof.png").convert("RGB"))
    for channels in (levels, levels[:, :, :1]):
        result = through(ours(channels, format)).astype(int)
        assert np.abs(result.mean(axis=2) - channels.mean(axis=2)).mean() < 3


@needs_avif
def test_avif_of_10_bits_is_told():
    notes = read_picture(DATA / "ten-bit.avif").notes
    assert notes == ("AVIF of more than 8 bits was read at 8 bits",)
    assert read(ours(random_levels(3), "avif")).notes == ()


def test_bundled_test_pictures_can_be_read():
    assert read_picture(DATA / "street.png").rgb.shape == (1, 3, 256, 256)
    assert read_picture(DATA / "roof.png").rgb.shape == (1, 3, 64, 64)

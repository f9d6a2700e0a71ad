"""EXIF, XMP, ICC and resolution are carried, and true of the output."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from picture_files import (
    EXIF_IFD,
    GPS_IFD,
    LENS,
    MAKE,
    MODEL,
    ORIENTATION,
    PIXEL_HEIGHT,
    PIXEL_WIDTH,
    SRGB,
    encode,
    exif_block,
    needs_avif,
    ours,
    random_levels,
    read,
)
from PIL import ExifTags, Image

from vdsr_cli.images import Metadata, encode_levels, read_picture
from vdsr_cli.images.exif import ExifBlock
from vdsr_cli.images.extras import has_extra
from vdsr_cli.images.metadata import sized_exif


@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "WEBP", "TIFF", pytest.param("AVIF", marks=needs_avif)]
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(orientation, format):
    corners = np.zeros((32, 96, 3), np.uint8)
    corners[:16, :48] = (250, 0, 0)
    corners[:16, 48:] = (0, 250, 0)
    corners[16:, :48] = (0, 0, 250)
    upright = {
        1: corners,
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.transpose(1, 0, 2),
        6: np.rot90(corners, -1),
        7: corners.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(corners),
    }[orientation]
    options = {"lossless": True} if format == "WEBP" else {}
    picture = read(
        encode(Image.fromarray(corners), format, exif=exif_block(orientation), **options)
    )
    result = picture.rgb[0].permute(1, 2, 0).numpy()
    assert result.shape == upright.shape
    assert np.abs(result - upright / np.float32(255)).mean() < 0.05
    if picture.metadata.exif is not None:  # AVIF keeps an orientation of 1 to itself
        saved = Image.Exif()
        saved.load(picture.metadata.exif)
        assert saved.get(ORIENTATION, 1) == 1


@pytest.mark.parametrize(
    "target", ["png", "jpg", "webp", "tiff", pytest.param("avif", marks=needs_avif)]
)
@pytest.mark.parametrize("source", ["JPEG", "TIFF", "PNG"])
@pytest.mark.parametrize("depth", [8, 16])
def test_exif_is_carried_with_the_new_size(source, target, depth):
    data = encode(Image.fromarray(random_levels(3)), source, exif=exif_block(6).tobytes())
    like = read(data).metadata
    levels = random_levels(3, np.uint16 if depth == 16 else np.uint8, (44, 68))
    image = Image.open(io.BytesIO(ours(levels, target, like=like)))
    image.load()
    exif = image.getexif()
    assert exif.get(ORIENTATION, 1) == 1
    assert (exif[MAKE], exif[MODEL]) == ("Maker", "Model 5")
    details = exif.get_ifd(EXIF_IFD)
    assert (details[PIXEL_WIDTH], details[PIXEL_HEIGHT]) == (68, 44)
    assert details[LENS] == "Lens 50"
    assert exif.get_ifd(GPS_IFD)[1] == "N"
    assert image.size == (68, 44)


def test_the_thumbnail_is_left_out():
    block = bytearray(exif_block().tobytes())
    # A second directory with the place and the length of a JPEG, linked from the first.
    start = 6 + 8
    (count,) = struct.unpack_from(">H", block, start)
    link = start + 2 + 12 * count
    struct.pack_into(">I", block, link, len(block) - 6)
    place = len(block) - 6 + 2 + 2 * 12 + 4
    block += struct.pack(">HHHIIHHIII", 2, 513, 4, 1, place, 514, 4, 1, 9, 0) + b"THUMBNAIL"
    picture = read(encode(Image.fromarray(random_levels(3)), "JPEG", exif=bytes(block)))
    assert picture.metadata.exif is not None
    assert b"THUMBNAIL" not in picture.metadata.exif
    assert b"Model 5" in picture.metadata.exif


def test_damaged_exif_leaks_no_warning():
    block = exif_block().tobytes()
    for end in range(8, len(block), 7):
        picture = read(encode(Image.fromarray(random_levels(3)), "JPEG", exif=block[:end]))
        assert picture.rgb.shape == (1, 3, 11, 17)


@pytest.mark.parametrize(
    "format", ["png", "jpg", "webp", "tiff", pytest.param("avif", marks=needs_avif)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_icc_profile_and_xmp_are_kept(format, dtype):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" dc="\xc3\xa9"/></x:xmpmeta>'
    source = encode(Image.fromarray(random_levels(3)), "JPEG", icc_profile=SRGB, xmp=xmp)
    like = read(source).metadata
    assert like.icc_profile == SRGB
    again = read(ours(random_levels(3, dtype), format, like=like)).metadata
    assert again.icc_profile == SRGB
    assert again.xmp == xmp.replace(b'"6"', b'"1"')


def test_xmp_orientation_counts():
    xmp = b'<x:xmpmeta><r tiff:Orientation="6"/></x:xmpmeta>'
    assert read(encode(Image.new("RGB", (3, 5)), "JPEG", xmp=xmp)).width == 5


@pytest.mark.parametrize("format", ["png", "jpg", "tiff", "bmp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resolution_is_kept(format, dtype):
    like = Metadata(dpi=(300.0, 200.0))
    dpi = read(ours(random_levels(3, dtype), format, like=like)).metadata.dpi
    assert dpi == pytest.approx((300, 200), abs=0.02)


def test_profiles_that_do_not_fit_are_left_out_with_a_note():
    grey = Image.fromarray(random_levels(1)[..., 0])
    picture = read(encode(grey, "JPEG", icc_profile=SRGB))
    assert picture.metadata.icc_profile is None
    assert picture.notes == ("its ICC profile is for RGB pictures and was left out",)
    grey_profile = SRGB[:16] + b"GRAY" + SRGB[20:]
    like = read(encode(grey, "JPEG", icc_profile=grey_profile)).metadata
    assert like.icc_profile == grey_profile
    notes = encode_levels(io.BytesIO(), random_levels(1), format="webp", like=like)
    assert notes == ("the grey profile does not fit WebP and was left out",)


def test_long_blocks_do_not_stop_a_jpeg():
    like = Metadata(xmp=b"x" * 70_000)
    notes = encode_levels(io.BytesIO(), random_levels(3), format="jpg", like=like)
    assert notes == ("the XMP packet is too long for JPEG and was left out",)


@pytest.mark.parametrize("is_big", [False, True])
def test_the_exif_of_a_tiff_is_kept(tmp_path, is_big):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] = "Lens"
    Image.new("RGB", (16, 12), "teal").save(
        tmp_path / "a.tif", big_tiff=is_big, exif=exif.tobytes()
    )
    like = read_picture(tmp_path / "a.tif").metadata
    assert like.exif is not None
    block = Image.Exif()
    block.load(sized_exif(like.exif, width=64, height=48, like=like))
    assert block[ExifTags.Base.Make] == "Maker"
    assert block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "Lens"


@pytest.mark.parametrize(
    "format",
    [
        "webp",
        pytest.param("avif", marks=needs_avif),
        *(
            pytest.param(extra, marks=pytest.mark.skipif(not has_extra(extra), reason="an extra"))
            for extra in ("heif", "jxl")
        ),
    ],
)
@pytest.mark.parametrize("has_exif", [False, True])
def test_resolution_is_kept_by_exif_where_there_is_no_other_place(format, has_exif):
    like = Metadata(dpi=(300.0, 200.5))
    if has_exif:
        like = replace(like, exif=exif_block().tobytes())
    stream = io.BytesIO()
    assert encode_levels(stream, random_levels(3, shape=(64, 64)), format=format, like=like) == ()
    block = read(stream.getvalue()).metadata.exif
    assert ExifBlock(block).dpi == (300, 200.5)
    exif = Image.Exif()
    exif.load(block)
    assert exif.get(MODEL) == ("Model 5" if has_exif else None)
    assert exif.get_ifd(EXIF_IFD).get(LENS) == ("Lens 50" if has_exif else None)


def test_a_resolution_that_exif_names_stays():
    block = exif_block()
    block[ExifTags.Base.XResolution] = block[ExifTags.Base.YResolution] = 96.0
    like = Metadata(dpi=(300.0, 300.0), exif=read(jpeg_with(block)).metadata.exif)
    made = read(ours(random_levels(3), "webp", like=like)).metadata.exif
    assert ExifBlock(made).dpi == (96, 96)


def jpeg_with(exif):
    return encode(Image.fromarray(random_levels(3)), "JPEG", exif=exif)


def test_a_gif_tells_that_it_holds_no_resolution():
    notes = encode_levels(
        io.BytesIO(), random_levels(3), format="gif", like=Metadata(dpi=(300.0, 300.0))
    )
    assert "GIF holds no resolution: it was left out" in notes

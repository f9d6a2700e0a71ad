"""HEIF, JPEG XL and rare TIFF, which other packages read and write."""

import io
import logging
import struct

import numpy as np
import pytest
from picture_files import SRGB, ours, random_levels, read, through
from PIL import Image, ImageCms

from vdsr_cli.errors import InputError, OutputError
from vdsr_cli.images import Metadata, decode, encode
from vdsr_cli.images.extras import has_extra


def needs(extra):
    return pytest.mark.skipif(not has_extra(extra), reason=f"the extra {extra} is not installed")


RAMP = np.linspace(0, 1, 24 * 32).reshape(24, 32)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)


def smooth(channels, dtype=np.uint8):
    """Levels that a lossy format hardly changes."""
    full = np.iinfo(dtype).max
    return (
        np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1], 1 - RAMP / 4], axis=-1)[..., :channels] * full
    ).astype(dtype)


def tiff(levels, **options):
    import tifffile

    stream = io.BytesIO()
    kind = "rgb" if levels.ndim == 3 and levels.shape[-1] > 2 else "minisblack"
    tifffile.imwrite(stream, levels, **{"photometric": kind} | options)
    return stream.getvalue()


def packed_tiff(levels, bits):
    """RGB of some bits a sample, packed as TIFF 6.0 has it: rows end on whole bytes."""
    height, width, channels = levels.shape
    rows = levels.reshape(height, -1)
    each = (rows[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    data = np.packbits(each.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    count = 9
    behind = 8 + 2 + 12 * count + 4
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, behind), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 2), (273, 4, 1, behind + 6), (277, 3, 1, channels), (278, 3, 1, height)]
    tags += [(279, 4, 1, len(data))]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, count) + directory + bytes(4)
    return head + struct.pack("<3H", *[bits] * 3) + data


def rgb_of(picture):
    return picture.rgb[0].permute(1, 2, 0).numpy()


@needs("tiff")
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("is_grey", [False, True])
def test_floating_point_tiff_keeps_its_values(dtype, is_grey):
    values = (RAMP if is_grey else COLOURS).astype(dtype)
    picture = read(tiff(values))
    expected = values[..., None].repeat(3, -1) if is_grey else values
    np.testing.assert_allclose(rgb_of(picture), expected.astype(np.float32), atol=0)
    assert (picture.metadata.bit_depth, picture.metadata.is_grey) == (16, is_grey)


@needs("tiff")
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "u2", "u4"])
def test_where_white_is_zero_black_is_the_most(dtype):
    full = 1 if dtype[0] == "f" else np.iinfo(dtype).max
    stored = ((1 - RAMP) * full).astype(dtype)
    levels = rgb_of(read(tiff(stored, photometric="miniswhite")))
    np.testing.assert_allclose(levels[..., 0], 1 - stored.astype(float) / full, atol=2e-3)


def test_floats_beyond_white_are_refused_with_the_reason():
    with pytest.raises(InputError, match=r"samples reach 4; 0 to 1 is black to white"):
        read(tiff((COLOURS * 4).astype("f4")))


@needs("tiff")
@pytest.mark.parametrize("bits", [9, 10, 11, 12, 13, 14, 15])
def test_white_of_9_to_15_bits_is_white(bits):
    levels = np.round(COLOURS * (2**bits - 1)).astype(np.uint16)
    picture = read(packed_tiff(levels, bits))
    np.testing.assert_allclose(rgb_of(picture), levels / (2**bits - 1), atol=1e-7)


@needs("tiff")
def test_32_bit_colours_are_on_their_whole_range():
    levels = np.round(COLOURS * (2**32 - 1)).astype(np.uint32)
    np.testing.assert_allclose(rgb_of(read(tiff(levels))), COLOURS, atol=1e-6)
    with pytest.raises(InputError, match="all but black"):
        read(tiff(levels // 512))


def test_unsigned_32_bit_grey_needs_no_extra():
    levels = np.round(RAMP * (2**32 - 1)).astype(np.uint32)
    if has_extra("tiff"):
        np.testing.assert_allclose(rgb_of(read(tiff(levels)))[..., 0], RAMP, atol=1e-6)
    small = Image.fromarray((levels >> 16).astype(np.int32))
    stream = io.BytesIO()
    small.save(stream, "TIFF")
    np.testing.assert_allclose(rgb_of(read(stream.getvalue()))[..., 0], RAMP, atol=2e-5)


@needs("tiff")
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_16_bit_grey_with_alpha(kind):
    alpha = np.maximum(RAMP[::-1], 0.1)
    grey = RAMP * alpha if kind == "assocalpha" else RAMP
    levels = np.round(np.stack([grey, alpha], -1) * 65535).astype(np.uint16)
    picture = read(tiff(levels, extrasamples=[kind]))
    assert (picture.metadata.bit_depth, picture.metadata.is_grey) == (16, True)
    np.testing.assert_allclose(picture.alpha[0, 0], alpha, atol=1e-5)
    np.testing.assert_allclose(picture.rgb[0, 0], RAMP * alpha, atol=2e-5)


@needs("tiff")
@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": True, "byteorder": ">"},
        {"planarconfig": "separate"},
        {"compression": "webp"},
        {"compression": "jpegxl"},
        {"photometric": "miniswhite"},
    ],
    ids=str,
)
def test_rare_tiff_of_whole_numbers_is_read_exactly(options):
    dtype = np.uint8 if options.get("compression") == "webp" else np.uint16
    levels = random_levels(3, dtype, (24, 32))
    stored, expected = levels, levels
    if "planarconfig" in options:
        stored = np.moveaxis(levels, -1, 0)
    if options.get("photometric") == "miniswhite":
        stored = levels[..., 0]
        expected = np.iinfo(dtype).max - levels[..., :1]
        options = {**options, "bigtiff": True, "byteorder": ">"}
    lossless = {"compressionargs": {"level": 101}} if dtype == np.uint8 else {}
    np.testing.assert_array_equal(through(tiff(stored, **options, **lossless)), expected)


@needs("tiff")
def test_the_blocks_of_a_rare_tiff_are_kept():
    data = tiff(
        COLOURS.astype("f4"),
        resolution=(300, 300),
        resolutionunit="inch",
        iccprofile=SRGB,
        description="a ramp",
        metadata=None,
        extratags=[(700, 1, 5, b"<x/> ", True), (271, 2, 6, "Maker", True)],
    )
    metadata = read(data).metadata
    assert (metadata.dpi, metadata.icc_profile) == ((300, 300), SRGB)
    assert metadata.xmp == b"<x/> "
    exif = Image.Exif()
    exif.load(metadata.exif)
    assert (exif[271], exif[270]) == ("Maker", "a ramp")


@needs("tiff")
def test_what_is_no_picture_is_refused_by_its_reason():
    volume = np.zeros((2, 3, 16, 16, 3), "f4")
    with pytest.raises(InputError, match="2 pages"):
        read(tiff(volume[0, :2]))
    with pytest.raises(InputError, match="it has 32x24"):
        read(tiff(COLOURS.astype("f4")), max_pixels=100)
    with pytest.raises(InputError, match="signed"):
        read(tiff((COLOURS * 127).astype("i1")))
    with pytest.raises(InputError, match=r"truncated|damaged"):
        read(tiff(COLOURS.astype("f4"))[:-200])


@needs("heif")
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_heif_there_and_back(channels, dtype):
    levels = smooth(channels, dtype)
    metadata = Metadata(icc_profile=None if channels == 1 else SRGB, xmp=b"<x/>")
    data = ours(levels, "heif", like=metadata, quality=100)
    picture = read(data)
    back = through(data)
    assert back.dtype == dtype
    step = 257 if dtype == np.uint16 else 1
    assert np.abs(back.astype(int) - levels)[..., :channels].max() <= 4 * step
    assert (picture.metadata.icc_profile, picture.metadata.xmp) == (
        metadata.icc_profile,
        b"<x/>",
    )


@needs("heif")
def test_white_of_10_bits_is_white_and_what_is_opaque_has_no_alpha():
    white = np.full((24, 32, 4), 65535, np.uint16)
    picture = read(ours(white, "heif", quality=100))
    assert picture.metadata.bit_depth == 16
    assert picture.alpha is None and picture.rgb.min() == picture.rgb.max() == 1


@needs("heif")
def test_the_colours_of_heif_by_code_points_become_a_profile():
    import pillow_heif

    file = pillow_heif.from_bytes("RGB", (32, 24), smooth(3).tobytes())
    profiles = []
    for primaries in (12, 1):
        stream = io.BytesIO()
        file.save(stream, color_primaries=primaries, transfer_characteristics=13)
        profiles.append(read(stream.getvalue()).metadata.icc_profile)
    assert b"D\0i\0s\0p\0l\0a\0y\0 \0P\0003" in profiles[0]
    assert profiles[1] is None, "sRGB"


@needs("heif")
def test_heif_is_as_upright_as_its_decoder_makes_it():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    import pillow_heif

    file = pillow_heif.from_bytes("RGB", (32, 24), smooth(3).tobytes())
    stream = io.BytesIO()
    file.save(stream, exif=exif.tobytes(), quality=-1)
    picture = read(stream.getvalue())
    stored = pillow_heif.open_heif(io.BytesIO(stream.getvalue()))
    assert (picture.width, picture.height) == stored.size
    block = Image.Exif()
    block.load(picture.metadata.exif)
    assert (block[0x0112], block[0x010F]) == (1, "Maker")


@needs("jxl")
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_jpeg_xl_there_and_back_without_loss(channels):
    levels = random_levels(channels, shape=(24, 32))
    data = ours(levels, "jxl", quality=100, like=Metadata(xmp=b"<x/>"))
    # Colours are multiplied by alpha and divided again.
    assert np.abs(through(data).astype(int) - levels).max() <= (channels in (2, 4))
    assert read(data).metadata.xmp == b"<x/>"


@needs("jxl")
def test_a_jpeg_xl_made_from_a_jpeg_is_one_nevertheless():
    import pillow_jxl

    exif = Image.Exif()
    exif[0x10E] = "a ramp"
    stream = io.BytesIO()
    Image.fromarray(smooth(3)).save(stream, "JPEG", quality=70, exif=exif, comment=b"hello")
    encoder = pillow_jxl.Encoder(mode="RGB", quality=100, num_threads=1)
    picture = read(encoder(stream.getvalue(), 32, 24, jpeg_encode=True))
    pixels = read(stream.getvalue())
    assert (picture.rgb == pixels.rgb).all()
    assert picture.metadata.source_format == "jpeg xl" and picture.notes == ()
    assert picture.metadata.exif == pixels.metadata.exif is not None
    assert picture.jpeg_table == pixels.jpeg_table is not None


@needs("jxl")
@pytest.mark.parametrize("size", [(8, 8), (24, 32), (300, 7), (1080, 1920)])
def test_jpeg_xl_is_refused_by_its_size_before_it_is_decoded(size, monkeypatch):
    data = ours(np.zeros((*size, 3), np.uint8), "jxl")
    assert (read(data).height, read(data).width) == size
    monkeypatch.setattr("pillow_jxl.Decoder", None)
    with pytest.raises(InputError, match=f"it has {size[1]}x{size[0]}"):
        read(data, max_pixels=size[0] * size[1] - 1)


@needs("jxl")
@needs("tiff")
@pytest.mark.parametrize(("channels", "is_exact"), [(1, True), (2, True), (3, False)])
def test_jpeg_xl_of_16_bits(channels, is_exact):
    import imagecodecs

    levels = random_levels(channels, np.uint16, (24, 32))
    stored = levels[..., 0] if channels == 1 else levels
    data = bytes(imagecodecs.jpegxl_encode(stored, lossless=True))
    if is_exact:
        assert np.abs(through(data).astype(int) - levels).max() <= (channels == 2)
    else:
        assert read(data).notes == ("JPEG XL colours of more than 8 bits were read at 8 bits",)
        assert through(data).dtype == np.uint8


@needs("jxl")
@needs("tiff")
def test_animated_jpeg_xl_is_told():
    import imagecodecs

    frames = np.stack([smooth(3)] * 3)
    data = bytes(imagecodecs.jpegxl_encode(frames, lossless=True))
    assert read(data).notes == ("it is animated: the first frame was read",)


@needs("jxl")
def test_a_profile_that_jpeg_xl_does_not_take_is_told():
    stream = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    notes = encode.encode_levels(
        stream, smooth(3), format="jxl", like=Metadata(icc_profile=profile)
    )
    assert notes == ("JPEG XL is written without a profile: the colours may look different",)


@pytest.mark.parametrize(("extra", "format"), [("heif", "heif"), ("jxl", "jxl")])
def test_the_missing_extra_is_named(extra, format, monkeypatch):
    head = {"heif": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "jxl": b"\xff\x0a"}[extra] + bytes(40)
    for module in (decode, encode):
        monkeypatch.setattr(module, "has_extra", lambda extra: False)
    with pytest.raises(InputError, match="by an extra") as caught:
        read(head)
    assert caught.value.hint == f"pip install 'vdsr-cli[{extra}]'"
    with pytest.raises(OutputError, match="by an extra") as refused:
        ours(smooth(3), format)
    assert refused.value.hint == f"pip install 'vdsr-cli[{extra}]'"


@needs("tiff")
def test_the_extra_tiff_is_named_where_it_would_help(monkeypatch):
    monkeypatch.setattr(decode, "has_extra", lambda extra: False)
    for data in (
        tiff(COLOURS.astype("f4")),
        tiff(smooth(3), compression="webp"),
    ):
        with pytest.raises(InputError) as caught:
            read(data)
        assert "vdsr-cli[tiff]" in caught.value.hint
        assert "damaged" not in str(caught.value) or "or of a rare kind" in str(caught.value)


@needs("heif")
@needs("jxl")
@needs("tiff")
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_damaged_files_are_an_input_error_or_a_picture(share):
    files = [ours(smooth(3), "heif"), ours(smooth(3), "jxl"), tiff(COLOURS.astype("f4"))]
    for data in files:
        cut = int(len(data) * share)
        flipped = data[:cut] + bytes(b ^ 0xFF for b in data[cut : cut + 8]) + data[cut + 8 :]
        for damaged in (data[:cut], flipped):
            try:
                read(damaged)
            except InputError as error:
                assert "\n" not in str(error)


@needs("tiff")
def test_pages_that_go_round_in_a_circle_are_refused():
    data = bytearray(tiff(np.zeros((8, 8, 3), np.float32), metadata=None))
    (directory,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * tags, directory)
    with pytest.raises(InputError, match="more than 100 pages"):
        read(bytes(data))


@needs("heif")
@pytest.mark.parametrize(
    ("kinds", "has_depth", "told"),
    [
        (["urn:com:apple:photo:2020:aux:hdrgainmap"], False, ["gain map"]),
        (["urn:iso:std:iso:ts:21496:-1"], True, ["depth map", "gain map"]),
        (["urn:com:apple:photo:2018:aux:portraiteffectsmatte"], False, ["auxiliary"]),
        ([], False, []),
    ],
)
def test_what_stands_beside_a_heif_is_told(kinds, has_depth, told, monkeypatch):
    import pillow_heif

    packet = b'<x xmlns:HDRGainMap="http://ns.apple.com/HDRGainMap/1.0/" HDRGainMap:Version="1"/>'
    claims = packet if "gain map" in told else b"<x/>"
    data = ours(smooth(3), "heif", like=Metadata(xmp=claims))
    really_open = pillow_heif.open_heif

    def opened(*given, **options):
        file = really_open(*given, **options)
        file[file.primary_index].info["aux"] = {kind: [2] for kind in kinds}
        file[file.primary_index].info["depth_images"] = [object()] * has_depth
        return file

    monkeypatch.setattr(pillow_heif, "open_heif", opened)
    notes = read(data).notes
    assert len(notes) == len(told)
    assert all(part in note for part, note in zip(told, notes, strict=True))


@needs("tiff")
def test_files_leave_no_handlers_behind():
    read(tiff(COLOURS.astype("f4")))
    before = list(logging.getLogger("tifffile").handlers)
    read(tiff(COLOURS.astype("f4")))
    assert logging.getLogger("tifffile").handlers == before

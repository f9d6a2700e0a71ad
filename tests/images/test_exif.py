"""EXIF blocks are edited in place: all but what is about the pixels keeps its bytes."""

import io
import struct

import numpy as np
import pytest
from picture_files import encode, ours, random_levels, read
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from vdsr_cli.images.exif import ExifBlock
from vdsr_cli.images.metadata import sized_exif

ARTIST, COPYRIGHT, DESCRIPTION, MAKER_NOTE = 0x013B, 0x8298, 0x010E, 0x927C
UTF8 = "Zoë Müller ☃ 日本".encode()
LATIN1 = "Zoë Müller".encode("latin-1")
NOTE = b"MAKER\0" + bytes(range(256)) * 3
THUMBNAIL = b"\xff\xd8" + b"thumbnail" * 9 + b"\xff\xd9"


def field(order, tag, kind, count, value):
    packed = value if isinstance(value, bytes) else struct.pack(order + "I", value)
    if kind == 3 and isinstance(value, int):
        packed = struct.pack(order + "H", value) + b"\0\0"
    return struct.pack(order + "HHI", tag, kind, count) + packed.ljust(4, b"\0")


def block(order="<", *, orientation=6, thumbnail=True, resolution=(300, 1, 200, 1), kind=5):
    """A block by hand: text in two encodings, a maker's note, a thumbnail, and an ill-typed tag."""
    texts = UTF8 + b"\0", LATIN1 + b"\0"
    first, exif, values = 8, 8 + 2 + 12 * 7 + 4, 8 + 2 + 12 * 7 + 4 + 2 + 12 * 4 + 4
    places, behind = [], b""
    for data in (*texts, struct.pack(order + "2I", *resolution[:2]),
                 struct.pack(order + "2I", *resolution[2:]), NOTE):  # fmt: skip
        places.append(values + len(behind))
        behind += data + bytes(len(data) % 2)
    second = values + len(behind)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", first)
    directory = struct.pack(order + "H", 7)
    directory += field(order, 0x0103, 2, 4, b"bad\0")  # Compression of type ASCII
    directory += field(order, 0x0112, 3, 1, orientation)
    directory += field(order, 0x011A, kind, 1 if kind == 5 else 8, places[2])
    directory += field(order, 0x011B, kind, 1 if kind == 5 else 8, places[3])
    directory += field(order, ARTIST, 2, len(texts[0]), places[0])
    directory += field(order, COPYRIGHT, 2, len(texts[1]), places[1])
    directory += field(order, 0x8769, 4, 1, exif)
    directory += struct.pack(order + "I", second if thumbnail else 0)
    details = struct.pack(order + "H", 4)
    details += field(order, MAKER_NOTE, 7, len(NOTE), places[4])
    details += field(order, 0xA001, 3, 1, 65535)
    details += field(order, 0xA002, 3, 1, 17) + field(order, 0xA003, 4, 1, 11) + bytes(4)
    whole = head + directory + details + behind
    if thumbnail:
        place = len(whole) + 2 + 24 + 4
        whole += struct.pack(order + "H", 2) + field(order, 513, 4, 1, place)
        whole += field(order, 514, 4, 1, len(THUMBNAIL)) + bytes(4) + THUMBNAIL
    return b"Exif\0\0" + whole


def with_changes(data, changes):
    changed = bytearray(data)
    for at, new in changes.items():
        changed[at : at + len(new)] = new
    return bytes(changed)


@pytest.mark.parametrize("order", ["<", ">"])
def test_all_but_the_pixels_keeps_its_bytes(order):
    data = block(order)
    edited = ExifBlock(data)
    edited.drop_thumbnail()
    edited.set_upright((17, 11))
    edited.set_size(70_000, 44)
    plain = block(order, orientation=1, thumbnail=False, resolution=(200, 1, 300, 1))
    width = plain.index(struct.pack(order + "HHI", 0xA002, 3, 1))
    height = plain.index(struct.pack(order + "HHI", 0xA003, 4, 1))
    expected = with_changes(
        plain,
        {
            width: struct.pack(order + "HHII", 0xA002, 4, 1, 70_000),
            height: struct.pack(order + "HHII", 0xA003, 4, 1, 44),
        },
    )
    assert edited.tobytes() == expected


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tiff"])
def test_text_and_makers_notes_pass_through_a_file(order, format):
    source = encode(Image.fromarray(random_levels(3)), "JPEG", exif=block(order))
    like = read(source).metadata
    made = ours(random_levels(3, shape=(68, 44)), format, like=like)
    for text in (UTF8, LATIN1, NOTE):
        assert made.count(text) == 1
    assert THUMBNAIL not in made
    # The maker's note counts its offsets from the header of the block, or of the TIFF.
    start = 0 if format == "tiff" else made.index(b"II*\0" if order == "<" else b"MM\0*")
    assert made.index(NOTE) - start == block(order).index(NOTE) - 6
    again = read(made).metadata
    assert sized_exif(again.exif, width=1, height=1, like=again).count(NOTE) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_resolution_is_turned_with_its_pixels(orientation):
    exif = block(orientation=orientation)
    picture = read(encode(Image.fromarray(random_levels(3)), "JPEG", exif=exif, dpi=(300, 200)))
    swapped = orientation > 4
    assert picture.metadata.dpi == ((200, 300) if swapped else (300, 200))
    stored = struct.pack("<4I", 200, 1, 300, 1) if swapped else struct.pack("<4I", 300, 1, 200, 1)
    assert stored in picture.metadata.exif


def test_an_absurd_resolution_is_left_out_and_told():
    exif = block(resolution=(2**32 - 1, 1, 2**32 - 1, 1), orientation=1)
    data = encode(Image.fromarray(random_levels(3)), "JPEG", exif=exif)
    picture = read(data)
    assert any("resolution" in note for note in picture.notes)
    for format in ("jpg", "png", "tiff", "webp"):
        again = read(ours(random_levels(3), format, like=picture.metadata))
        assert again.metadata.dpi is None and not any("resolution" in n for n in again.notes)
    assert UTF8 in picture.metadata.exif and NOTE in picture.metadata.exif


@pytest.mark.parametrize("dpi", [(1e9, 1e9), (70_000, 70_000), (float(2**31), 5)])
@pytest.mark.parametrize("format", ["jpg", "png", "tiff", "bmp"])
def test_an_absurd_resolution_of_a_png_stops_no_format(dpi, format):
    from picture_files import png

    density = struct.pack(">IIB", *(min(2**32 - 1, round(v / 0.0254)) for v in dpi), 1)
    picture = read(png(1, 1, 8, 0, [b"\x80"], (b"pHYs", density)))
    assert picture.metadata.dpi is None and "resolution" in picture.notes[0]
    ours(random_levels(1), format, like=picture.metadata)


def test_an_ill_typed_tag_costs_no_other():
    data = encode(Image.fromarray(random_levels(3)), "JPEG", exif=block(kind=2))
    picture = read(data)
    assert picture.notes == ()
    assert UTF8 in picture.metadata.exif and NOTE in picture.metadata.exif


def test_a_block_that_is_none_is_told():
    data = encode(Image.fromarray(random_levels(3)), "JPEG", exif=b"Exif\0\0nothing of the kind")
    picture = read(data)
    assert picture.metadata.exif is None
    assert picture.notes == ("its EXIF block is damaged and was left out",)


def test_whatever_a_block_says_it_is_edited_or_refused():
    data = block()
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(data)
        for at in rng.integers(6, len(data), 8):
            damaged[at] = rng.integers(256)
        try:
            edited = ExifBlock(bytes(damaged[: rng.integers(8, len(data) + 1)]))
        except ValueError:
            continue
        edited.drop_thumbnail()
        edited.set_upright((17, 11))
        edited.set_size(9, 9)
        edited.scale_figures(4, 4)
        edited.scale_map(4, 4)
        edited.drop(ARTIST)
        assert len(edited.tobytes()) <= len(data)


def geo(kind=1, *, matrix=False):
    """A GeoTIFF of half a metre a pixel, with a tie point at (2, 1)."""
    image = Image.fromarray(random_levels(3, shape=(6, 8)))
    tags = Image.Exif()
    stream = io.BytesIO()
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    info = ImageFileDirectory_v2()
    info[34735] = (1, 1, 0, 1, 1025, 0, 1, kind)
    info.tagtype[34735] = 3
    values = {33550: (0.5, 0.5, 0.0), 33922: (2.0, 1.0, 0.0, 100.0, 50.0, 0.0)}
    if matrix:
        values = {34264: (0.5, 0, 0, 99, 0, -0.5, 0, 50.5, 0, 0, 0, 0, 0, 0, 0, 1)}
    for tag, numbers in values.items():
        info[tag], info.tagtype[tag] = tuple(map(float, numbers)), 12
    image.save(stream, "TIFF", tiffinfo=info, exif=tags)
    return stream.getvalue()


def place(tags, column, row):
    """Where the middle of a pixel is on the map."""
    is_point = 2 in tags[34735][7::4]
    i, j = (column, row) if is_point else (column + 0.5, row + 0.5)
    if 34264 in tags:
        m = tags[34264]
        return m[0] * i + m[1] * j + m[3], m[4] * i + m[5] * j + m[7]
    (x, y, *_), tie = tags[33550], tags[33922]
    return tie[3] + (i - tie[0]) * x, tie[4] - (j - tie[1]) * y


@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize("kind", [1, 2])
def test_a_map_stays_where_it_was(kind, matrix):
    data = geo(kind, matrix=matrix)
    made = ours(random_levels(3, shape=(24, 32)), "tiff", like=read(data).metadata)
    before, after = (Image.open(io.BytesIO(each)).tag_v2 for each in (data, made))
    for column, row in ((0, 0), (7, 5), (3, 2)):
        # The middle of a pixel is that of the four by four that it became.
        expected = place(before, column, row)
        assert place(after, 4 * column + 1.5, 4 * row + 1.5) == pytest.approx(expected)
    if not matrix:
        assert after[33550][:2] == (0.125, 0.125)


DETAILS = 0x8769
AREA, LOCATION, FOCAL_X, FOCAL_Y = 0x9214, 0xA214, 0xA20E, 0xA20F


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_counted_in_pixels_is_counted_in_those_of_the_output(orientation):
    levels = np.zeros((20, 32, 3), np.uint8)
    levels[4:9, 20:31] = 255  # 11 by 5 pixels about (25, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(DETAILS).update({AREA: (25, 6, 11, 5), LOCATION: (25, 6)})
    exif.get_ifd(DETAILS).update({FOCAL_X: IFDRational(6001, 2), FOCAL_Y: IFDRational(2000)})
    picture = read(encode(Image.fromarray(levels), "PNG", exif=exif))
    size = 3 * picture.width, 3 * picture.height
    made = Image.Exif()
    made.load(sized_exif(picture.metadata.exif, width=size[0], height=size[1],
                         like=picture.metadata))  # fmt: skip
    details = made.get_ifd(DETAILS)
    x, y, width, height = details[AREA]
    white = (picture.rgb[0, 0] > 0.5).nonzero()
    (top, left), (bottom, right) = white.min(0).values.tolist(), (white.max(0).values + 1).tolist()
    assert (width, height) == (3 * (right - left), 3 * (bottom - top))
    assert abs(x - 3 * (left + right - 1) / 2) <= 3 and abs(y - 3 * (top + bottom - 1) / 2) <= 3
    assert details[LOCATION] == (x, y)
    focal = (3000.5, 2000.0) if orientation < 5 else (2000.0, 3000.5)
    assert (details[FOCAL_X], details[FOCAL_Y]) == tuple(3 * value for value in focal)


def test_the_polynomials_of_a_map_lead_where_they_led():
    """RPC: a place on the Earth gives (line - offset) / scale."""
    numbers = [0.0, 0.0, 2.5, 3.5, 48.0, 11.0, 500.0, 3.0, 4.0, 0.1, 0.1, 500.0, *range(80)]
    made = ours(
        random_levels(3, shape=(24, 32)), "tiff", like=read(rare_geo(50844, numbers)).metadata
    )
    after = Image.open(io.BytesIO(made)).tag_v2[50844]
    for offset, scale, at in ((2, 7, 5), (3, 8, 6)):
        before = (at - numbers[offset]) / numbers[scale]
        assert (4 * at + 1.5 - after[offset]) / after[scale] == pytest.approx(before)
    assert list(after[9:]) == numbers[9:]


def rare_geo(tag, numbers):
    """A TIFF of 8 by 6 pixels with a tag of floating-point numbers."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    info = ImageFileDirectory_v2()
    info[tag], info.tagtype[tag] = tuple(map(float, numbers)), 12
    return encode(Image.fromarray(random_levels(3, shape=(6, 8))), "TIFF", tiffinfo=info)


def test_a_pixel_size_of_one_number_ends_nothing():
    like = read(rare_geo(33550, [0.5])).metadata
    made = ours(random_levels(3, shape=(24, 32)), "tiff", like=like)
    assert Image.open(io.BytesIO(made)).tag_v2[33550] == 0.125

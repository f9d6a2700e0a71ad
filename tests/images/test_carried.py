"""PNG chunks, IPTC, comments and XMP: carried, or told."""

import io
import struct
import zlib

import pytest
from picture_files import SRGB, encode, ours, png, random_levels, read
from PIL import Image

from vdsr_cli.images import encode_levels
from vdsr_cli.images.png_chunks import split_png
from vdsr_cli.images.resources import iptc_of, resources_of_iptc

RECORDS = b"\x1c\x02\x00\x00\x02\x00\x04\x1c\x02\x78\x00\x07caption\x1c\x02\x19\x00\x03key"
TEXTS = [
    (b"tEXt", b"parameters\0a castle, steps 20, seed 1"),
    (b"tEXt", b"gamma\x002.2"),
    (b"tEXt", b"icc_profile\0not one"),
    (b"tEXt", b"transparency\0no"),
    (b"tEXt", b"dpi\0many"),
    (b"tEXt", b"exif\0not that"),
    (b"zTXt", b"prompt\0\0" + zlib.compress(b"{" + b"x" * 2_000_000 + b"}")),
    (b"iTXt", b"Title\0\0\0de\0Titel\0" + "Übersicht".encode()),
]


def jpeg(**options):
    return encode(Image.fromarray(random_levels(3)), "JPEG", **options)


def segment(kind, body):
    return bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body


def test_texts_keep_their_bytes():
    picture = read(png(1, 1, 8, 2, [b"abc"], *TEXTS))
    assert picture.notes == ()
    made = ours(random_levels(3), "png", like=picture.metadata)
    for kind, body in TEXTS:
        assert kind + body in made
    assert read(made).metadata.png_chunks == tuple(TEXTS)
    for format in ("jpg", "webp", "tiff"):
        notes = encode_levels(io.BytesIO(), random_levels(3), format=format, like=picture.metadata)
        assert "parameters" in notes[0] and "text" in notes[0]


def test_long_profiles_are_read_again():
    # 5 MB that deflate to little: a file that this package writes.
    long = SRGB[:16] + b"RGB " + SRGB[20:] + bytes(5_000_000)
    picture = read(png(1, 1, 8, 2, [b"abc"], (b"iCCP", b"x\0\0" + zlib.compress(long))))
    assert picture.metadata.icc_profile == long
    assert read(ours(random_levels(3), "png", like=picture.metadata)).metadata.icc_profile == long


@pytest.mark.parametrize(
    "chunk",
    [
        (b"iCCP", b"x\0\0nothing deflated"),
        (b"iCCP", b""),
        (b"pHYs", b"short"),
        (b"cHRM", b"short"),
        (b"gAMA", b""),
        (b"cICP", b"\1\2"),
        (b"iTXt", b"XML:com.adobe.xmp\0"),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  4\nnot hex")),
    ],
)
def test_a_damaged_chunk_costs_itself_and_is_told(chunk):
    picture = read(png(1, 1, 8, 2, [b"abc"], chunk))
    assert picture.notes == (f"its {chunk[0].decode()} chunk is damaged and was left out",)
    assert picture.rgb.shape == (1, 3, 1, 1)


def test_a_wrong_checksum_costs_its_chunk():
    data = png(1, 1, 8, 2, [b"abc"], (b"tEXt", b"Title\0Sunset"))
    assert read(data.replace(b"Sunset", b"Sunrie")).notes


def test_chunks_of_pixels_stay():
    data = png(2, 1, 8, 3, [b"\0\1"], (b"PLTE", b"abcdef"), (b"tRNS", b"\0"), *TEXTS)
    pixels, stored = split_png(data)
    assert len(pixels) < 200 and len(stored.png_chunks) == len(TEXTS)
    assert read(pixels).rgb.equal(read(data).rgb)


def test_iptc_and_comments_of_a_jpeg():
    resources = resources_of_iptc(RECORDS)
    extra = segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x0c\0\0\0\0\0\4abcd" + resources)
    picture = read(jpeg(extra=extra, comment="Grüße".encode()))
    assert picture.notes == ()
    for format in ("jpg", "png", "tiff"):
        made = ours(random_levels(3), format, like=picture.metadata)
        again = read(made).metadata
        assert iptc_of(again.photoshop) == RECORDS, format
        assert b"abcd" not in again.photoshop  # the thumbnail
        if format == "jpg":
            assert again.comment == "Grüße".encode()
        if format == "png":
            with Image.open(io.BytesIO(made)) as image:
                assert image.text["Comment"] == "Grüße"
    notes = encode_levels(io.BytesIO(), random_levels(3), format="webp", like=picture.metadata)
    assert notes == (
        "WebP holds no comment: it was left out",
        "WebP holds no IPTC: it was left out",
    )


def test_profiles_in_texts_are_what_they_say():
    def text(name, profile):
        lines = profile.hex()
        body = f"\n{name}\n{len(profile):8}\n{lines}\n".encode()
        return b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(body)

    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHHI", 274, 3, 1, 6, 0, 0)
    chunks = text("exif", exif), text("iptc", resources_of_iptc(RECORDS)), text("xmp", b"<x/>")
    picture = read(png(2, 1, 8, 2, [b"abcdef"], *chunks))
    assert (picture.width, picture.height) == (1, 2)
    assert iptc_of(picture.metadata.photoshop) == RECORDS
    assert picture.metadata.xmp == b"<x/>"


def test_xmp_of_a_gif():
    data = encode(Image.fromarray(random_levels(3)), "GIF")
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    extension = b"!\xff\x0bXMP DataXMP<x:xmpmeta/>" + trailer
    size = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    assert read(data[:size] + extension + data[size:]).metadata.xmp == b"<x:xmpmeta/>"


def packet(body, **spaces):
    names = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in spaces.items())
    return f"<x:xmpmeta><rdf:RDF><rdf:Description{names} {body}</rdf:RDF></x:xmpmeta>".encode()


def test_dimensions_in_xmp_are_the_outputs():
    xmp = packet(
        't:ImageWidth="17" keep="Ünicode"><t:ImageLength>11</t:ImageLength>'
        "<e:PixelXDimension>17</e:PixelXDimension>"
        "<e:FocalPlaneXResolution>9000/3</e:FocalPlaneXResolution></rdf:Description>",
        t="http://ns.adobe.com/tiff/1.0/",
        e="http://ns.adobe.com/exif/1.0/",
    )
    like = read(jpeg(xmp=xmp)).metadata
    made = read(ours(random_levels(3, shape=(44, 68)), "png", like=like)).metadata.xmp
    assert made == xmp.replace(b"17", b"68").replace(b">11<", b">44<").replace(b"9000", b"36000")


def panorama(full: int, left: int) -> bytes:
    return packet(
        f'GPano:ProjectionType="equirectangular" GPano:FullPanoWidthPixels="{full}"'
        f' GPano:CroppedAreaLeftPixels="{left}" GPano:InitialViewHeadingDegrees="17">'
        "<GPano:FullPanoHeightPixels>11</GPano:FullPanoHeightPixels>"
        "<GPano:CroppedAreaImageWidthPixels>17</GPano:CroppedAreaImageWidthPixels>"
        "<GPano:CroppedAreaImageHeightPixels>11</GPano:CroppedAreaImageHeightPixels>"
        "<GPano:CroppedAreaTopPixels>0</GPano:CroppedAreaTopPixels></rdf:Description>",
        GPano="http://ns.google.com/photos/1.0/panorama/",
    )


@pytest.mark.parametrize(("full", "left", "is_all_around"), [(17, 0, True), (30, 5, False)])
def test_the_pixels_of_a_panorama_are_scaled(full, left, is_all_around):
    like = read(jpeg(xmp=panorama(full, left))).metadata
    assert like.is_panorama is is_all_around and like.stripped().is_panorama is is_all_around
    made = read(ours(random_levels(3, shape=(44, 68)), "png", like=like)).metadata.xmp
    expected = panorama(4 * full, 4 * left).replace(b">17<", b">68<").replace(b">11<", b">44<")
    assert made == expected


@pytest.mark.parametrize(
    ("body", "spaces", "part"),
    [
        ('h:Version="1.0" h:GainMapMax="3.5" keep="me"/>',
         {"h": "http://ns.adobe.com/hdr-gain-map/1.0/"}, "gain map"),
        ('cam:MotionPhoto="1" cam:MotionPhotoVersion="1" keep="me"><C:Directory><rdf:Seq>'
         '<rdf:li C:Item="video"/></rdf:Seq></C:Directory></rdf:Description>',
         {"cam": "http://ns.google.com/photos/1.0/camera/",
          "C": "http://ns.google.com/photos/1.0/container/"}, "video"),
        ('cam:MicroVideo="1" cam:MicroVideoOffset="9" keep="me"/>',
         {"cam": "http://ns.google.com/photos/1.0/camera/"}, "video"),
        ('n:HasExtendedXMP="0123" keep="me"/>',
         {"n": "http://ns.adobe.com/xmp/note/"}, "extended"),
    ],
)  # fmt: skip
def test_xmp_claims_no_part_that_is_left_out(body, spaces, part):
    picture = read(jpeg(xmp=packet(body, **spaces)))
    assert len(picture.notes) == 1 and part in picture.notes[0]
    kept = picture.metadata.xmp
    assert b'keep="me"' in kept
    for claim in (b"GainMap", b"Version", b"Motion", b"MicroVideo", b"Item", b"HasExtended"):
        assert claim not in kept


def test_what_other_segments_hold_is_told():
    picture = read(jpeg(extra=segment(0xE1, b"QVCI\0" + bytes(90)) + segment(0xE8, b"SPIFF\0ab")))
    assert picture.notes == ("its segments QVCI, SPIFF were left out",)


def test_what_stands_behind_a_picture_is_told():
    assert read(jpeg() + b"AXS!" + bytes(range(200))).notes == (
        "what stands behind the picture in its file was left out",
    )
    assert read(jpeg() + bytes(100)).notes == ()


def test_stripped_metadata_is_the_profile():
    picture = read(jpeg(comment=b"hello", icc_profile=SRGB, exif=b"", dpi=(300, 300)))
    like = picture.metadata.stripped()
    assert (like.icc_profile, like.comment, like.dpi, like.exif) == (SRGB, None, None, None)


def with_jfif_density(across, down):
    data = bytearray(jpeg())
    place = data.index(b"JFIF\0") + 7
    struct.pack_into(">BHH", data, place, 0, across, down)
    return bytes(data)


def with_gif_aspect(aspect):
    data = bytearray(encode(Image.fromarray(random_levels(3)), "GIF"))
    data[12] = aspect
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "square", "oblong"),
    [
        (lambda x, y: png(1, 1, 8, 2, [b"abc"], (b"pHYs", struct.pack(">IIB", x, y, 0))),
         [(1, 1), (3, 3), (0, 0)], [(1, 2), (3, 2)]),
        (with_jfif_density, [(1, 1), (2, 2), (0, 1)], [(1, 2)]),
        (with_gif_aspect, [(0,), (49,)], [(113,)]),
    ],
)  # fmt: skip
def test_pixels_that_are_not_square_are_told(make, square, oblong):
    assert all(read(make(*figures)).notes == () for figures in square)
    for figures in oblong:
        assert read(make(*figures)).notes == (
            "its pixels are not square, which the output does not say",
        )

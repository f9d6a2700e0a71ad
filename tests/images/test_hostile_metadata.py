"""Metadata made to hold a reader up, or to end it."""

import io
import struct
import time
import zlib

import pytest
from picture_files import encode, ours, png, random_levels, read
from PIL import Image

from vdsr_cli.images import xmp
from vdsr_cli.images.directories import Value, pack_directory, read_directory
from vdsr_cli.images.exif import ExifBlock

GAIN = 'xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/" '
BYTES = 300_000
PACKETS = {
    "spaces": GAIN + " " * BYTES,
    "opened": GAIN + "<h:a>" * (BYTES // 5),
    "opened by many names": GAIN + "".join(f"<h:a{i}>" for i in range(BYTES // 9)),
    "begun": GAIN + "<h:a" * (BYTES // 4),
    "dotted": GAIN + "<h:" + "a." * (BYTES // 2),
    "closed": GAIN + "<h:a></h:a" * (BYTES // 10),
    "attributes": GAIN + " h:a='" * (BYTES // 6),
    "prefixes": "".join(GAIN.replace(":h", f":h{i}") for i in range(BYTES // 55)),
    "values": ' tiff:ImageWidth="1"' * (BYTES // 20),
    "digits": ' tiff:ImageWidth="' + "1" * BYTES,
}


def seconds(work, *given):
    before = time.process_time()
    work(*given)
    return time.process_time() - before


def through_xmp(packet):
    xmp.orientation_in(packet)
    xmp.is_all_around(packet)
    xmp.without_claims(packet)
    return xmp.set_size(xmp.set_upright(packet), 9, 9, (3, 3))


@pytest.mark.parametrize("kind", PACKETS)
def test_a_packet_takes_time_by_its_length(kind):
    """Where each byte were compared with each, these would take minutes."""
    assert seconds(through_xmp, PACKETS[kind].encode()) < 3


def test_a_deflated_packet_of_spaces_is_read():
    packet = zlib.compress((GAIN + " " * 1_000_000).encode())
    chunk = b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packet
    assert seconds(read, png(1, 1, 8, 2, [b"abc"], chunk)) < 5


def test_the_packets_that_a_gif_begins_take_time_by_their_length():
    data = encode(Image.fromarray(random_levels(3)), "GIF")
    data = data[:-1] + b"!\xfe" + (b"\xc8" + b"\x0bXMP DataXMP ".ljust(25) * 8) * 1500 + b"\0;"
    assert seconds(read, data) < 3


def test_a_thumbnail_of_many_entries_is_cut_off_soon():
    """All of which have the same long value."""
    entries, value = 20_000, bytes(100_000)
    exif = b"".join(struct.pack("<HHII", 1, 7, len(value), 8 + 6) for _ in range(entries))
    first = 8 + len(value) + 6
    second = first + 2 + 24 + 4
    block = b"II*\0" + struct.pack("<I", first) + bytes(6) + value
    block += struct.pack("<HHHIIHHIII", 2, 271, 2, 4, 0, 0x8769, 4, 1, second, second)
    block += struct.pack("<H", entries) + exif + bytes(4)
    edited = ExifBlock(block)
    assert seconds(edited.drop_thumbnail) < 5


def test_entries_that_share_their_bytes_fill_no_memory():
    value = bytes(1 << 20)
    entries = {tag: struct.pack("<HHII", tag, 7, len(value), 8) for tag in range(1000, 2000)}
    at = 8 + len(value)
    data = b"II*\0" + struct.pack("<I", at) + value
    data += pack_directory("<", entries, at, is_big=False)
    _, found = read_directory(io.BytesIO(data))
    assert found and sum(len(each.data) for each in found.values()) <= 1 << 26
    assert all(isinstance(each, Value) for each in found.values())


def test_a_directory_that_leads_to_itself_again_and_again_is_read_few_times():
    count = 1000
    pointer = struct.pack("<HHII", 0x8769, 4, 1, 8)
    data = b"II*\0" + struct.pack("<IH", 8, count) + count * pointer + bytes(4)
    reads = []

    class Stream(io.BytesIO):
        def read(self, *size):
            reads.append(size)
            return super().read(*size)

    _, found = read_directory(Stream(data))
    assert found.keys() == {0x8769} and len(reads) < 10


@pytest.mark.parametrize("digits", [10, 310, 5000])
def test_a_number_beyond_any_picture_is_none(digits):
    packet = (
        'xmlns:G="http://ns.google.com/photos/1.0/panorama/" equirectangular'
        f' G:FullPanoWidthPixels="{"9" * digits}" G:CroppedAreaImageWidthPixels="17"'
    ).encode()
    picture = read(encode(Image.fromarray(random_levels(3)), "JPEG", xmp=packet))
    assert not picture.metadata.is_panorama
    made = read(ours(random_levels(3, shape=(44, 68)), "png", like=picture.metadata))
    assert made.metadata.xmp == packet.replace(b'"17"', b'"68"')


@pytest.mark.parametrize("gamma", [1, 3, 900, 2**32 - 1])
def test_a_gamma_that_no_picture_has_is_none(gamma):
    data = png(1, 1, 8, 2, [b"abc"], (b"gAMA", struct.pack(">I", gamma)))
    assert read(data).metadata.icc_profile is None


@pytest.mark.parametrize("is_grey", [False, True])
@pytest.mark.parametrize("white", [(25_000, 71_207), (25_014, 71_194)])
def test_a_white_that_is_none_gives_no_profile(white, is_grey):
    figures = struct.pack(">8I", *white, 64000, 33000, 30000, 60000, 15000, 6000)
    chunks = (b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", figures)
    row = b"a" if is_grey else b"abc"
    picture = read(png(1, 1, 8, 0 if is_grey else 2, [row], *chunks))
    assert picture.metadata.icc_profile is None

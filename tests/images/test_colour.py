"""A file's statements on its colours are carried by a profile that says the same."""

import io
import struct

import numpy as np
import pytest
from picture_files import DATA, needs_avif, ours, png, random_levels, read
from PIL import Image, ImageCms

from vdsr_cli.images.colour import Primaries, profile_of_cicp, profile_of_figures

SRGB_CHRM = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3_CHRM = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def in_srgb(profile, colours):
    image = Image.fromarray(np.array([colours], np.uint8))
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    made = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
    return np.asarray(made)[0].astype(int)


def test_display_p3():
    # Colours inside sRGB by Apple's published Display P3, as CSS Color 4 converts them.
    profile = profile_of_cicp(12, 13, is_grey=False)
    colours = [(128, 128, 128), (255, 255, 255), (200, 120, 60), (60, 160, 90)]
    made = in_srgb(profile, colours)
    matrix = np.array(
        [[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]
    )  # fmt: skip
    unit = np.array(colours) / 255
    light = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4) @ matrix.T
    encoded = np.where(
        light <= 0.0031308, 12.92 * light, 1.055 * light.clip(0) ** (1 / 2.4) - 0.055
    )
    assert np.abs(made - 255 * encoded.clip(0, 1)).max() < 1.6


def test_linear_light():
    made = in_srgb(profile_of_figures(1.0, None, is_grey=False), [(55, 55, 55), (0, 0, 0)])
    assert np.abs(made[0] - 128).max() <= 1 and not made[1].any()  # 0.2158 is half in sRGB


@pytest.mark.parametrize("transfer", [1, 4, 5, 6, 7, 8, 11, 13, 14, 15, 16, 17, 18])
@pytest.mark.parametrize("is_grey", [False, True])
def test_every_curve_makes_a_sound_profile(transfer, is_grey):
    profile = profile_of_cicp(9, transfer, is_grey=is_grey)
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    assert opened.profile.xcolor_space.strip() == ("GRAY" if is_grey else "RGB")
    assert len(profile) == struct.unpack(">I", profile[:4])[0]
    if not is_grey:
        ramp = in_srgb(profile, [(v, v, v) for v in range(256)])
        assert (np.diff(ramp[:, 1]) >= 0).all() and ramp[-1, 1] == 255 and ramp[0, 1] == 0


def test_what_is_srgb_needs_no_profile():
    srgb = Primaries((0.3127, 0.329), (0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
    assert profile_of_figures(0.45455, srgb, is_grey=False) is None
    assert profile_of_figures(None, None, is_grey=False) is None
    assert profile_of_cicp(2, 2, is_grey=False) is None
    nothing = Primaries((0, 0), (0, 0), (0, 0), (0, 0))
    assert profile_of_figures(1.0, nothing, is_grey=False) is None


def png_with(*chunks, colour=2):
    row = b"\x80" if colour == 0 else b"\x80\x40\x20"
    return png(1, 1, 8, colour, [row], *chunks)


@pytest.mark.parametrize(
    ("chunks", "has_profile"),
    [
        ([(b"gAMA", struct.pack(">I", 100_000))], True),
        ([(b"gAMA", struct.pack(">I", 45_455))], False),
        ([(b"cHRM", P3_CHRM)], True),
        ([(b"cHRM", SRGB_CHRM), (b"gAMA", struct.pack(">I", 45_455))], False),
        ([(b"cHRM", P3_CHRM), (b"gAMA", struct.pack(">I", 45_455))], True),
        ([(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))], False),
        ([(b"cICP", bytes([1, 13, 0, 1])), (b"cHRM", P3_CHRM)], False),
        ([(b"cICP", bytes([9, 16, 0, 1]))], True),
        ([(b"gAMA", bytes(4))], False),
    ],
)
@pytest.mark.parametrize("format", ["png", "jpg", "tiff", "webp"])
def test_what_chunks_say_is_carried(chunks, has_profile, format):
    picture = read(png_with(*chunks))
    assert picture.notes == ()
    made = read(ours(random_levels(3), format, like=picture.metadata))
    assert made.metadata.icc_profile == picture.metadata.icc_profile
    assert (made.metadata.icc_profile is not None) == has_profile


def test_grey_has_a_grey_profile():
    picture = read(png_with((b"gAMA", struct.pack(">I", 100_000)), colour=0))
    assert picture.metadata.icc_profile[16:20] == b"GRAY"
    assert read(ours(random_levels(1), "png", like=picture.metadata)).metadata.icc_profile


def test_cicp_is_a_chunk_again():
    hdr = (b"cICP", bytes([9, 16, 0, 1])), (b"cLLI", bytes(8))
    picture = read(png_with(*hdr))
    made = ours(random_levels(3), "png", like=picture.metadata)
    assert b"cICP" + bytes([9, 16, 0, 1]) in made and b"cLLI" + bytes(8) in made
    assert made.index(b"cICP") < made.index(b"iCCP") < made.index(b"IDAT")


def test_a_code_that_no_profile_can_say_is_told():
    assert read(png_with((b"cICP", bytes([10, 9, 0, 1])))).notes


@needs_avif
def test_the_colours_of_avif():
    image = Image.fromarray(random_levels(3, shape=(24, 32)))
    stream = io.BytesIO()
    image.save(stream, "AVIF")
    data = stream.getvalue()
    at = data.index(b"colrnclx") + 8
    p3 = data[:at] + bytes([0, 12, 0, 13]) + data[at + 4 :]
    assert read(data).metadata.icc_profile is None
    assert read(p3).metadata.icc_profile == profile_of_cicp(12, 13, is_grey=False)
    assert read((DATA / "ten-bit.avif").read_bytes()).metadata.icc_profile is None

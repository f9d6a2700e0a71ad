"""Refusals, in one line, before anything is decoded."""

import io
import os
import struct
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import (
    DATA,
    encode,
    exif_block,
    needs_avif,
    ours,
    png,
    random_levels,
    read,
    through,
)
from PIL import Image, features

from vdsr_cli.config import MAX_PIXELS
from vdsr_cli.errors import InputError, OutputError
from vdsr_cli.images import encode_levels, read_picture


def frames(count=3):
    return [Image.new("RGB", (4, 4), (index * 40, 0, 0)) for index in range(count)]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", pytest.param("AVIF", marks=needs_avif)])
def test_animations_are_refused(format):
    first, *rest = frames()
    data = encode(first, format, save_all=True, append_images=rest, duration=50)
    with pytest.raises(InputError, match="animated, with 3 frames") as caught:
        read(data)
    assert caught.value.hint is not None
    assert "ffmpeg" in caught.value.hint


def test_pages_are_refused_and_reduced_copies_are_not():
    first, *rest = frames()
    with pytest.raises(InputError, match="3 pages"):
        read(encode(first, "TIFF", save_all=True, append_images=rest))
    rest[0].encoderinfo = {"tiffinfo": {254: 1}}
    picture = read(encode(first, "TIFF", save_all=True, append_images=rest[:1]))
    assert picture.rgb.shape == (1, 3, 4, 4)


def test_camera_raws_are_refused():
    for tags in ({254: 1}, {50706: b"\1\4\0\0"}):
        with pytest.raises(InputError, match="camera raw"):
            read(encode(frames(1)[0], "TIFF", tiffinfo=tags))


def test_the_first_picture_of_a_phone_jpeg_is_read():
    first, *rest = frames()
    data = encode(first, "MPO", save_all=True, append_images=rest)
    assert read(data).notes == ("the first of 3 pictures in the file was read",)


@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", pytest.param("AVIF", marks=needs_avif)]
)
def test_truncated_files_are_refused(format):
    image = Image.open(DATA / "roof.png").convert("P" if format == "GIF" else "RGB")
    data = encode(image, format)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(InputError, match=r"truncated|damaged"):
            read(data[: int(len(data) * share)])


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF"]), st.data())
def test_damage_gives_an_input_error_or_a_picture(format, data):
    image = Image.fromarray(random_levels(3)).convert("P" if format == "GIF" else "RGB")
    options = {"exif": exif_block(3)} if format != "GIF" else {}
    damaged = bytearray(encode(image, format, **options))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        picture = read(bytes(damaged), max_pixels=1_000_000)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert torch.isfinite(picture.rgb).all()


@pytest.mark.skipif(sys.platform == "win32", reason="libtiff is out of reach there")
def test_libtiff_prints_nothing_and_its_complaints_are_a_note(capfd):
    sound = encode(Image.new("1", (64, 64), 1), "TIFF", compression="group4")
    assert read(sound).notes == ()
    damaged = sound[:8] + b"\xff\0\xff\x12" + sound[12:]
    assert any("damaged (Fax4Decode)" in note for note in read(damaged).notes)
    cut = bytearray(encode(frames(1)[0], "TIFF", compression="tiff_adobe_deflate"))
    cut[10:20] = bytes(10)
    with pytest.raises(InputError, match="damaged"):
        read(bytes(cut))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello world, I am a text", "not a picture"),
        (b"%PDF-1.7", "PDF files cannot be read"),
        (b"\x89PNG\r\n\x1a\n", "damaged PNG"),
        (b"\xff\xd8\xff\xe0", "damaged|truncated"),
        (b"II*\0\x08\0\0\0\0\0", "damaged"),
        (b"P6 0 5 255\n", "damaged|no pixels"),
    ],
)
def test_what_is_no_picture(data, message, tmp_path):
    path = tmp_path / "näme.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_picture(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"^standard input: "):
        read(data)


def test_missing_files_folders_and_locked_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_picture(tmp_path / "missing.png")
    with pytest.raises(InputError, match="it is a folder"):
        read_picture(tmp_path)
    locked = tmp_path / "locked.png"
    locked.write_bytes(ours(random_levels(3), "png"))
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match="permission denied"):
        read_picture(locked)


def test_a_missing_codec_is_named(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(InputError, match="built without AVIF"):
        read(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(40))
    with pytest.raises(OutputError, match="built without AVIF"):
        encode_levels(io.BytesIO(), random_levels(3), format="avif")


def test_bombs_are_refused_by_their_header():
    huge = png(60_000, 60_000, 8, 2, [b""])
    with pytest.raises(InputError, match=r"has .* pixels") as caught:
        read(huge)
    assert caught.value.hint == "--max-pixels allows more"
    bomb = struct.pack("<2sIHHIIiiHHIIIIII", b"BM", 54, 0, 0, 54, 40, 40_000, 40_000, 1, 24,
                       0, 0, 0, 0, 0, 0)  # fmt: skip
    with pytest.raises(InputError, match=r"has .* pixels"):
        read(bomb)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_the_limit_is_exact_and_ours(format, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    data = encode(Image.new("RGB", (11, 9)), format)
    assert read(data, max_pixels=99).rgb.shape == (1, 3, 9, 11)
    for limit in (98, 40, 1):
        with pytest.raises(InputError, match=r"has .* pixels"):
            read(data, max_pixels=limit)
    assert Image.MAX_IMAGE_PIXELS == 7
    assert MAX_PIXELS == 100_000_000


def test_threads_may_read_at_once():
    sources = [
        (levels := random_levels(3, dtype, seed=seed), ours(levels, format))
        for seed in range(4)
        for dtype in (np.uint8, np.uint16)
        for format in ("png", "tiff")
    ]
    before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    wrong = []

    def work(levels, data):
        for _ in range(5):
            if not np.array_equal(through(data), levels):
                wrong.append(data)

    threads = [threading.Thread(target=work, args=source) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before

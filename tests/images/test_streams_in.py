"""Pipes, endless streams and files that end too soon."""

import io
import os
import threading

import numpy as np
import pytest
from picture_files import encode, random_levels, read
from PIL import Image, ImageFile

from vdsr_cli.config import Truncated
from vdsr_cli.errors import InputError
from vdsr_cli.images import read_picture


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_a_pipe_is_read(tmp_path, format):
    data = encode(Image.fromarray(random_levels(3, shape=(40, 60))), format)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    picture = read_picture(tmp_path / "pipe")
    writer.join()
    assert picture.rgb.equal(read(data).rgb)


class Endless(io.RawIOBase):
    """Bytes without end; counts what was taken."""

    def __init__(self, head=b""):
        self.head, self.taken = head, 0

    def readable(self):
        return True

    def read(self, size=-1):
        assert size >= 0, "an endless stream was read to its end"
        piece = self.head[self.taken : self.taken + size].ljust(size, b"\0")
        self.taken += size
        return piece


def test_what_is_no_picture_is_not_read_on():
    stream = Endless()
    with pytest.raises(InputError, match="known format"):
        read_picture(stream)
    assert stream.taken <= 4096


def test_a_picture_without_end_is_refused(monkeypatch):
    monkeypatch.setattr("vdsr_cli.images.decode._ROOM_BYTES", 1000)
    stream = Endless(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match="longer than") as refused:
        read_picture(stream, max_pixels=1000)
    assert stream.taken < 1 << 25 and "--max-pixels" in refused.value.hint


def photograph():
    rough = Image.fromarray(random_levels(3, shape=(8, 12)))
    return rough.resize((96, 64), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_what_there_is_of_a_cut_file_is_kept_when_asked(format):
    data = encode(photograph(), format, **({"quality": 95} if format == "JPEG" else {}))
    cut = data[: len(data) * 3 // 4] if format != "TIFF" else data[:-1000]
    with pytest.raises(InputError, match="truncated") as refused:
        read(cut)
    assert "--truncated keep" in refused.value.hint
    picture = read(cut, truncated=Truncated.keep)
    assert picture.notes[0] == "the file is truncated: what is missing is blank"
    whole = read(data).rgb
    assert picture.rgb.shape == whole.shape
    assert picture.rgb[..., :16, :].equal(whole[..., :16, :])


def test_of_a_head_alone_nothing_is_kept_and_nothing_is_advised():
    head = encode(photograph(), "JPEG", quality=95)[:560]
    for truncated in Truncated:
        with pytest.raises(InputError, match="truncated: its end is missing") as refused:
            read(head, truncated=truncated)
        assert refused.value.hint is None


def test_a_missing_end_marker_costs_nothing():
    data = encode(photograph(), "JPEG")
    with pytest.raises(InputError, match="truncated"):
        read(data[:-2])
    picture = read(data[:-2], truncated=Truncated.keep)
    assert picture.rgb.equal(read(data).rgb) and len(picture.notes) == 1


def test_a_whole_file_is_read_alike_either_way():
    data = encode(photograph(), "JPEG")
    kept = read(data, truncated=Truncated.keep)
    assert kept.notes == () and np.array_equal(kept.rgb.numpy(), read(data).rgb.numpy())


def test_what_pillow_is_told_of_cut_off_files_counts_for_others_alone(monkeypatch):
    """It is the whole program's: another's word does not reach our files, nor ours its own."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(photograph(), "PNG")
    cut = data[: len(data) // 2]
    with pytest.raises(InputError, match="truncated"):
        read(cut)
    assert read(cut, truncated=Truncated.keep).notes
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True

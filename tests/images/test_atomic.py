"""Files appear whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest
from picture_files import encode, filled, kind_of, ours, random_levels, read
from PIL import Image, PngImagePlugin

from vdsr_cli import images
from vdsr_cli.errors import OutputError, OutputExistsError
from vdsr_cli.images import atomic_write


def sample_canvas():
    return filled(read(ours(random_levels(3), "png")))


def test_save_by_extension_and_by_format(tmp_path):
    canvas = sample_canvas()
    for name, format, kind in [
        ("a.PNG", None, "PNG"),
        ("a.jpeg", None, "JPEG"),
        ("deep/er/a.tif", None, "TIFF"),
        ("a.dat", "webp", "WEBP"),
    ]:
        assert canvas.save(tmp_path / name, format=format) == ()
        assert kind_of(tmp_path / name) == kind
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.PNG", "a.dat", "a.jpeg", "deep"]


def test_the_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        sample_canvas().save(tmp_path / "a.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_the_mode_of_a_file_that_is_replaced_stays(tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(b"old")
    path.chmod(0o604)
    sample_canvas().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "a.csv"
    with (
        pytest.raises(OutputExistsError, match=r"a\.csv has appeared meanwhile and is kept"),
        atomic_write(path, replace=False) as stream,
    ):
        stream.write(b"mine")
        path.write_bytes(b"another")
    assert path.read_bytes() == b"another"
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_followed(tmp_path):
    target, link = tmp_path / "target.png", tmp_path / "link.png"
    target.write_bytes(b"old")
    link.symlink_to(target)
    sample_canvas().save(link)
    assert link.is_symlink()
    assert kind_of(target) == "PNG"


@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "full"), OutputError, "no space is left"),
        (OSError(errno.EROFS, "ro"), OutputError, "read-only"),
        (OSError("encoder error -2"), OutputError, "encoder error -2"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
)
@pytest.mark.parametrize("where", ["body", "sync"])
def test_failures_leave_the_old_file_and_nothing_else(
    failure, raised, message, where, tmp_path, monkeypatch
):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise failure

    if where == "sync":
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(raised, match=message) as caught, atomic_write(path) as stream:
        stream.write(b"half of the new fi")
        if where == "body":
            fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    if raised is OutputError:
        assert str(caught.value).startswith(f"{path}: cannot be written: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("writer", "name"), [("write_png", "a.png"), ("_encoded", "a.webp")])
def test_an_interrupt_while_encoding_leaves_no_file(tmp_path, monkeypatch, writer, name):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    canvas = sample_canvas()
    monkeypatch.setattr(f"vdsr_cli.images.encode.{writer}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        canvas.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("format", ["png", "tiff", "jpg", "webp"])
def test_a_full_disk_is_one_line(format):
    with pytest.raises(OutputError, match=r"^/dev/full: cannot be written: no space is left"):
        sample_canvas().save(Path("/dev/full"), format=format)
    assert not Path("/dev/full").is_file()


def test_folders_and_files_in_the_way(tmp_path):
    canvas = sample_canvas()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="it is a folder"):
        canvas.save(tmp_path / "folder.png")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        canvas.save(tmp_path / "file" / "a.png")
    with pytest.raises(OutputError, match="too long"):
        canvas.save(tmp_path / ("a" * 300 + ".png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_locked_folder(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(OutputError, match="permission denied"):
        sample_canvas().save(folder / "a.png")


def test_a_closed_pipe_is_one_line():
    reader, writer = os.pipe()
    os.close(reader)
    with (
        os.fdopen(writer, "wb", buffering=0) as stream,
        pytest.raises(OutputError, match=r"standard output: .* closed the pipe"),
    ):
        sample_canvas().save_to(stream)


def test_exports_are_sorted_and_complete():
    assert sorted(images.__all__, key=lambda name: (not name.isupper(), name)) == images.__all__
    assert all(hasattr(images, name) for name in images.__all__)


def test_text_chunks_do_not_disturb():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "é" * 100, zip=True)
    assert read(encode(Image.new("L", (2, 2)), "PNG", pnginfo=info)).notes == ()

"""``--format same`` and ``--keep-times``: outputs that take the place of their inputs elsewhere."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdsr_cli.formats import content_of


@pytest.fixture
def upscale(vdsr, tiny_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: vdsr("upscale", *arguments, "-m", tiny_path, "-t", 0)


def write(path, format=None):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(levels).save(path, format)


NAMES = ["a.png", "a.jpg", "b.JPEG", "sub/c.webp", "d.tif", "e.bmp", "f.gif", "a_jpg.png"]


def names(folder):
    found = (path for path in Path(folder).rglob("*") if path.suffix != ".jsonl")
    return sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())


def test_a_tree_keeps_its_names_and_formats(upscale):
    for name in NAMES:
        write(f"in/{name}")
    ended = upscale("in", "-r", "-o", "out", "--format", "same", "--suffix", "")
    assert ended.code == 0, ended.err
    expected = sorted("a_jpg_png.png" if name == "a_jpg.png" else name for name in NAMES)
    assert names("out") == expected
    for name in NAMES[:-1]:
        assert content_of(Path("out", name)) == content_of(Path("in", name))
        with Image.open(Path("out", name)) as image:
            assert image.size == (32, 32)


def test_files_that_are_named_keep_theirs(upscale):
    for name in NAMES:
        write(name)
    assert upscale(*NAMES, "-o", "out", "-f", "same").code == 0
    made = [f"{Path(name).stem}_x4{Path(name).suffix}" for name in NAMES]
    assert names("out") == sorted(made)


def test_what_is_not_written_becomes_png_and_that_is_told(upscale):
    write("in/a.ppm")
    write("in/a.png")
    write("in/b.mpo", "MPO")
    ended = upscale("in", "-o", "out", "-f", "same")
    assert ended.code == 0
    assert names("out") == ["a_ppm_x4.png", "a_x4.png", "b_mpo_x4.jpg"]
    assert "a.ppm: PPM is not written: the output is PNG" in ended.err
    assert "b.mpo" not in ended.err


def test_the_format_is_that_of_the_file_whatever_its_name_says(upscale, vdsr, tiny_path):
    write("a.png", "JPEG")
    assert upscale("a.png", "-f", "same").code == 0
    assert content_of(Path("a_x4.jpg")).format == "jpg"
    options = ("-o", "-", "-f", "same", "-m", tiny_path, "-t", 0)
    ended = vdsr("upscale", "-", *options, stdin=Path("a.png").read_bytes())
    assert ended.code == 0 and ended.out.startswith(b"\xff\xd8\xff")
    assert upscale("a.png", "-o", "a.webp", "-f", "same").code == 2
    assert vdsr("generate", "-f", "same", "-o", "a/").code == 2


def test_times_are_kept(upscale):
    write("in/a.png")
    write("in/b.jpg")
    times = {"a": (1_000_000_000_123_456_789, 900_000_000_987_654_321), "b": (5, 7)}
    os.utime("in/a.png", ns=times["a"])
    os.utime("in/b.jpg", ns=times["b"])
    assert upscale("in", "-o", "out", "--keep-times").code == 0
    for name, (accessed, modified) in times.items():
        found = Path(f"out/{name}_x4.png").stat()
        assert (found.st_atime_ns, found.st_mtime_ns) == (accessed, modified)
    assert upscale("in/a.png").code == 0
    assert Path("in/a_x4.png").stat().st_mtime_ns > 10**18


def test_stores_set_times_themselves(upscale):
    ended = upscale("memory://in", "-o", "out/", "--keep-times")
    assert ended.code == 2 and "stores" in ended.err

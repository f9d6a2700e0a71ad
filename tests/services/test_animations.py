"""Animations and documents: what stays still stays so, and what a file says is kept."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from vdsr_cli.images import SeriesFile

MODES = ["gif", "webp", "png"]


@pytest.fixture
def upscale(vdsr, tiny_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **options: vdsr("upscale", *arguments, "-m", tiny_path, **options)


def save_frames(path, frames, **options):
    first, *others = map(Image.fromarray, frames)
    if str(path).endswith("webp"):
        options["lossless"] = True
    first.save(path, save_all=True, append_images=others, **options)
    return path


def frames_of(path):
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]


def moving(width=384, change=16):
    """Three frames of noise: the second is another on its left, the third is the first again."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (48, width, 3), np.uint8)
    second = first.copy()
    second[:, :change] = rng.integers(0, 256, (48, change, 3), np.uint8)
    return [first, second, first]


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_equal_frames_and_what_lies_away_from_a_change_are_equal(upscale, temperature):
    save_frames("a.png", moving(), duration=50)
    options = ("-o", "b.png", "-t", temperature, "--tile", 32, "--overlap", 16)
    ended = upscale("a.png", *options)
    assert ended.code == 0, ended.err
    first, second, third = frames_of("b.png")
    assert first.shape == (192, 4 * 384, 4)
    np.testing.assert_array_equal(first, third)
    assert (first[:, :64] != second[:, :64]).any()
    changed = np.flatnonzero((first != second).any(axis=(0, 2)))
    # No further than the model's latents of 16 pixels reach through its layers.
    assert changed.max() < 4 * 16 + 512
    np.testing.assert_array_equal(first[:, 4 * 16 + 512 :], second[:, 4 * 16 + 512 :])


def test_a_frame_is_the_picture_of_it_alone(upscale):
    frames = moving(64)
    save_frames("a.png", frames, duration=50)
    Image.fromarray(frames[1]).save("b.png")
    assert upscale("a.png", "b.png", "-o", "out").code == 0
    with Image.open("out/b_x4.png") as image:
        alone = np.asarray(image.convert("RGBA"))
    np.testing.assert_array_equal(frames_of("out/a_x4.png")[1], alone)


@pytest.mark.parametrize("format", MODES)
def test_an_animation_keeps_its_format_timing_and_loop(upscale, format):
    options = {"duration": [40, 110, 70], "loop": 3}
    save_frames(f"a.{format}", moving(32), **options)
    ended = upscale(f"a.{format}", "--json")
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert (result["output"], result["frames"]) == (f"a_x4.{format}", 3)
    assert (result["width"], result["height"]) == (128, 192)
    with Image.open(f"a_x4.{format}") as image, Image.open(f"a.{format}") as source:
        assert (image.format, image.n_frames, image.size) == (source.format, 3, (128, 192))
        assert image.info["loop"] == source.info["loop"]
        found = []
        for index in range(3):
            image.seek(index)
            image.load()
            found.append(image.info["duration"])
    assert found == options["duration"]


def test_transparency_comes_and_goes(upscale):
    frames = np.zeros((3, 32, 32, 4), np.uint8)
    for index in range(3):
        frames[index, 8:24, 8 * index : 8 * index + 12] = (200, 30, 60, 255)
    save_frames("a.png", frames, duration=50)
    for format in MODES:
        assert upscale("a.png", "-o", f"b.{format}", "--overwrite").code == 0
        for index, found in enumerate(frames_of(f"b.{format}")):
            alpha = np.zeros((128, 128), bool)
            alpha[32:96, 32 * index : 32 * index + 48] = True
            inner, outer = np.zeros_like(alpha), ~alpha
            inner[40:88, 32 * index + 8 : 32 * index + 40] = True
            outer[24:104, max(0, 32 * index - 8) : 32 * index + 56] = False
            assert (found[inner, 3] > 128).all() and (found[outer, 3] < 128).all()


def test_pages_keep_their_own_sizes(upscale):
    first, second = Image.new("L", (10, 12), 90), Image.new("RGB", (16, 8), (10, 200, 30))
    second.encoderinfo = {"dpi": (300, 300)}
    first.save("a.tif", save_all=True, append_images=[second], dpi=(100, 100))
    ended = upscale("a.tif")
    assert ended.code == 0, ended.err
    with Image.open("a_x4.tif") as image:
        assert (image.size, image.mode, image.info["dpi"]) == ((40, 48), "L", (100, 100))
        image.seek(1)
        assert (image.size, image.mode, image.info["dpi"]) == ((64, 32), "RGB", (300, 300))
    ended = upscale("a.tif", "-o", "a.png")
    assert ended.code == 6 and "PNG holds one page alone" in ended.err and "tiff" in ended.err
    assert upscale("a.tif", "--longest", 60, "-o", "b.tif").code == 0
    with Image.open("b.tif") as image:
        sizes = [image.size]
        image.seek(1)
        assert [*sizes, image.size] == [(50, 60), (60, 30)]


def test_a_folder_and_its_manifest(upscale):
    os.mkdir("in")
    save_frames("in/a.gif", moving(32), duration=50)
    save_frames("in/b.webp", moving(32), duration=50)
    Image.fromarray(moving(32)[0]).save("in/c.gif")
    assert upscale("in", "-o", "out").code == 0
    made = sorted(name for name in os.listdir("out") if not name.endswith("jsonl"))
    assert made == ["a_x4.gif", "b_x4.webp", "c_x4.png"]
    lines = [json.loads(line) for line in Path("out/vdsr-manifest.jsonl").read_text().splitlines()]
    assert {line["status"] for line in lines} == {"done"} and len(lines) == 3
    again = upscale("in", "-o", "out", "--skip-existing")
    assert "3 skipped (exist)" in again.err
    assert upscale("in", "-o", "small", "-f", "jpg").code == 6
    assert sorted(os.listdir("small")) == ["c_x4.jpg", "vdsr-manifest.jsonl"]


def test_pipes(upscale):
    save_frames("a.gif", moving(32), duration=50)
    data = Path("a.gif").read_bytes()
    ended = upscale("-", "-o", "-", stdin=data)
    assert ended.code == 0 and ended.out.startswith(b"GIF89a")
    ended = upscale("-", "-o", "-", "-f", "webp", stdin=data)
    with Image.open(io.BytesIO(ended.out)) as image:
        assert (image.format, image.n_frames) == ("WEBP", 3)


def test_no_metadata_but_the_profile(upscale):
    save_frames("a.gif", moving(32), duration=50, comment=b"hello")
    assert upscale("a.gif", "-o", "b.gif").code == 0
    assert upscale("a.gif", "-o", "c.gif", "--strip-metadata").code == 0
    with Image.open("b.gif") as kept, Image.open("c.gif") as stripped:
        assert kept.info["comment"] == b"hello" and "comment" not in stripped.info


def test_16_bits_of_an_animation(upscale):
    save_frames("a.png", moving(32), duration=50)
    assert upscale("a.png", "-o", "b.png", "--depth", 16).code == 0
    assert Path("b.png").read_bytes()[24] == 16


@pytest.fixture
def interrupted(upscale, monkeypatch) -> None:
    """A run of a.gif into a.webp that ended before its third picture."""
    save_frames("a.gif", moving(32), duration=50)
    monkeypatch.setattr("vdsr_cli.images.resumable.JOURNAL_EVERY_S", 0.0)
    put, puts = SeriesFile.put, []

    def interrupting(self, *arguments):
        puts.append(arguments)
        if len(puts) == 3:
            raise KeyboardInterrupt
        put(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(SeriesFile, "put", interrupting)
        assert upscale("a.gif", "-o", "a.webp").code == 130
    assert not Path("a.webp").exists() and Path("a.webp.part.json").exists()


def test_a_run_that_ends_early_is_gone_on_with(interrupted, upscale):
    ended = upscale("a.gif", "-o", "a.webp")
    assert ended.code == 0 and "continued an earlier run from picture 3" in ended.err
    assert upscale("a.gif", "-o", "whole.webp").code == 0
    assert Path("a.webp").read_bytes() == Path("whole.webp").read_bytes()
    assert not list(Path().glob("*.part*"))


def test_another_quality_goes_on_with_no_earlier_run(interrupted, upscale):
    """Its frames would be of two qualities."""
    ended = upscale("a.gif", "-o", "a.webp", "--quality", 100)
    assert ended.code == 0 and "continued" not in ended.err
    assert "an unfinished output was discarded" in ended.err
    assert upscale("a.gif", "-o", "whole.webp", "--quality", 100).code == 0
    assert Path("a.webp").read_bytes() == Path("whole.webp").read_bytes()


def test_other_commands_name_the_one_that_takes_it(vdsr, tiny_path, tmp_path):
    path = save_frames(tmp_path / "a.gif", moving(32), duration=50)
    ended = vdsr("sample-diverse", path, "-n", 2, "-m", tiny_path, "-o", tmp_path / "out")
    assert ended.code == 3
    assert "animated, with 3 frames" in ended.err and "vdsr upscale takes it whole" in ended.err

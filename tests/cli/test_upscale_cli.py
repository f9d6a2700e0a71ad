"""`vdsr upscale` as a user meets it: files, exit codes, messages, and what is left behind."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdsr_cli.cli.upscale import MANIFEST_NAME


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """An empty folder, an empty cache, no network."""
    monkeypatch.setenv("VDSR_HOME", str(tmp_path.parent / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def upscale(vdsr, tiny_path):
    """``upscale("a.png", ..., stdin=b"")`` with the tests' model."""

    def run(*arguments, stdin=b""):
        return vdsr("upscale", "--model", tiny_path, *arguments, stdin=stdin)

    return run


def size_of(file) -> tuple[int, int]:
    with Image.open(file) as opened:
        opened.load()
        return opened.size


def files(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def assert_one_clear_line(ended, *words: str) -> None:
    """One line that starts with the program's name, perhaps a hint, and nothing of Python's."""
    first, *rest = ended.lines
    assert first.startswith("vdsr: ") and all(word in first for word in words), ended.err
    assert len(rest) <= 1 and all(line.startswith("  hint: ") for line in rest), ended.err
    assert "Traceback" not in ended.err and "Error" not in first


def test_a_picture_beside_its_input(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "photo.jpg")
    ended = upscale("photo.jpg")
    assert ended.code == 0 and ended.err == ""
    assert ended.out.decode().startswith("photo_x4.png (48x32, ")
    assert ended.out.count(b"\n") == 1
    assert size_of("photo_x4.png") == (48, 32)
    assert files(tmp_path) == ["photo.jpg", "photo_x4.png"]


def test_the_same_command_gives_the_same_bytes(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "a.png")
    for out in ("1.png", "2.png"):
        assert upscale("a.png", "-o", out, "--seed", 5).code == 0
    assert Path("1.png").read_bytes() == Path("2.png").read_bytes()
    assert upscale("a.png", "-o", "3.png", "--seed", 6).code == 0
    assert Path("1.png").read_bytes() != Path("3.png").read_bytes()


def test_options_reach_the_engine(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "a.png")
    variants = {
        "plain": [],
        "cold": ["-t", "0"],
        "drawn": ["--pixels", "sample"],
        "free": ["--no-consistency"],
        "hot": ["--temperature", "1.5"],
    }
    for name, options in variants.items():
        assert upscale("a.png", "-o", f"{name}.png", "--dtype", "float32", *options).code == 0
    assert len({Path(f"{name}.png").read_bytes() for name in variants}) == len(variants)


@pytest.mark.parametrize("format", ["png", "jpg", "webp", "tiff", "bmp"])
def test_formats(upscale, tmp_path, save_picture, format):
    save_picture(tmp_path / "a.png")
    assert upscale("a.png", "--format", format).code == 0
    assert size_of(f"a_x4.{format}") == (48, 32)
    assert upscale("a.png", "-o", f"named.{format}").code == 0
    assert size_of(f"named.{format}") == (48, 32)


@pytest.mark.parametrize(
    ("scale", "name", "size"),
    [("2", "a_x2.png", (24, 16)), ("2.5", "a_x2.5.png", (30, 20)), ("8", "a_x8.png", (96, 64))],
)
def test_scales(upscale, tmp_path, save_picture, scale, name, size):
    save_picture(tmp_path / "a.png")
    assert upscale("a.png", "--scale", scale).code == 0
    assert size_of(name) == size


# Exit codes


@pytest.mark.parametrize(
    "options",
    [
        ["--temperature", "nan"],
        ["--temperature", "-1"],
        ["--temperature", "inf"],
        ["--scale", "0"],
        ["--scale", "17"],
        ["--scale", "nan"],
        ["--tile", "63"],
        ["--tile", "16", "--overlap", "12"],
        ["--batch-size", "0"],
        ["--batch-size", "many"],
        ["-o", "out.xyz"],
        ["-o", "out.png", "--format", "jpg"],
        ["-o", "a.png"],
        ["-o", "-", "--json"],
    ],
)
def test_2_impossible_requests(upscale, tmp_path, save_picture, options):
    save_picture(tmp_path / "a.png", 13, 10)
    ended = upscale("a.png", *options)
    assert ended.code == 2, ended
    assert_one_clear_line(ended)
    assert ended.out == b"" and files(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    "arguments", [["a.png", "--scale", "big"], ["a.png", "--quality", "0"], ["--nonsense"], []]
)
def test_2_what_the_parser_refuses(upscale, tmp_path, save_picture, arguments):
    save_picture(tmp_path / "a.png")
    ended = upscale(*arguments)
    assert ended.code == 2
    assert_one_clear_line(ended)
    assert ended.lines[1] == "  hint: vdsr upscale -h"
    assert files(tmp_path) == ["a.png"]


def test_2_two_pictures_for_one_file(upscale, tmp_path, save_picture):
    for name in ("a.png", "b.png"):
        save_picture(tmp_path / name)
    ended = upscale("a.png", "b.png", "-o", "out.png")
    assert ended.code == 2
    assert_one_clear_line(ended, "out.png")
    assert files(tmp_path) == ["a.png", "b.png"]


def test_2_is_told_once_however_many_pictures(upscale, tmp_path, save_picture):
    for name in ("a.png", "b.png", "c.png"):
        save_picture(tmp_path / name)
    ended = upscale("a.png", "b.png", "c.png", "--tile", "63")
    assert ended.code == 2
    assert_one_clear_line(ended, "--tile 63")


BAD_PICTURES = {
    "empty": b"",
    "not a picture": b"hello, world\n" * 100,
    "a cut PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0",
    "a pickle": b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("content", BAD_PICTURES.values(), ids=BAD_PICTURES)
def test_3_unreadable_pictures(upscale, tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    ended = upscale("bad.png")
    assert ended.code == 3
    assert_one_clear_line(ended, "bad.png")
    assert files(tmp_path) == ["bad.png"]


def test_3_a_truncated_picture(upscale, tmp_path, save_picture):
    content = save_picture(tmp_path / "a.png", 64, 64).read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    ended = upscale("a.png")
    assert ended.code == 3
    assert_one_clear_line(ended, "a.png", "truncated")
    assert files(tmp_path) == ["a.png"]


@pytest.mark.parametrize("name", ["nothing.png", "n" * 300 + ".png", "a.png/b.png", "*.png", "sub"])
def test_3_pictures_that_are_not_there(upscale, tmp_path, name):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.png").rename(tmp_path / "a.txt")
    (tmp_path / "sub").mkdir()
    ended = upscale(name)
    assert ended.code == 3
    assert_one_clear_line(ended, name[:20])


def test_3_a_mistyped_name_has_the_nearest_one_in_its_hint(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "holiday.png")
    ended = upscale("holliday.png")
    assert ended.code == 3
    assert_one_clear_line(ended, "holliday.png", "no such file")
    assert ended.lines[1] == "  hint: did you mean holiday.png?"


def test_3_a_link_to_nothing(upscale, tmp_path):
    (tmp_path / "broken.png").symlink_to("gone.png")
    ended = upscale("broken.png")
    assert ended.code == 3
    assert_one_clear_line(ended, "broken.png", "a link to a file that is not there")
    assert "did you mean" not in ended.err


@pytest.mark.parametrize(
    ("words", "called"),
    [
        (["upscale", ""], "a name"),
        (["upscale", "a.png", ""], "a name"),
        (["upscale", "a.png", "-o", ""], "-o"),
        (["upscale", "a.png", "--out="], "--out"),
        (["sample-diverse", ""], "a name"),
        (["bench", ""], "a name"),
        (["train", "vdvae-sr", "", "--out", "run"], "a name"),
        (["train", "vdvae-sr", ".", "--out", ""], "--out"),
    ],
)
def test_2_nothing_is_no_name_for_the_folder(
    vdsr, tmp_path, save_picture, monkeypatch, words, called
):
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "a.png")
    ended = vdsr(*words)
    assert ended.code == 2
    assert_one_clear_line(ended, f"{called} is empty")
    assert files(tmp_path) == ["a.png"]


@pytest.mark.parametrize("format", ["png", "jpg"])
def test_6_a_name_that_is_too_long_is_refused_before_any_work(
    upscale, tmp_path, save_picture, format
):
    name = "n" * 250 + ".png"
    save_picture(tmp_path / name)
    ended = upscale(name, "--format", format, "-o", "out/")
    assert ended.code == 6
    assert_one_clear_line(ended, "its name is too long")
    assert [path for path in files(tmp_path) if path != "out/" + MANIFEST_NAME] == [name]


def test_3_too_large_a_picture(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "a.png", 40, 40)
    ended = upscale("a.png", "--max-pixels", "1599")
    assert ended.code == 3
    assert_one_clear_line(ended, "a.png", "pixels")
    assert "--max-pixels" in ended.err
    assert upscale("a.png", "--max-pixels", "1600").code == 0


@pytest.mark.parametrize("content", [None, b"", b"not weights", b"\x80\x04cos\nsystem\n."])
def test_4_weights_that_cannot_be_used(vdsr, tmp_path, save_picture, content):
    save_picture(tmp_path / "a.png")
    if content is not None:
        (tmp_path / "m.safetensors").write_bytes(content)
    before = files(tmp_path)
    ended = vdsr("upscale", "a.png", "--model", "./m.safetensors")
    assert ended.code == 4
    assert_one_clear_line(ended, "m.safetensors")
    assert files(tmp_path) == before


def test_4_truncated_weights(vdsr, tmp_path, save_picture, tiny_path):
    save_picture(tmp_path / "a.png")
    (tmp_path / "m.safetensors").write_bytes(tiny_path.read_bytes()[:-100])
    ended = vdsr("upscale", "a.png", "--model", "./m.safetensors")
    assert ended.code == 4
    assert_one_clear_line(ended, "m.safetensors")


def test_2_a_prior_is_refused_and_not_downloaded(vdsr, tmp_path, save_picture, monkeypatch):
    monkeypatch.setenv("VDSR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VDSR_OPENAI_ENDPOINT", "http://127.0.0.1:9")
    picture = save_picture(tmp_path / "a.png")
    for command in ("upscale", "sample-diverse"):
        ended = vdsr(command, picture, "-m", "openai/ffhq256")
        assert ended.code == 2
        assert_one_clear_line(ended, "openai/ffhq256", "prior")


def test_4_an_unknown_model(vdsr, tmp_path, save_picture):
    save_picture(tmp_path / "a.png")
    ended = vdsr("upscale", "a.png", "--model", "vdvae-sr-x5")
    assert ended.code == 4
    assert_one_clear_line(ended, "vdvae-sr-x5")


def test_5_a_device_that_is_not_there(upscale, tmp_path, save_picture, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    save_picture(tmp_path / "a.png")
    ended = upscale("a.png", "--device", "cuda")
    assert ended.code == 5
    assert_one_clear_line(ended, "CUDA")


def test_5_memory_that_is_not_there(upscale, tmp_path, save_picture, monkeypatch):
    import torch

    def means(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    monkeypatch.setattr("vdsr_cli.models.compact.CompactVDVAESR.means", means)
    save_picture(tmp_path / "a.png")
    ended = upscale("a.png")
    assert ended.code == 5
    assert_one_clear_line(ended, "memory")
    assert files(tmp_path) == ["a.png"]


def test_5_no_memory_for_what_is_made_of_a_sample(upscale, tmp_path, save_picture, monkeypatch):
    import torch

    def project_rows(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    monkeypatch.setattr("vdsr_cli.sampling.strips.project_rows", project_rows)
    save_picture(tmp_path / "a.png")
    ended = upscale("a.png")
    assert ended.code == 5
    assert_one_clear_line(ended, "a.png", "memory")
    assert files(tmp_path) == ["a.png"]


def test_5_no_memory_for_the_output(upscale, tmp_path, save_picture, monkeypatch):
    def canvas(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("vdsr_cli.sampling.pipeline.Canvas", canvas)
    save_picture(tmp_path / "a.png")
    ended = upscale("a.png", "--format", "webp")
    assert ended.code == 5
    assert_one_clear_line(ended, "a.png", "memory")


@pytest.mark.parametrize(
    ("value", "code", "problem"),
    [(float("nan"), 4, "no finite numbers"), (1e30, 5, "is not finite")],
)
def test_numbers_that_are_none(vdsr, tmp_path, save_picture, tiny_model, value, code, problem):
    """In the weights, or made by them."""
    from dataclasses import asdict

    import torch

    from vdsr_cli.weights import Checkpoint, write_safetensors

    state = {
        name: torch.full_like(stored, value) for name, stored in tiny_model.state_dict().items()
    }
    config, path = asdict(tiny_model.config), tmp_path / "nan.safetensors"
    write_safetensors(path, Checkpoint(architecture="compact-vdvae-sr", config=config, state=state))
    save_picture(tmp_path / "a.png")
    ended = vdsr("upscale", "a.png", "--model", path)
    assert ended.code == code
    assert_one_clear_line(ended, problem)
    assert files(tmp_path) == ["a.png", "nan.safetensors"]


@pytest.mark.parametrize("out", ["a.txt/out.png", "/proc/nothing/out.png", "n" * 300 + ".png"])
def test_6_outputs_that_cannot_be_written(upscale, tmp_path, save_picture, out):
    save_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a file")
    ended = upscale("a.png", "-o", out)
    assert ended.code == 6
    assert_one_clear_line(ended, out[:5])
    assert files(tmp_path) == ["a.png", "a.txt"]


def test_6_an_output_too_large_for_its_format(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "a.png", 4100, 1)
    ended = upscale("a.png", "-o", "b.webp", "--temperature", "0", "--tile", "0")
    assert ended.code == 6
    assert_one_clear_line(ended, "b.webp", "WebP")
    assert files(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("format", "where"),
    [
        ("png", "resumable.Draft.commit"),
        ("tiff", "resumable.Draft.append"),
        ("webp", "encode._encoded"),
    ],
)
def test_6_a_full_disk(upscale, tmp_path, save_picture, monkeypatch, format, where):
    """The write fails: the new file goes, the old one stays."""

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    save_picture(tmp_path / "a.png")
    monkeypatch.setattr(f"vdsr_cli.images.{where}", full)
    ended = upscale("a.png", "-o", f"b.{format}")
    assert ended.code == 6
    assert_one_clear_line(ended, f"b.{format}", "no space is left")
    assert files(tmp_path) == ["a.png"]
    (tmp_path / f"b.{format}").write_bytes(b"old")
    assert upscale("a.png", "-o", f"b.{format}", "--overwrite").code == 6
    assert (tmp_path / f"b.{format}").read_bytes() == b"old"
    assert files(tmp_path) == ["a.png", f"b.{format}"]


# Several pictures


def test_one_bad_picture_does_not_stop_the_others(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"junk")
    save_picture(tmp_path / "c.png")
    ended = upscale("a.png", "b.png", "c.png", "--json")
    assert ended.code == 3
    assert ended.lines == [
        "vdsr: b.png: it is not a picture of a known format",
        "vdsr: 2 done, 1 failed",
    ]
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert [row["exit_code"] for row in rows] == [0, 3, 0]
    assert files(tmp_path) == ["a.png", "a_x4.png", "b.png", "c.png", "c_x4.png"]


def test_the_worst_exit_code_wins(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "a.png")
    save_picture(tmp_path / "c.png")
    (tmp_path / "b.png").write_bytes(b"junk")
    (tmp_path / "a_x4.png").write_bytes(b"old")
    assert upscale("a.png", "b.png", "c.png").code == 6


def test_folders_patterns_and_trees(upscale, tmp_path, save_picture):
    (tmp_path / "shots" / "deep").mkdir(parents=True)
    for name in ("1.png", "2.JPG", "deep/3.png", ".hidden.png"):
        save_picture(tmp_path / "shots" / name)
    (tmp_path / "shots" / "notes.txt").write_text("not a picture")
    assert upscale("shots", "-o", "flat").code == 0
    assert files(tmp_path / "flat") == ["1_x4.png", "2_x4.png", MANIFEST_NAME]
    assert upscale("shots", "-r", "-o", "tree/").code == 0
    assert files(tmp_path / "tree") == ["1_x4.png", "2_x4.png", "deep/3_x4.png", MANIFEST_NAME]
    assert upscale("shots/*.png", "-o", "matched").code == 0
    assert files(tmp_path / "matched") == ["1_x4.png"]
    assert upscale("shots/**/*.png", "-o", "all").code == 0
    assert files(tmp_path / "all") == ["1_x4.png", "deep/3_x4.png"]


def test_a_second_run_over_a_folder_skips_what_is_done(upscale, tmp_path, save_picture):
    (tmp_path / "shots").mkdir()
    for name in ("1.png", "2.png"):
        save_picture(tmp_path / "shots" / name)
    assert upscale("shots").code == 0
    done = files(tmp_path)
    assert done == ["shots/1.png", "shots/1_x4.png", "shots/2.png", "shots/2_x4.png"]
    again = upscale("shots", "--skip-existing", "--json")
    assert again.code == 0 and files(tmp_path) == done
    assert [json.loads(line)["status"] for line in again.out.splitlines()] == ["skipped"] * 2


def test_outputs_that_exist(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "a.png")
    (tmp_path / "a_x4.png").write_bytes(b"precious")
    refused = upscale("a.png")
    assert refused.code == 6 and Path("a_x4.png").read_bytes() == b"precious"
    assert_one_clear_line(refused, "a_x4.png", "exists")
    assert "--overwrite" in refused.err
    skipped = upscale("a.png", "--skip-existing")
    assert skipped.code == 0 and Path("a_x4.png").read_bytes() == b"precious"
    assert upscale("a.png", "--overwrite").code == 0
    assert size_of("a_x4.png") == (48, 32)


# What is printed


def test_json_says_everything(upscale, tmp_path, save_picture, tiny_path):
    save_picture(tmp_path / "a.png")
    ended = upscale("a.png", "--json", "--seed", "7", "--temperature", "8:0.5")
    facts = json.loads(ended.out)
    assert facts.pop("seconds") >= 0
    assert facts == {
        "input": "a.png",
        "output": "a_x4.png",
        "status": "done",
        "model": str(tiny_path),
        "scale": 4.0,
        "temperature": "0.8,8:0.5",
        "seed": 7,
        "width": 48,
        "height": 32,
        "tiles": 1,
        "consistency": True,
        "edges": "repeat",
        "exit_code": 0,
    }
    failed = json.loads(upscale("a.png", "--json").out)
    assert set(failed) == {"input", "status", "error", "hint", "exit_code"}
    assert failed["status"] == "failed" and failed["exit_code"] == 6


def test_a_dry_run_writes_nothing_and_needs_no_model(vdsr, tmp_path, save_picture):
    save_picture(tmp_path / "a.png")
    ended = vdsr("upscale", "a.png", "--model", "no-such-model", "--dry-run")
    assert ended.code == 0 and ended.out == b"a.png -> a_x4.png\n"
    row = json.loads(vdsr("upscale", "a.png", "--dry-run", "--json", "-o", "out/").out)
    assert row == {"input": "a.png", "output": "out/a_x4.png", "status": "planned"}
    assert files(tmp_path) == ["a.png"]


@pytest.mark.parametrize(("name", "out"), [("a.png", "b.jpg"), ("a.mp4", "b.mkv")])
def test_o_and_a_format_may_not_disagree(vdsr, name, out):
    assert vdsr("upscale", name, "-o", out, "--dry-run").code == 0
    for format in ("webp", "same"):
        ended = vdsr("upscale", name, "-o", out, "--format", format, "--dry-run")
        assert ended.code == 2 and "disagree" in ended.lines[0]


def test_a_dry_run_tells_of_outputs_that_exist(vdsr, tmp_path, save_picture):
    for name in ("a.png", "b.png", "b_x4.png"):
        save_picture(tmp_path / name)
    refused = vdsr("upscale", "a.png", "b.png", "--dry-run")
    assert refused.code == 6 and refused.out == b"a.png -> a_x4.png\n"
    assert refused.lines == [
        "vdsr: b_x4.png exists already",
        "  hint: add --overwrite to replace it",
    ]
    rows = vdsr("upscale", "a.png", "b.png", "--dry-run", "--json").out.splitlines()
    assert [json.loads(row)["status"] for row in rows] == ["planned", "failed"]
    skipped = vdsr("upscale", "a.png", "b.png", "--dry-run", "--skip-existing")
    assert skipped.code == 0
    assert skipped.out == b"a.png -> a_x4.png\nb_x4.png (exists, skipped)\n"
    replaced = vdsr("upscale", "b.png", "--dry-run", "--overwrite")
    assert (replaced.code, replaced.out) == (0, b"b.png -> b_x4.png\n")


def test_a_dry_run_of_what_failed_before(upscale, tmp_path, save_picture):
    (tmp_path / "in").mkdir()
    save_picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    assert upscale("in", "-o", "out").code == 3
    planned = upscale("in", "-o", "out", "--retry-failed", "--dry-run")
    assert (planned.code, planned.out) == (0, b"in/b.png -> out/b_x4.png\n")


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_of_several_folders_one_below_them_cannot_be_listed(
    upscale, tmp_path, save_picture, monkeypatch, options
):
    for folder in ("one", "two/lost+found"):
        (tmp_path / folder).mkdir(parents=True)
        save_picture(tmp_path / folder / "a.png")
    listing = os.scandir

    def scandir(path):
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    save_picture(tmp_path / "two" / "b.png")
    ended = upscale("-r", "one", "two", "-o", "out", *options)
    assert ended.code == 3 and len(ended.out.splitlines()) == 2
    assert "vdsr: two/lost+found: cannot be read: permission denied" in ended.err
    alone = upscale("-r", "one", "two/lost+found", "-o", "out", "--overwrite", *options)
    assert_one_clear_line(alone, "two/lost+found: cannot be read: permission denied")


def test_quiet_means_quiet(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "a.png")
    assert (upscale("a.png", "--quiet").out, upscale("b.png", "-q").code) == (b"", 3)
    assert upscale("b.png", "-q").err.startswith("vdsr: b.png")


def test_the_pipe(upscale, tmp_path, save_picture):
    content = save_picture(tmp_path / "a.png").read_bytes()
    ended = upscale("-", stdin=content)
    assert ended.code == 0 and ended.err == ""
    assert size_of(io.BytesIO(ended.out)) == (48, 32)
    jpeg = upscale("a.png", "-o", "-", "--format", "jpg")
    assert jpeg.out.startswith(b"\xff\xd8\xff")
    assert upscale("-", "-o", "named.png", stdin=content).code == 0
    assert Path("named.png").read_bytes() == ended.out
    assert files(tmp_path) == ["a.png", "named.png"]


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_bad_pipe(upscale, tmp_path, content):
    ended = upscale("-", stdin=content)
    assert (ended.code, ended.out) == (3, b"")
    assert_one_clear_line(ended, "standard input")


def test_odd_names(upscale, tmp_path, save_picture):
    save_picture(tmp_path / "plain.png")
    names = ["two\nlines.png", "-dash.png", "[bold]x.png", "a b.png", "ü.png", "q'\"$.png"]
    for name in names:
        (tmp_path / name).write_bytes((tmp_path / "plain.png").read_bytes())
    ended = upscale("--json", "--", *names)
    assert (ended.code, ended.lines) == (0, ["vdsr: 6 done"])
    outputs = [json.loads(line)["output"] for line in ended.out.splitlines()]
    assert outputs == [name.replace(".png", "_x4.png") for name in names]
    assert all(size_of(out) == (48, 32) for out in outputs)


def test_a_message_about_a_name_of_two_lines_is_one_line(upscale, tmp_path):
    (tmp_path / "two\nlines.png").write_bytes(b"junk")
    ended = upscale("two\nlines.png")
    assert ended.code == 3
    assert_one_clear_line(ended, "two\\nlines.png")


def test_a_name_that_is_no_text(upscale, tmp_path, save_picture):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / name).write_bytes(save_picture(tmp_path / "a.png").read_bytes())
    except OSError:
        pytest.skip("this disk takes only UTF-8 names")
    (tmp_path / os.fsdecode(b"bad\xe9.png")).write_bytes(b"junk")
    assert upscale(name).code == 0
    assert size_of(os.fsdecode(b"caf\xe9_x4.png")) == (48, 32)
    ended = upscale(os.fsdecode(b"bad\xe9.png"))
    assert ended.code == 3
    assert_one_clear_line(ended, "bad")
    row = json.loads(upscale(name, "--json", "--overwrite").out)
    assert row["output"] == os.fsdecode(b"caf\xe9_x4.png")


# As a process of its own


def test_a_child_prints_names_as_their_bytes(run_vdsr, tmp_path, save_picture, tiny_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / name).write_bytes(save_picture(tmp_path / "a.png").read_bytes())
    except OSError:
        pytest.skip("this disk takes only UTF-8 names")
    ended = run_vdsr("upscale", "-m", tiny_path, name)
    assert ended.code == 0, ended.err
    assert ended.out.startswith(b"caf\xe9_x4.png (48x32") and ended.err == ""


def test_a_reader_that_goes_away(start_vdsr, tmp_path, save_picture, tiny_path):
    save_picture(tmp_path / "a.png", 200, 200)
    child = start_vdsr("upscale", "-m", tiny_path, "a.png", "-o", "-")
    child.stdout.close()
    err = child.stderr.read().decode()
    assert (child.wait(60), err) == (141, ""), "as SIGPIPE ends a command"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_in_the_middle(start_vdsr, tmp_path, save_picture, tiny_path, number, code):
    """The finished picture stays, the one in work leaves nothing."""
    save_picture(tmp_path / "1.png")
    save_picture(tmp_path / "2.png", 3000, 3000)
    child = start_vdsr(
        "upscale", "-m", tiny_path, "1.png", "2.png", "-o", "out", "--json", "--batch-size", "1"
    )
    assert json.loads(child.stdout.readline())["status"] == "done"
    time.sleep(0.7)
    assert child.poll() is None, "the second picture is in work"
    child.send_signal(getattr(signal, number))
    out, err = child.communicate(timeout=30)
    assert child.returncode == code
    assert out == b"" and b"Traceback" not in err and len(err.splitlines()) <= 1, err
    assert files(tmp_path) == ["1.png", "2.png", "out/1_x4.png"]


@pytest.mark.parametrize(
    ("format", "where"),
    [
        ("png", "resumable.Draft.commit"),
        ("tiff", "resumable.Draft.append"),
        ("webp", "encode._encoded"),
    ],
)
def test_130_an_interrupt_while_a_file_is_written(
    upscale, tmp_path, save_picture, monkeypatch, format, where
):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    save_picture(tmp_path / "a.png")
    monkeypatch.setattr(f"vdsr_cli.images.{where}", interrupted)
    ended = upscale("a.png", "--format", format)
    assert ended.code == 130 and "Traceback" not in ended.err
    assert files(tmp_path) == ["a.png"]


def terminal_output(*arguments: object) -> tuple[int, str]:
    """Runs the command line on a terminal of its own: exit code, and what it showed."""
    pty = pytest.importorskip("pty")
    main, child = pty.openpty()
    command = [sys.executable, "-m", "vdsr_cli", *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(main)
    return process.wait(60), shown.decode("utf-8", "replace")


def test_progress_on_a_terminal(tmp_path, save_picture, tiny_path):
    save_picture(tmp_path / "[bold]x.png", 120, 120)
    code, shown = terminal_output("upscale", "-m", tiny_path, "[bold]x.png", "--batch-size", "1")
    assert code == 0
    assert "9/9 tiles" in plain_text(shown).replace("\x1b", "")
    assert "[bold]x.png" in plain_text(shown), "a name is no markup"


def plain_text(shown: str) -> str:
    """Terminal output without its colours."""
    import re

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def test_help_has_an_example_and_every_option_is_told(vdsr):
    ended = vdsr("upscale", "--help")
    assert ended.code == 0
    text = " ".join(ended.out.decode().split())
    assert "vdsr upscale photo.png" in text
    for option in ("--model", "--temperature", "--seed", "--tile", "--wrap", "--json", "--dry-run"):
        assert option in text


def test_bits_and_grey_survive(upscale, tmp_path):
    grey = np.linspace(1000, 60000, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert upscale("deep.png").code == 0
    with Image.open("deep_x4.png") as result:
        assert result.mode in ("I;16", "I") and result.size == (32, 32)

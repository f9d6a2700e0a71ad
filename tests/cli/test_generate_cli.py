"""`vdsr generate`: what it writes, what it prints, and how it ends."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_vdvae import published_state, write_published

from vdsr_cli.paths import OUTPUT_SUFFIXES


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working folder and an empty cache."""
    monkeypatch.setenv("VDSR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def pixels(path):
    return np.asarray(Image.open(path))


def test_a_grid_of_the_bundled_prior(vdsr):
    ended = vdsr("generate", "-n", 3, "--size", "32x16")
    assert ended.code == 0, ended.err
    lines = ended.out.decode().splitlines()
    assert lines[0] == "vdvae-x4-prior_n3.png"
    assert lines[1].startswith("3 pictures of 32x16, ")
    assert pixels(lines[0]).shape == (16 * 2 + 2, 32 * 2 + 2, 3)


def test_one_file_each_equals_the_grid(vdsr, tiny_prior_path):
    asked = ("generate", "-m", tiny_prior_path, "--size", 16, "-n", 2, "--dtype", "float32")
    assert vdsr(*asked, "-o", "grid.png", "--columns", 1).code == 0
    ended = vdsr(*asked, "-o", "each/", "--json", "--batch-size", 1)
    told = json.loads(ended.out)
    assert told["outputs"] == ["each/tiny-prior_s0.png", "each/tiny-prior_s1.png"]
    assert (told["width"], told["height"], told["count"]) == (16, 16, 2)
    grid = pixels("grid.png").astype(int)
    for index, path in enumerate(told["outputs"]):
        assert np.abs(grid[18 * index : 18 * index + 16] - pixels(path)).max() <= 1


def test_what_exists_is_refused_skipped_or_replaced(vdsr, tiny_prior_path, tmp_path):
    asked = ("generate", "-m", tiny_prior_path, "--size", 16, "-o", "each/")
    assert vdsr(*asked, "-n", 1).code == 0
    refused = vdsr(*asked, "-n", 2)
    assert refused.code == 6 and "each/tiny-prior_s0.png exists already" in refused.err
    old = (tmp_path / "here/each/tiny-prior_s0.png").stat().st_mtime_ns
    ended = vdsr(*asked, "-n", 2, "--skip-existing", "--json")
    assert json.loads(ended.out)["status"] == "done"
    assert (tmp_path / "here/each/tiny-prior_s0.png").stat().st_mtime_ns == old
    assert pixels("each/tiny-prior_s1.png").shape == (16, 16, 3)
    assert b"exist, skipped" in vdsr(*asked, "-n", 2, "--skip-existing").out
    assert vdsr(*asked, "-n", 2, "--overwrite", "--quiet").out == b""
    assert (tmp_path / "here/each/tiny-prior_s0.png").stat().st_mtime_ns > old


def test_a_picture_through_standard_output(vdsr, tiny_prior_path):
    ended = vdsr("generate", "-m", tiny_prior_path, "--size", 16, "-n", 1, "-o", "-", "-f", "webp")
    assert ended.code == 0
    assert Image.open(io.BytesIO(ended.out)).format == "WEBP"


@pytest.mark.parametrize("format", sorted(set(OUTPUT_SUFFIXES.values())))
def test_any_format_through_standard_output(vdsr, tiny_prior_path, format):
    asked = ("generate", "-m", tiny_prior_path, "--size", 16, "-n", 1, "-f", format)
    ended, named = vdsr(*asked, "-o", "-"), vdsr(*asked, "-o", f"a.{format}")
    assert (ended.code, ended.err) == (
        named.code,
        named.err.replace(f"a.{format}", "standard output"),
    )
    assert ended.code == 6 or ended.out == Path(f"a.{format}").read_bytes()


@pytest.mark.parametrize("out", ["a" * 300 + ".png", "a" * 300 + "/"])
def test_a_name_that_is_too_long_is_refused_before_anything_is_drawn(
    vdsr, tiny_prior_path, monkeypatch, out
):
    monkeypatch.setattr("vdsr_cli.services.generate.draw_pictures", None)
    ended = vdsr("generate", "-m", tiny_prior_path, "-n", 1, "-o", out)
    assert ended.code == 6 and "its name is too long" in ended.lines[0]


@pytest.mark.usefixtures("small_published")
def test_a_published_pickle(vdsr, tmp_path):
    source = write_published(tmp_path / "ffhq256-ema.th", published_state(prefix="module."))
    ended = vdsr("generate", "--model", source, "-n", 4, "--pixels", "sample", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["width"], told["height"]) == (16, 16)
    assert "trained on 5 bits" in told["notes"][0] and "trained on 5 bits" in ended.err
    assert pixels(told["outputs"][0]).shape == (34, 34, 3)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--size", "0"], 2, "--size 0 is no size"),
        (["--size", "16x"], 2, "--size 16x is no size"),
        (["-t", "3"], 2, "--temperature 3 is outside"),
        (["-t", "128:0.5"], 2, "cells of 128 pixels"),
        (["-o", "-", "--json"], 2, "cannot share standard output"),
        (["-o", "a.xyz"], 2, "no picture format"),
        (["-m", "vdvae-sr-x4"], 2, "not an unconditional prior"),
        (["-m", "nothing"], 4, "no model and no file"),
        (["-m", "openai/ffhq256"], 4, "offline"),
        (["--size", "4096", "-n", "64", "-f", "webp"], 6, "too many for WebP"),
    ],
)
def test_exit_codes(vdsr, tmp_path, words, code, said):
    ended = vdsr("generate", *words)
    assert (ended.code, ended.out) == (code, b"")
    assert said in ended.err and "Traceback" not in ended.err
    assert list((tmp_path / "here").iterdir()) == []

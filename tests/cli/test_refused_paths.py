"""Paths that the system refuses to look at: every command says so in one line."""

import os
from pathlib import Path

import pytest

PHOTO = Path(__file__).parents[2] / "examples" / "photo.png"
LONG = "9" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["upscale", PHOTO, "-m", LONG],
        ["upscale", LONG],
        ["upscale", PHOTO, "-o", LONG + ".png"],
        ["sample-diverse", PHOTO, "-m", LONG],
        ["generate", "-m", LONG],
        ["bench", LONG],
        ["bench", ".", "--metric-weights", LONG],
        ["weights", "info", LONG],
        ["train", "vdvae-sr", LONG, "--out", "run"],
        ["train", "vdvae-sr", ".", "--out", LONG],
        ["train", "vdvae-sr", ".", "--out", "run", "--from", LONG],
        ["train", "export", LONG, "-o", "m.safetensors"],
        ["train", "export", "run", "-o", "m.safetensors", "--blend", LONG + "=0.5"],
    ],
)
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, monkeypatch, vdsr, words):
    monkeypatch.chdir(tmp_path)
    ended = vdsr(*words)
    assert ended.code in (2, 3, 4, 6), ended
    assert ended.lines[0].startswith("vdsr: ") and len(ended.lines) <= 2
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["upscale", PHOTO, "-m", "locked/x.safetensors", "-o", "out.png"],
        ["generate", "-m", "locked/x.safetensors", "-o", "out.png"],
        ["bench", "locked/set"],
        ["train", "export", "locked/run", "-o", "m.safetensors"],
    ],
)
def test_a_folder_that_may_not_be_entered_is_one_line(tmp_path, monkeypatch, vdsr, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locked").mkdir(mode=0o600)
    if os.access(tmp_path / "locked", os.X_OK):
        pytest.skip("this user may enter every folder")
    ended = vdsr(*words)
    assert ended.code == 2, ended
    assert len(ended.lines) == 1 and ended.lines[0].startswith("vdsr: locked/")
    assert os.listdir(tmp_path) == ["locked"]

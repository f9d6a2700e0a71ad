"""Names that no file system holds: every command refuses them in one line."""

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

"""``vdsr train cnn-vae`` and ``vdsr cnn-vae``: trained, resumed, exported, scored, drawn."""

import gzip
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from vdsr_cli.weights import find_record, read_header

TEST_PICTURES = Path(__file__).parents[1] / "data" / "fashion-mnist"
SMALL = ["--width", 4, "--layers", 1, "--batch", 4, "--log-every", 2, "--device", "cpu"]


def write_idx(folder: Path, sets: Mapping[str, NDArray[np.uint8]]) -> Path:
    """A folder with sets of pictures (N, 28, 28) as Fashion-MNIST's files keep them."""
    folder.mkdir()
    for name, pictures in sets.items():
        header = b"\0\0\x08\x03" + struct.pack(">3I", *pictures.shape)
        path = folder / f"{name}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(header + pictures.tobytes()))
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    """Squares of any brightness in random places, in both of Fashion-MNIST's files."""
    rng = np.random.default_rng(0)
    made = {}
    for name, count in (("train", 40), ("t10k", 6)):
        pictures = np.zeros((count, 28, 28), np.uint8)
        for picture in pictures:
            top, left = rng.integers(0, 16, 2)
            picture[top : top + 12, left : left + 12] = rng.integers(100, 256)
        made[name] = pictures
    return write_idx(tmp_path / "data", made)


@pytest.mark.parametrize("reading", ["corrected", "paper"])
def test_a_run_is_trained_resumed_exported_and_scored(data, tmp_path, vdsr, reading):
    run, out = tmp_path / "run", tmp_path / "mine.safetensors"
    words = ["train", "cnn-vae", "--data", data, "--out", run, "--reading", reading, *SMALL]
    assert vdsr(*words, "--steps", 2).code == 0
    ended = vdsr(*words, "--steps", 4)
    assert ended.code == 0 and ended.out.decode().strip() == str(run)
    assert "BCE in bits/pixel: reconstruction" in ended.err
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert {"reconstruction_bits", "latent_bits", "sr_bits"} <= rows[0].keys()
    assert vdsr("train", "export", run, "-o", out, "--card", "licence=MIT").code == 0
    header = read_header(out)
    assert header.architecture == "cnn-vae" and header.config["reading"] == reading
    assert header.metadata["degradation"] == "mean" and header.metadata["step"] == 4
    for model in (run, out):
        ended = vdsr("cnn-vae", "score", "--data", data, "--model", model, "--json")
        assert ended.code == 0, ended.err
        figures = json.loads(ended.out)
        assert figures["pictures"] == 6 and 5 < figures["super_resolution"] < 40
    assert vdsr("cnn-vae", "figure", "--data", data, "-m", out, "-o", tmp_path / "f.png").code == 0
    with Image.open(tmp_path / "f.png") as figure:
        assert figure.width > 5 * 112 and figure.height > 6 * 112


def test_late_steps_weigh_the_latent_picture(data, tmp_path, vdsr):
    """The rows' parts are not weighted, so the loss tells alpha."""
    words = ["--alpha", 1, "--late-alpha", 0, "--late-steps", 2, "--sr-weight", 0]
    run = tmp_path / "run"
    ended = vdsr("train", "cnn-vae", "--data", data, "--out", run, "--steps", 4, *words, *SMALL)
    assert ended.code == 0, ended.err
    early, late = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    assert early["loss"] == pytest.approx(early["reconstruction_bits"], rel=1e-5)
    assert late["loss"] == pytest.approx(late["latent_bits"], rel=1e-5)


def test_the_bundled_model_beats_bicubic(vdsr):
    ended = vdsr("cnn-vae", "score", "--data", TEST_PICTURES, "--json")
    assert ended.code == 0, ended.err
    figures = json.loads(ended.out)
    assert figures["super_resolution"] > figures["bicubic"] + 3
    assert figures["reconstruction"] > figures["bicubic"] + 3
    assert figures["better_than_bicubic"] >= 0.9
    assert find_record("cnn-vae-x2").bytes < 2 << 20


def test_the_scores_read_as_text(vdsr):
    told = vdsr("cnn-vae", "score", "--data", TEST_PICTURES, "--limit", 4).out.decode()
    assert told.startswith("cnn-vae-x2, 4 test pictures") and "super-resolution beats" in told


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["score", "--data", "NOWHERE"], 3, "t10k-images"),
        (["score", "--model", "vdvae-sr-x4"], 2, "not a CNN-VAE"),
        (["score", "--model", "nobody/nothing"], 4, "nobody/nothing"),
        (["figure", "-o", "a.xyz"], 2, ".xyz"),
        (["figure", "-o", "NOWHERE/a/b.png", "-n", "1"], 0, ""),
    ],
)
def test_bad_input_is_one_line(tmp_path, vdsr, words, code, told):
    words = [word.replace("NOWHERE", str(tmp_path / "nowhere")) for word in words]
    given = [] if "--data" in words else ["--data", TEST_PICTURES]
    ended = vdsr("cnn-vae", *words, *given)
    assert ended.code == code and told in ended.err
    assert len(ended.lines) <= 2


def test_another_run_is_not_taken_up(data, tmp_path, vdsr):
    torch.save({"model": {}, "ema": {}, "step": 1, "architecture": {}}, tmp_path / "last.pt")
    ended = vdsr("train", "cnn-vae", "--data", data, "--out", tmp_path, *SMALL)
    assert ended.code == 4 and len(ended.lines) <= 2


def test_an_infinite_psnr_is_told_in_json(tmp_path, vdsr):
    """JSON has no number for it: bicubic keeps a white picture exactly."""
    white = write_idx(tmp_path / "white", {"t10k": np.full((2, 28, 28), 255, np.uint8)})
    ended = vdsr("cnn-vae", "score", "--data", white, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out, parse_constant=pytest.fail)["bicubic"] == "inf"

"""``vdsr train`` as a person uses it: three objectives, a file of options, a card, what is seen."""

import json
import math
import signal
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from vdsr_cli.cli.train_progress import describe
from vdsr_cli.models.compact import CompactConfig, Level
from vdsr_cli.models.presets import PRIOR_PRESETS
from vdsr_cli.training.cards import curve_summary
from vdsr_cli.training.config import TrainConfig, config_for
from vdsr_cli.weights import read_header

TINY_CONFIG = CompactConfig(
    scale=4,
    levels=(
        Level(cell=16, width=8, blocks=1, latent_channels=3, lr_blocks=1),
        Level(cell=8, width=8, blocks=1, latent_channels=2, lr_blocks=1),
        Level(cell=4, width=8, blocks=2, latent_channels=2, lr_blocks=1),
    ),
)
SMALL = ["--batch", 1, "--steps", 2, "--log-every", 1, "--device", "cpu", "--dtype", "float32"]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(2):
        rough = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        rough.resize((72, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def test_a_shipped_model_is_fine_tuned_validated_and_exported(
    pictures, tiny_path, tmp_path, vdsr, save_picture
):
    run, out = tmp_path / "run", tmp_path / "mine.safetensors"
    words = ["--from", tiny_path, "--lr-size", 8, "--val", pictures, "--val-every", 1, *SMALL]
    ended = vdsr("train", "vdvae-sr", pictures, "--out", run, *words)
    assert ended.code == 0, ended.err
    assert ended.out.decode().strip() == str(run)
    assert "validation:" in ended.err and "PSNR-Y" in ended.err and "s/step" in ended.err
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 1, 2, 2]
    assert all({"val_bits", "val_psnr_y"} <= row.keys() for row in rows[::2])
    with Image.open(run / "samples" / "0000002.png") as grid:
        assert grid.size == (4 * 32, 4 * 32)
    with Image.open(run / "curves.png") as curves:
        assert curves.width > 400
    pickle = vdsr("train", "export", run, "-o", tmp_path / "mine.bin")
    assert pickle.code == 2 and "takes for a pickle" in pickle.err
    taken = vdsr("train", "export", run, "-o", out, "--card", "step=7")
    assert taken.code == 2 and "told by the run itself" in taken.err and not out.exists()
    ended = vdsr("train", "export", run, "-o", out, "--card", "licence=CC0", "--card", "by=me")
    assert ended.code == 0, ended.err
    card = read_header(out).metadata
    assert (card["licence"], card["degradation"], card["step"]) == ("CC0", "bicubic", 2)
    assert "vdvae-sr" in card["legs"][0]["command"] and card["legs"][0]["copies"] == 4
    assert card["curves"]["val_psnr_y"]["best"] > 0
    page = out.with_suffix(".md").read_text()
    assert "**licence**: CC0" in page and page.count("**licence**") == 1
    assert "| learning_rate | 0.0002 |" in page
    save_picture(tmp_path / "a.png")
    assert vdsr("upscale", tmp_path / "a.png", "-m", out).code == 0


def test_a_prior_and_both_models_on_it(pictures, tmp_path, vdsr, save_picture, monkeypatch):
    monkeypatch.setitem(PRIOR_PRESETS, "small", TINY_CONFIG)
    prior, small = tmp_path / "prior", [*SMALL, "--lr-size", 8, "--val-every", 2]
    ended = vdsr("train", "vdvae", pictures, "--preset", "small", "--out", prior, *small)
    assert ended.code == 0, ended.err
    assert (prior / "samples" / "0000002.png").exists()
    save_picture(tmp_path / "a.png")
    for objective in ("cvdvae", "vdvae-sr"):
        run, out = tmp_path / objective, tmp_path / f"{objective}.safetensors"
        words = ["--prior", prior, "--degradation", "real", *small]
        ended = vdsr("train", objective, pictures, "--out", run, *words)
        assert ended.code == 0, ended.err
        assert vdsr("train", "export", run, "-o", out).code == 0
        assert read_header(out).metadata["degradation"] == "real"
        ended = vdsr("upscale", tmp_path / "a.png", "-m", out, "--overwrite")
        assert ended.code == 0, ended.err
    ended = vdsr("train", "cvdvae", pictures, "--out", tmp_path / "vdvae-sr", *small)
    assert ended.code == 2 and "cannot train" in ended.err
    assert vdsr("train", "export", prior, "-o", tmp_path / "p.safetensors").code == 0
    assert vdsr("upscale", tmp_path / "a.png", "-m", tmp_path / "p.safetensors").code == 2


def test_options_come_from_a_file_and_the_command_line_wins(pictures, tiny_path, tmp_path, vdsr):
    entries = {"out": str(tmp_path / "run"), "from": str(tiny_path), "lr-size": 8, "steps": 9}
    entries |= {"batch": 1, "mean-weight": 3.5, "degradation": "real", "device": "cpu"}
    entries |= {"val": str(pictures / "0.png"), "rescale": 1, "compile": False}
    lines = [f"{key} = {json.dumps(value)}" for key, value in entries.items()]
    (tmp_path / "run.toml").write_text("\n".join(lines))
    ended = vdsr("train", "vdvae-sr", pictures, "--config", tmp_path / "run.toml", "--steps", 1)
    assert ended.code == 0, ended.err
    config = torch.load(tmp_path / "run" / "last.pt")["config"]
    assert (config["steps"], config["mean_weight"], config["degradation"]) == (1, 3.5, "real")
    assert config["learning_rate"] == 2e-4, "the default of a fine-tuning"


@pytest.mark.parametrize(
    "words", [["--plain-weight", 10], ["--perceptual-net", "both"], ["--no-views"]]
)
def test_the_phase_s_options_are_of_the_phase(pictures, tiny_path, tmp_path, vdsr, words):
    run = ["vdvae-sr", pictures, "--from", tiny_path, "--out", tmp_path / "run"]
    ended = vdsr("train", *run, *words)
    assert ended.code == 2 and "of the adversarial phase" in ended.err
    assert not (tmp_path / "run").exists()


def test_a_curve_is_of_its_finite_values():
    rows = [{"step": i, "loss": v, "val_psnr_y": v} for i, v in enumerate((math.nan, 3.0, 2.0))]
    summary = curve_summary(rows)
    assert summary["loss"] == {"first": 3.0, "last": 2.0, "best": 2.0}
    assert summary["val_psnr_y"] == {"first": 3.0, "last": 2.0, "best": 3.0}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("stepps = 3", "stepps"),
        ("steps = 0", "steps"),
        ("steps = ", "TOML"),
        ("degradation = 'x'", "x"),
        ("beta2 = 1", "below 1"),
        ("a = " + "[" * 100_000, "TOML"),
        ("#" * 2**20 + "#", "larger"),
    ],
)
def test_a_bad_file_of_options_is_a_usage_error(pictures, tmp_path, vdsr, text, problem):
    (tmp_path / "run.toml").write_text(text)
    words = ["--config", tmp_path / "run.toml", "--out", tmp_path / "run"]
    ended = vdsr("train", "vdvae-sr", pictures, *words)
    assert ended.code == 2 and problem in ended.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["vdvae", "PICTURES", "--prior", "x"], 4),
        (["cvdvae", "PICTURES"], 2),
        (["vdvae", "PICTURES", "--from", "TINY"], 2),
        (["cvdvae", "PICTURES", "--prior", "TINY"], 2),
        (["vdvae-sr", "PICTURES", "--from", "nobody/nothing"], 4),
        (["vdvae-sr", "PICTURES", "--prior", "PICTURES"], 4),
        pytest.param(
            ["vdvae-sr", "PICTURES", "--tensorboard", "--from", "TINY", "--lr-size", "8"],
            2,
            marks=pytest.mark.skipif(
                find_spec("tensorboard") is not None, reason="tensorboard is installed"
            ),
        ),
    ],
)
def test_what_does_not_go_together(pictures, tiny_path, tmp_path, vdsr, words, code):
    names = {"PICTURES": str(pictures), "TINY": str(tiny_path)}
    ended = vdsr("train", *(names.get(w, w) for w in words), "--out", tmp_path / "run", *SMALL)
    assert ended.code == code, ended
    assert ended.lines[0].startswith("vdsr: ") and len(ended.lines) <= 2


def test_a_store_is_made_once_and_is_no_other_file(pictures, tiny_path, tmp_path, vdsr):
    mine, run = tmp_path / "mine", tmp_path / "run"
    mine.write_bytes(b"precious")

    def train(store):
        words = ["--out", run, "--from", tiny_path, "--lr-size", 8, *SMALL]
        return vdsr("train", "vdvae-sr", pictures, "--store", store, *words)

    assert train(mine).code == 3 and mine.read_bytes() == b"precious"
    assert train(run / "last.pt").code == 2 and not (run / "last.pt").exists()
    assert train(tmp_path / "store").code == 0
    made = (tmp_path / "store").stat().st_mtime_ns
    assert train(tmp_path / "store").code == 0
    assert (tmp_path / "store").stat().st_mtime_ns == made


def test_a_store_is_of_these_pictures_as_they_are_to_be_kept(pictures, tiny_path, tmp_path, vdsr):
    def train(name, *words):
        shared = ["--from", tiny_path, "--lr-size", 8, "--store", tmp_path / "store", *SMALL]
        return vdsr("train", "vdvae-sr", pictures, "--out", tmp_path / name, *shared, *words)

    assert train("pictures/own").code == 0
    other = train("b", "--rescale", 0.8)
    assert other.code == 2 and "made of other rescales" in other.err
    words = ["--fit", "whole", "--store", tmp_path / "whole"]
    assert train("w", *words).code == 0
    other = train("b", "--rescale", 1, "--store", tmp_path / "whole")
    assert other.code == 2 and "made of other fit" in other.err
    assert train("pictures/own", "--steps", 3).code == 0, "with what it drew among the pictures"
    (pictures / "0.png").rename(pictures / "2.png")
    other = train("b")
    assert other.code == 2 and "made of other pictures" in other.err


def test_a_picture_that_cannot_be_read_stops_nobody(pictures, tiny_path, tmp_path, vdsr):
    (pictures / "._0.png").write_bytes(b"Mac OS X")
    Image.new("RGB", (20, 20)).save(pictures / "small.png")
    words = ["--out", tmp_path / "run", "--from", tiny_path, "--lr-size", 8, *SMALL]
    ended = vdsr("train", "vdvae-sr", pictures, *words, "-q")
    assert ended.code == 0, ended.err
    assert "left out: " in ended.err and "._0.png: " in ended.err
    assert "1 of 4 pictures have not 32 pixels a side" in ended.err
    ended = vdsr("train", "vdvae-sr", pictures, pictures / "mistyped.png", *words)
    assert ended.code == 3 and "mistyped.png" in ended.err


def test_what_a_run_trains_may_not_change(pictures, tiny_path, tmp_path, vdsr):
    words = ["--out", tmp_path / "run", "--lr-size", 8, "--from", tiny_path, *SMALL]
    assert vdsr("train", "vdvae-sr", pictures, *words).code == 0
    path = tmp_path / "run" / "last.pt"
    state = torch.load(path)
    state["optimizer"]["param_groups"][0]["params"].pop()
    torch.save(state, path)
    ended = vdsr("train", "vdvae-sr", pictures, *words, "--steps", 3)
    assert ended.code == 4 and "other parameters" in ended.err and "--from" in ended.err


def test_a_run_is_branched_off_by_its_folder(pictures, tiny_path, tmp_path, vdsr):
    words = ["--lr-size", 8, *SMALL]
    first = vdsr(
        "train", "vdvae-sr", pictures, "--out", tmp_path / "a", "--from", tiny_path, *words
    )
    assert first.code == 0
    branch = ["--branch-from", tmp_path / "a", "--out", tmp_path / "b", *words, "--steps", 3]
    ended = vdsr("train", "vdvae-sr", pictures, *branch)
    assert ended.code == 0, ended.err
    assert torch.load(tmp_path / "b" / "last.pt")["step"] == 3


@pytest.fixture
def heeded():
    """Ctrl-C is heeded, which background shells have ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_first_step_ends_the_run_at_once(
    pictures, tiny_path, tmp_path, vdsr, monkeypatch, number, code
):
    from vdsr_cli.training import data

    read, seen = data.read_levels, []

    def interrupted(path):
        seen.append(path)
        signal.raise_signal(number)
        return read(path)

    monkeypatch.setattr(data, "read_levels", interrupted)
    monkeypatch.setattr(data, "ThreadPoolExecutor", _InTurn)
    words = ["--out", tmp_path / "run", "--from", tiny_path, "--lr-size", 8, *SMALL]
    ended = vdsr("train", "vdvae-sr", pictures, *words)
    assert ended.code == code and len(seen) == 1
    assert not (tmp_path / "run").exists()


class _InTurn:
    """A pool without threads, to which no signal comes."""

    def __init__(self, threads, initializer):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def map(self, function, items):
        return map(function, items)


def test_a_signal_that_is_to_be_ignored_stays_ignored(pictures, tiny_path, tmp_path, vdsr):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        words = ["--out", tmp_path / "run", "--from", tiny_path, "--lr-size", 8, *SMALL]
        ended = vdsr("train", "vdvae-sr", pictures, *words)
        assert ended.code == 0 and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_samples_that_have_no_folder_are_a_fault_of_the_output(pictures, tiny_path, tmp_path, vdsr):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples").write_bytes(b"mine")
    words = ["--out", tmp_path / "run", "--from", tiny_path, "--lr-size", 8, *SMALL]
    ended = vdsr("train", "vdvae-sr", pictures, *words, "--val", pictures, "--val-every", 1)
    assert ended.code == 6 and "samples" in ended.err
    assert (tmp_path / "run" / "samples").read_bytes() == b"mine"


@pytest.mark.parametrize("words", [["train", "export", "RUN", "-o", "-"]])
def test_no_file_is_called_as_standard_output_is(tmp_path, vdsr, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    ended = vdsr(*(tmp_path if word == "RUN" else word for word in words))
    assert ended.code == 2 and "standard output" in ended.err
    assert not (tmp_path / "-").exists()


def test_a_blend_names_each_once(tmp_path, vdsr):
    words = ["-o", tmp_path / "m.safetensors", "--blend", "x=0.3", "--blend", "x=0.2"]
    ended = vdsr("train", "export", tmp_path, *words)
    assert ended.code == 2 and "given twice" in ended.err


def test_a_malformed_card_entry(tmp_path, vdsr):
    ended = vdsr("train", "export", tmp_path, "-o", tmp_path / "m.safetensors", "--card", "x")
    assert ended.code == 2 and "KEY=VALUE" in ended.err


def test_every_hyper_parameter_is_an_option(vdsr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = vdsr("train", "vdvae-sr", "--help").out.decode()
    for name in TrainConfig.__slots__:
        assert f"--{name.replace('_', '-')} " in shown, name


def test_defaults_follow_the_objective_and_the_start():
    assert config_for("vdvae-sr", {}).learning_rate == 1e-3
    assert config_for("vdvae-sr", {}, on_prior=True).lr_size == 32
    assert config_for("cvdvae", {}).mean_weight == 0
    assert config_for("vdvae-sr", {"steps": 7}, fine_tuning=True).steps == 7


def test_a_row_is_told_briefly():
    row = {"step": 100, "loss": 4.0, "distortion_bits": 3.5, "rate_bits": 0.25, "mean_l1": 0.02}
    row |= {"skipped": 1, "seconds_per_step": 0.5}
    told = "-ELBO 3.750 = 3.500 + 0.250 bits/dim, L1 0.0200, 1 skipped, 0.5 s/step"
    assert describe(row) == told
    assert describe({"step": 1, "val_psnr_y": 30.12}) == "validation: PSNR-Y 30.12 dB"


@pytest.mark.parametrize("size", ["nan", "inf", "-1", "1e9"])
def test_a_size_of_no_picture_is_a_usage_error(pictures, tiny_path, tmp_path, vdsr, size):
    words = ["--from", tiny_path, "--out", tmp_path / "run", "--rescale", size, *SMALL]
    assert vdsr("train", "vdvae-sr", pictures, *words).code == 2

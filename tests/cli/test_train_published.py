"""Models on a prior of the published shape, tiny: trained, resumed, exported, sampled with."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image
from published_vdvae import SMALLEST

from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.training.shape import published_shape
from vdsr_cli.weights import Checkpoint, read_header, read_safetensors, write_safetensors

PRIOR = replace(
    SMALLEST,
    image_size=32,
    enc_blocks="32x1,32d2,16x1,16d2,8x1,8d2,4x1,4d4,1x1",
    dec_blocks="1x1,4m1,8m4,16m8,32m16",
    width=8,
    no_bias_above=16,
    low_bit=True,
)
RUN = ["--batch", 1, "--val-every", 2, "--log-every", 1, "--device", "cpu", "--dtype", "float32"]


@pytest.fixture
def prior(tmp_path):
    """The file of a prior, its weights fresh."""
    torch.manual_seed(0)
    state = VDVAE(PRIOR).state_dict()
    path = tmp_path / "prior.safetensors"
    write_safetensors(
        path,
        Checkpoint(architecture="openai-vdvae", config=asdict(PRIOR), state=state, metadata={}),
    )
    return path


@pytest.fixture
def photo(tmp_path, save_picture):
    return save_picture(tmp_path / "photo.png", 48, 40)


def weights_of(run):
    return torch.load(run / "last.pt")["model"]


@pytest.mark.parametrize(
    ("objective", "words", "scale"),
    [
        ("cvdvae", ["--scale", 8], 8),
        ("cvdvae", ["--scale", 2, "--conditioned-layers", 2, "--kl", "mean"], 2),
        ("vdvae-sr", [], 4),
        ("vdvae-sr", ["--no-recompute", "--conditional-top", "--target-bits", 8], 4),
        ("vdvae-sr", ["--lr-into", "prior", "--gates", 8], 4),
        ("vdvae-sr", ["--lr-into", "posterior", "--conditional-top"], 4),
        ("vdvae-sr", ["--trivial-encoder", "--conditional-top", "--train", "decoder"], 4),
    ],
)
def test_trained_resumed_exported_and_sampled_with(
    objective, words, scale, prior, photo, tmp_path, vdsr, save_picture
):
    start = ["train", objective, photo, "--prior", prior, *words, *RUN]
    for run, legs in (("legs", (1, 2)), ("whole", (2,))):
        for steps in legs:
            ended = vdsr(*start, "--out", tmp_path / run, "--steps", steps)
            assert ended.code == 0, ended.err
    legs, whole = weights_of(tmp_path / "legs"), weights_of(tmp_path / "whole")
    assert all(torch.equal(value, whole[name]) for name, value in legs.items())
    start_values = read_safetensors(prior).state
    moved = {n.split(".")[0] for n, v in start_values.items() if not torch.equal(v, legs[n])}
    assert moved == (set() if objective == "cvdvae" else {"decoder"}), "the rest is frozen"

    ended = vdsr(*start[:3], *RUN, "--out", tmp_path / "legs", "--steps", 3)
    assert ended.code == 0, "a resumed run knows its shape without --prior: " + ended.err
    assert published_shape(objective, tmp_path / "legs") == published_shape(
        objective, tmp_path / "new", branch_from=tmp_path / "legs" / "last.pt"
    )
    assert published_shape(objective, tmp_path / "new") is None
    out = tmp_path / "mine.safetensors"
    assert vdsr("train", "export", tmp_path / "legs", "-o", out).code == 0
    assert read_header(out).metadata["train"]["lr_size"] == 32 // scale

    lr = save_picture(tmp_path / "lr.png", 23, 19)
    sampling = ["-m", out, "--scale", scale, "--dtype", "float32", "--overwrite"]
    ended = vdsr("upscale", lr, "-o", tmp_path / "sr.png", *sampling, "--pixels", "sample")
    assert ended.code == 0, ended.err
    assert "tiles is a picture of its own" in ended.err
    with Image.open(tmp_path / "sr.png") as sr:
        assert sr.size == (23 * scale, 19 * scale)
    words = ["sample-diverse", lr, "-n", 2, "-o", tmp_path / "set", "--json", *sampling]
    ended = vdsr(*words)
    assert ended.code == 0, ended.err
    facts = json.loads(ended.out)
    assert all(p["lr_psnr"] > 60 for p in facts["sets"][0]["pictures"]), "they are projected"
    ended = vdsr("upscale", lr, "-o", tmp_path / "x.png", *sampling, "--tile", 64)
    assert ended.code == 2
    assert f"takes tiles of {32 // scale} LR pixels" in ended.err
    assert not (tmp_path / "x.png").exists()


TOML = """
image_size = 64
enc_blocks = "64x1,64d2,32x1,32d2,16x1,16d2,8x1,8d2,4x1,4d4,1x1"
dec_blocks = "1x1,4m1,8m4,16m8,32m16,64m32"
width = 8
zdim = 2
num_mixtures = 2
no_bias_above = 16
input_shift = -120
input_scale = 0.015625
"""


def test_a_prior_is_trained_from_nothing_and_conditioned(tmp_path, vdsr, save_picture):
    """Resumed bit for bit and fine-tuned; models at x2 and x16 on it upscale."""
    photo = save_picture(tmp_path / "photo.png", 72, 80)
    shape = tmp_path / "shape.toml"
    shape.write_text(TOML)
    start = ["train", "vdvae", photo, "--preset", shape, *RUN, "--val", photo]
    for run, legs in (("legs", (1, 2)), ("whole", (2,))):
        for steps in legs:
            ended = vdsr(*start, "--out", tmp_path / run, "--steps", steps)
            assert ended.code == 0, ended.err
    legs, whole = weights_of(tmp_path / "legs"), weights_of(tmp_path / "whole")
    assert all(torch.equal(value, whole[name]) for name, value in legs.items())
    recomputed = [*start, "--no-recompute", "--out", tmp_path / "kept", "--steps", 2]
    assert vdsr(*recomputed).code == 0
    for name, value in weights_of(tmp_path / "kept").items():
        torch.testing.assert_close(value, whole[name])
    row = json.loads((tmp_path / "whole" / "log.jsonl").read_text().splitlines()[-1])
    assert row["val_bits"] > 0
    assert (tmp_path / "whole" / "samples" / "0000002.png").exists()

    prior = tmp_path / "prior.safetensors"
    assert vdsr("train", "export", tmp_path / "whole", "-o", prior).code == 0
    train = read_header(prior).metadata["train"]
    told = (train["lr_size"], train["batch"], train["symmetries"], train["weight_decay"])
    assert told == (64, 1, "none", 0.01)
    tuned = ["train", "vdvae", photo, "--from", prior, *RUN, "--out", tmp_path / "tuned"]
    assert vdsr(*tuned, "--steps", 1).code == 0
    assert vdsr("generate", "-m", prior, "-n", 1, "-o", tmp_path / "g.png").code == 0

    lr = save_picture(tmp_path / "lr.png", 32, 8)
    for scale in (2, 16):
        run, out = tmp_path / f"x{scale}", tmp_path / f"x{scale}.safetensors"
        words = ["--prior", prior, "--scale", scale, "--steps", 1, *RUN, "--out", run]
        ended = vdsr("train", "cvdvae", photo, *words)
        assert ended.code == 0, ended.err
        assert vdsr("train", "export", run, "-o", out).code == 0
        words = ["-s", scale, "-m", out, "-o", tmp_path / f"x{scale}.png"]
        ended = vdsr("upscale", lr, *words, "--conditional-temperature", 1)
        assert ended.code == 0, ended.err
        with Image.open(tmp_path / f"x{scale}.png") as sr:
            assert sr.size == (32 * scale, 8 * scale)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("width = 8", "missing 5 required keyword-only arguments"),
        (TOML + "depth = 3", "unexpected keyword argument 'depth'"),
        (TOML.replace("64m32", "64m128"), "mixes in what comes later"),
        (TOML.replace("width = 8", "width = 'wide'"), "describes no network"),
        (TOML.replace("width = 8", "width = 0"), "describes no network"),
        ("width = ", "cannot be read as TOML"),
    ],
)
def test_a_file_that_describes_no_network_is_one_line(text, problem, photo, tmp_path, vdsr):
    shape = tmp_path / "shape.toml"
    shape.write_text(text)
    ended = vdsr("train", "vdvae", photo, "--preset", shape, "--out", tmp_path / "run")
    assert ended.code == 2 and problem in ended.err and "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--scale", 3], "--scale 3 does not suit a prior of 32x32"),
        (["--scale", 16], "try one of 2, 4, 8"),
        (["--lr-size", 16], "--lr-size must be 8"),
        (["--conditioned-layers", 5], "ky = 5 conditions blocks at 32"),
        (["--gates", "none"], "variants are of VDVAE-SR"),
        (["--gates", "some"], "--gates some: all, none, or a resolution"),
        (["--schedule", "plateau"], "--schedule plateau goes by validations"),
        (["--train", "gates"], "trained are some of encoder, decoder, lr-encoder"),
    ],
)
def test_what_a_prior_cannot_be_trained_for(words, problem, prior, photo, tmp_path, vdsr):
    run = ["--out", tmp_path / "run", "--steps", 1, *RUN]
    ended = vdsr("train", "cvdvae", photo, "--prior", prior, *words, *run)
    assert ended.code == 2 and problem in ended.err
    assert not (tmp_path / "run").exists()


def test_a_model_with_a_scale_of_its_own_takes_no_other(photo, tiny_path, tmp_path, vdsr):
    run = ["--out", tmp_path / "run", "--steps", 1, "--lr-size", 8, *RUN]
    ended = vdsr("train", "vdvae-sr", photo, "--from", tiny_path, "--scale", 8, *run)
    assert ended.code == 2 and "makes x4" in ended.err

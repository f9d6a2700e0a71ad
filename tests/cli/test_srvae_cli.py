"""``vdsr train srvae`` and ``vdsr srvae``: a small run from pictures to sheets and scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.loading import load
from vdsr_cli.metrics import frechet_distance
from vdsr_cli.metrics.learned import Learned
from vdsr_cli.models.srvae import SRVAE
from vdsr_cli.models.srvae_config import (
    FLOW_VAE_PRESETS,
    SRVAE_PRESETS,
    DenseSpec,
    FlowVAEConfig,
    SRVAEConfig,
)
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.services.srvae import (
    AT_THE_MEAN,
    Crops,
    Drawer,
    Drawing,
    draw_interpolation,
    take_crops,
)
from vdsr_cli.weights import find_record, read_header

STREET = Path(__file__).parents[1] / "data" / "street.png"

THIN, TWICE = DenseSpec(growth=4, steps=1), DenseSpec(growth=4, steps=1, depth=2)
SMALL = SRVAEConfig(
    latent_channels=2,
    components=2,
    flow=THIN,
    q_u=THIN,
    p_y=THIN,
    q_z=TWICE,
    p_z_y=THIN,
    p_z_u=THIN,
    p_z=THIN,
    p_x_z=TWICE,
    p_x=THIN,
    residual_unit=0.1,
)
OPERATIONS = ["super-resolve", "reconstruct", "generative-reconstruct"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(2):
        rough = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        rough.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def small_preset(monkeypatch) -> list[str]:
    """Options of a run of a tiny network."""
    monkeypatch.setitem(SRVAE_PRESETS, "small", SMALL)
    words = "--preset small --batch 4 --log-every 1 --device cpu --dtype float32 --val-every 2"
    return words.split()


def test_from_pictures_to_sheets_and_scores(pictures, small_preset, tmp_path, vdsr):
    run, out = tmp_path / "run", tmp_path / "mine.safetensors"
    words = ["train", "srvae", pictures, "--out", run, "--val", pictures, *small_preset]
    ended = vdsr(*words, "--steps", 2)
    assert ended.code == 0, ended.err
    assert vdsr(*words, "--steps", 4).code == 0, "taken up"
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [row for row in rows if "loss" in row]
    assert [row["step"] for row in losses] == [1, 2, 3, 4]
    assert losses[0]["mean_l1"] < 0.2, "a residual model begins at the bicubic picture"
    assert {"val_bits", "val_psnr_y"} <= rows[-1].keys()
    assert (run / "samples" / "0000004.png").exists()
    assert vdsr("train", "export", run, "-o", out).code == 0
    assert read_header(out).architecture == "srvae"

    for name in OPERATIONS:
        sheet = tmp_path / f"{name}.png"
        ended = vdsr("srvae", name, pictures, "-m", out, "-o", sheet, "-n", 2, "--samples", 1)
        assert ended.code == 0, ended.err
        with Image.open(sheet) as drawn:
            assert drawn.width > 5 * 128 and drawn.height > 2 * 128
    sheet = tmp_path / "figure.png"
    assert vdsr("srvae", "figure", pictures, "-m", out, "-o", sheet, "-n", 2).code == 0
    with Image.open(sheet) as drawn:
        assert drawn.width > 7 * 128 and drawn.height > 3 * 128, "two crops and what is generated"
    for pixels in ([], ["--sample-pixels"]):
        words = ["srvae", "generate", "-m", run, "-o", tmp_path / "g.png", "-n", 3, *pixels]
        assert vdsr(*words, "--overwrite").code == 0

    words = ["srvae", "score", pictures, "-m", out, "-n", 4, "--weights", 3]
    figures = json.loads(vdsr(*words, "--json").out)
    assert figures["crops"] == 4 and set(figures["psnr"]) == {
        "bicubic",
        "super_resolution",
        "sample",
        "reconstruction",
    }
    nats = sum(figures["nats"].values())
    assert figures["elbo_bits"] == pytest.approx(nats / (3072 * np.log(2)))
    assert figures["iw_bits"] < figures["elbo_bits"] + 0.05
    told = vdsr(*words).out.decode()
    assert "3 importance weights" in told and "bicubic" in told

    Image.new("RGB", (10, 6), "teal").save(tmp_path / "a.png")
    ended = vdsr("upscale", tmp_path / "a.png", "-m", out, "-s", 2, "-o", tmp_path / "b.png")
    assert ended.code == 0, ended.err
    with Image.open(tmp_path / "b.png") as large:
        assert large.size == (20, 12)


def test_the_baseline_from_pictures_to_sheets_and_scores(pictures, tmp_path, vdsr, monkeypatch):
    """Half of the paper's table 1: trained, scored, reconstructed, interpolated, generated."""
    small = FlowVAEConfig(latent_channels=2, components=2, flow=THIN, q_z=TWICE, p_x=TWICE)
    monkeypatch.setitem(FLOW_VAE_PRESETS, "vae", small)
    run, out = tmp_path / "run", tmp_path / "mine.safetensors"
    words = ["train", "srvae", pictures, "--out", run, "--preset", "vae", "--batch", 4]
    words += ["--device", "cpu", "--dtype", "float32", "--val", pictures, "--val-every", 2]
    ended = vdsr(*words, "--steps", 2)
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert "val_bits" in rows[-1] and (run / "samples" / "0000002.png").exists()
    assert vdsr("train", "export", run, "-o", out).code == 0
    assert read_header(out).architecture == "flow-vae"

    score = ["srvae", "score", pictures, "-m", out, "-n", 4]
    figures = json.loads(vdsr(*score, "--weights", 3, "--json").out)
    assert set(figures["psnr"]) == {"bicubic", "reconstruction"}
    assert set(figures["nats"]) == {"nll_x", "kl_z"}
    nats = sum(figures["nats"].values())
    assert figures["elbo_bits"] == pytest.approx(nats / (3072 * np.log(2)))
    assert "reconstruction" in vdsr(*score).out.decode()
    for name in ("reconstruct", "interpolate"):
        sheet = tmp_path / f"{name}.png"
        ended = vdsr("srvae", name, pictures, "-m", out, "-o", sheet, "-n", 1)
        assert ended.code == 0 and sheet.exists(), ended.err
    ended = vdsr("srvae", "super-resolve", pictures, "-m", out, "-o", tmp_path / "x.png")
    assert ended.code == 2 and "not an srVAE" in ended.err
    ended = vdsr("generate", "-m", out, "-n", 4, "-o", tmp_path / "grid.png")
    assert ended.code == 0, ended.err
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (66, 66)
    ended = vdsr("bench", pictures, "-m", out, "--weights", 2, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["rows"][0]["bits_iw"] > 0


@pytest.fixture
def bundled():
    return load("srvae-x2", choose_runtime("cpu", "float32"), expects=SRVAE).model


@torch.inference_mode()
def test_interpolation_goes_from_one_code_to_the_other(pictures, bundled):
    crops = take_crops([pictures], count=2, size_px=32, seed=0)
    first, second = (Crops(hr=crops.hr[i : i + 1], lr=crops.lr[i : i + 1]) for i in (0, 1))
    drawer = Drawer(bundled, AT_THE_MEAN)
    there = drawer.interpolate(first, second, 3)
    back = drawer.interpolate(second, first, 3)
    assert all(torch.equal(a, b) for a, b in zip(there, reversed(back), strict=True))
    assert not torch.equal(there[0], there[2])
    assert draw_interpolation(bundled, crops, steps=3).shape[1] > 5 * 128


def test_an_odd_picture_is_left_out_of_the_pairs(tmp_path, save_picture, vdsr, bundled):
    for index in range(3):
        save_picture(tmp_path / f"{index}.png", 32, 32, seed=index)
    crops = take_crops([tmp_path], count=4, size_px=32, seed=0)
    assert len(crops.hr) == 3
    pair = Crops(hr=crops.hr[:2], lr=crops.lr[:2])
    sheets = [draw_interpolation(bundled, each, steps=2) for each in (crops, pair)]
    assert np.array_equal(*sheets)
    ended = vdsr("srvae", "interpolate", tmp_path / "0.png", "-o", tmp_path / "sheet.png")
    assert ended.code == 3 and "two pictures are needed" in ended.err


@pytest.mark.parametrize("command", ["super-resolve", "interpolate", "figure"])
def test_no_sheet_replaces_a_picture_of_its_folder(tmp_path, save_picture, vdsr, command):
    path = save_picture(tmp_path / "a.png", 64, 64)
    before = path.read_bytes()
    ended = vdsr("srvae", command, tmp_path, "-o", path, "--overwrite")
    assert ended.code == 2 and "is an input" in ended.err
    assert path.read_bytes() == before


def test_pictures_of_the_models_size_are_taken_whole_and_once(tmp_path, save_picture):
    """A folder such as CIFAR-10's: no picture is mirrored or repeated."""
    for index in range(5):
        save_picture(tmp_path / f"{index}.png", 32, 32, seed=index)
    whole = {np.asarray(Image.open(tmp_path / f"{i}.png")).tobytes() for i in range(5)}
    for count, wanted in ((None, 5), (3, 3), (9, 5)):
        crops = take_crops([tmp_path], count=count, size_px=32, seed=1)
        found = {hr.permute(1, 2, 0).numpy().tobytes() for hr in crops.hr}
        assert len(crops.hr) == len(found) == wanted and found <= whole
        assert torch.equal(crops.lr, degrade_8bit(crops.hr, 2))


class MeanColours:
    """Stands in for Inception: three numbers a picture."""

    def __call__(self, pixels):
        return pixels.double().mean((1, 2))


@torch.inference_mode()
def test_fid_is_of_pictures_out_of_nothing(pictures, bundled, vdsr, monkeypatch):
    monkeypatch.setattr(
        "vdsr_cli.services.srvae.load_learned",
        lambda wanted, folder: Learned(inception=MeanColours()),
    )
    words = ["srvae", "score", pictures, "--fid"]
    figures = json.loads(vdsr(*words, "-n", 50, "--json").out)
    crops = take_crops([pictures], count=50, size_px=32, seed=0)
    drawn = Drawer(bundled, Drawing(temperature=1.0)).pictures(50)
    features = [torch.stack([MeanColours()(p) for p in those]) for those in (drawn, crops.hr)]
    assert figures["fid"] == pytest.approx(frechet_distance(*features))
    ended = vdsr(*words, "-n", 49)
    assert ended.code == 2 and "50 pictures, there are 49" in ended.err


def test_the_bundled_model_beats_bicubic(vdsr):
    ended = vdsr("srvae", "score", STREET, "-n", 64, "--json")
    assert ended.code == 0, ended.err
    figures = json.loads(ended.out)
    assert figures["model"] == "srvae-x2"
    assert figures["psnr"]["super_resolution"] > figures["psnr"]["bicubic"] + 0.5
    assert figures["better_than_bicubic"] >= 0.9
    assert find_record("srvae-x2").bytes < 8 << 20


def test_the_same_seed_gives_the_same_sheet(pictures, tmp_path, vdsr, small_preset):
    words = ["train", "srvae", pictures, "--out", tmp_path / "run", *small_preset]
    assert vdsr(*words, "--steps", 1).code == 0
    sheets = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = tmp_path / f"{name}.png"
        assert (
            vdsr("srvae", "generate", "-m", tmp_path / "run", "-o", path, "--seed", seed).code == 0
        )
        sheets.append(path.read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_the_first_pass_initialises_a_new_run_alone(pictures, tmp_path, vdsr, small_preset):
    """A resumed run and one from finished weights keep theirs."""
    words = ["train", "srvae", pictures, *small_preset, "--learning-rate", 0]
    first = tmp_path / "first"
    assert vdsr(*words, "--out", first, "--steps", 1).code == 0
    before = torch.load(first / "last.pt")["model"]
    lengths = [value for name, value in before.items() if name.endswith("weight_g")]
    assert all(bool((value != 1).any()) for value in lengths if value.dim() == 4)
    assert vdsr(*words, "--out", first, "--steps", 2).code == 0
    fine = ["train", "srvae", pictures, "--from", first, *small_preset[2:], "--learning-rate", 0]
    assert vdsr(*fine, "--out", tmp_path / "second", "--steps", 1).code == 0
    for run in (first, tmp_path / "second"):
        after = torch.load(run / "last.pt")["model"]
        assert all(torch.equal(after[name], value) for name, value in before.items())
    torch.manual_seed(0)
    assert set(before) == set(SRVAE(SMALL).state_dict())


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["score", "PICTURES", "-m", "vdvae-sr-x4"], 2, "not an srVAE"),
        (["score", "PICTURES", "-m", "nobody/nothing"], 4, "nobody/nothing"),
        (["reconstruct", "PICTURES", "-m", "x", "-o", "a.xyz"], 2, ".xyz"),
        (["generate", "-m", "x", "-o", "a.png", "--device", "cuda:99"], 5, ""),
    ],
)
def test_bad_input_is_one_line(pictures, vdsr, words, code, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = vdsr("srvae", *(str(pictures) if word == "PICTURES" else word for word in words))
    assert ended.code == code and told in ended.err, ended
    assert len(ended.lines) <= 2 and ended.lines[0].startswith("vdsr: ")


def test_more_crops_than_memory_can_count_are_refused(pictures, vdsr):
    ended = vdsr("srvae", "score", pictures, "-n", 2**63 - 1)
    assert ended.code == 2 and "1000000" in ended.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--prior", "vdvae-sr-x4"], "builds on no prior"),
        (["--from", "vdvae-sr-x4"], "cannot train"),
        (["--preset", "vdvae-sr-x4"], "srvae-x2"),
    ],
)
def test_what_does_not_go_together(pictures, tmp_path, vdsr, words, told):
    ended = vdsr("train", "srvae", pictures, "--out", tmp_path / "run", *words)
    assert ended.code == 2 and told in ended.err, ended

"""``vdsr sample-diverse`` at the command line."""

import json
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from vdsr_cli.cli.command import spread
from vdsr_cli.cli.sample_diverse import sample_diverse
from vdsr_cli.errors import VdsrError


@pytest.fixture
def run(tiny_path):
    """``run("face.png", ...)``: the command with the tiny model; how it ended."""
    app = typer.Typer()
    app.command()(spread(sample_diverse))

    def invoke(*arguments):
        words = [*map(str, arguments), "--model", str(tiny_path), "--tile", "16", "--overlap", "4"]
        return CliRunner().invoke(app, [*words, "--dtype", "float32"])

    return invoke


@pytest.fixture
def face(tmp_path, save_picture):
    return save_picture(tmp_path / "face.png", 16, 12)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_beside_the_input_and_says_what(run, face, tmp_path):
    ended = run(face, "-n", 2)
    assert ended.exit_code == 0
    kinds = ("mean", "s0", "s1", "sheet", "std", "std16")
    assert names(tmp_path) == ["face.png", *(f"face_x4_{kind}.png" for kind in kinds)]
    lines = ended.stdout.splitlines()
    assert lines[0].startswith(str(tmp_path / "face_x4_s0.png"))
    assert "dB" in lines[0]


def test_json_is_one_object(run, face, tmp_path):
    ended = run(face, "-n", 3, "-o", tmp_path / "out", "--json", "--report", tmp_path / "r.html")
    result = json.loads(ended.stdout)
    assert result["status"] == "done"
    (only,) = result["sets"]
    assert only["samples"] == 3
    assert only["apd_mse"] > 0
    assert only["apd_lpips"] is None
    assert [p["name"] for p in only["pictures"]] == ["s0", "s1", "s2", "mean"]
    assert all(p["lr_psnr"] > 70 for p in only["pictures"])
    assert result["report"] == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").exists()


def test_temperatures_by_level_name_their_files(run, face, tmp_path):
    ended = run(face, "-n", 2, "--temperatures", "0.5;0,16:0.2", "-o", tmp_path / "out", "--json")
    told = json.loads(ended.stdout)
    assert [entry["temperature"] for entry in told["sets"]] == [0.5, "0,16:0.2"]
    first = told["sets"][1]["pictures"][0]["file"]
    assert Path(first).name == "face_x4_t0_16-0.2_s0.png"


def test_samples_are_faithful_by_the_edges_asked_for(run, face, tmp_path):
    words = ["-n", 2, "-o", tmp_path / "out", "--json", "--edges", "mirror"]
    told = json.loads(run(face, *words).stdout)
    assert told["edges"] == "mirror"
    assert all(p["lr_psnr"] > 70 for p in told["sets"][0]["pictures"])
    words = ["--no-consistency", "-n", 1, "-o", tmp_path / "raw", "--json"]
    assert json.loads(run(face, *words).stdout)["edges"] is None


def test_the_result_says_how_the_picture_goes_on(run, face, tmp_path):
    told = json.loads(run(face, "-n", 2, "--wrap", "xy", "-o", tmp_path / "both", "--json").stdout)
    assert told["wrap"] == "xy"
    assert all(p["lr_psnr"] > 75 for p in told["sets"][0]["pictures"])
    told = json.loads(run(face, "-n", 1, "-o", tmp_path / "none", "--json").stdout)
    assert told["wrap"] is None


def test_quiet_prints_nothing(run, face):
    ended = run(face, "-n", 1, "-q")
    assert ended.exit_code == 0
    assert ended.stdout == ""


def test_one_picked_picture_takes_the_name_given(run, face, tmp_path):
    ended = run(face, "-n", 3, "--pick", "medoid", "-o", tmp_path / "best.webp")
    assert ended.exit_code == 0
    assert names(tmp_path) == ["best.webp", "face.png"]
    with Image.open(tmp_path / "best.webp") as best:
        assert best.format == "WEBP"


@pytest.mark.parametrize(
    "arguments",
    [
        ["-n", 2],
        ["-n", 1],
        ["--temperatures", "0,0.7", "-n", 2],
        ["--interpolate", 0, 2, "--steps", 3],
        ["--pick", "farthest-2"],
        ["--report", "page.html", "--save-latents", "z.safetensors"],
    ],
)
def test_a_dry_run_names_what_a_run_writes(run, face, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    planned = run(face.name, *arguments, "--dry-run", "--json")
    assert names(tmp_path) == ["face.png"]
    lines = run(face.name, *arguments, "--dry-run").stdout.splitlines()
    run(face.name, *arguments)
    outputs = json.loads(planned.stdout)["outputs"]
    assert sorted(["face.png", *outputs]) == names(tmp_path)
    assert lines == [f"face.png -> {path}" for path in outputs]


def test_temperatures_and_interpolation(run, face, tmp_path):
    run(face, "-n", 2, "--temperatures", "0.2,0.7", "-o", tmp_path / "grid")
    assert "face_x4_t0.2_s0.png" in names(tmp_path / "grid")
    run(face, "--interpolate", 0, 2, "--steps", 3, "-o", tmp_path / "walk")
    assert "face_x4_w2.png" in names(tmp_path / "walk")


def test_latents_go_to_a_file_and_back(run, face, tmp_path):
    latents = tmp_path / "z.safetensors"
    run(face, "-n", 2, "--save-latents", latents, "-o", tmp_path / "a")
    run(face, "--from-latents", latents, "--seed", 5, "-o", tmp_path / "b")
    for name in ("face_x4_s0.png", "face_x4_s1.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--scale", "2"], 2),
        (["--pick", "best"], 2),
        (["--temperatures", "a,b"], 2),
        (["--temperature", "9"], 2),
        (["--temperatures", "0.2,9"], 2),
        (["--temperatures", "0.2,0.2"], 2),
        (["--temperatures", "16:0.2;0.8,16:0.2"], 2),
        (["--temperature", "64:0.5"], 2),
        (["--conditional-temperature", "1"], 2),
        (["--interpolate", "1", "1"], 2),
        (["--interpolate", "0", "3"], 2),
        (["--batch-size", "none"], 2),
        (["-o", "-"], 2),
        (["--mask", "missing.png"], 3),
        (["--from-latents", "missing.safetensors"], 3),
    ],
)
def test_refusals(run, face, arguments, code):
    ended = run(face, "-n", 2, *arguments)
    assert isinstance(ended.exception, VdsrError)
    assert ended.exception.exit_code == code


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--interpolate", "1", "1"], "needs two samples"),
        (["--interpolate", "0", "1", "-n", "2"], "exclude each other"),
    ],
)
def test_a_walk_that_is_none_is_refused(run, face, arguments, reason):
    ended = run(face, *arguments)
    assert ended.exception.exit_code == 2 and reason in str(ended.exception)


def test_folders_and_existing_outputs_are_refused(run, face, tmp_path):
    assert run(tmp_path).exception.exit_code == 2
    run(face, "-n", 1)
    assert run(face, "-n", 1).exception.exit_code == 6
    assert "skipped" in run(face, "-n", 1, "--skip-existing").stdout


@pytest.mark.parametrize("side", [2, 40])
def test_a_file_that_is_kept_is_of_this_input(run, face, side):
    run(face, "-n", 1)
    kept = face.with_name("face_x4_s0.png")
    Image.new("RGB", (side, side)).save(kept)
    ended = run(face, "-n", 2, "--skip-existing")
    assert isinstance(ended.exception, VdsrError) and ended.exception.exit_code == 6
    assert f"{kept.name} exists and is of another size" in str(ended.exception)


@pytest.mark.parametrize(("format", "width"), [("webp", 4096), ("heif", 16)])
def test_what_cannot_be_written_is_not_drawn(
    run, tmp_path, save_picture, monkeypatch, format, width
):
    monkeypatch.setattr("vdsr_cli.images.encode.has_extra", lambda extra: False)
    lr = save_picture(tmp_path / "lr.png", width, 2)
    assert run(lr, "-n", 2, "--format", format).exception.exit_code == 6
    assert names(tmp_path) == ["lr.png"]


def test_a_missing_input_leaves_nothing(run, tmp_path):
    assert run(tmp_path / "none.png").exception.exit_code == 3
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("scale", "model"), [(2, "vdvae-sr-x2"), (4, "cvdvae-x4"), (8, "vdvae-sr-x8")]
)
def test_the_scale_chooses_a_bundled_model(vdsr, face, tmp_path, scale, model):
    ended = vdsr("sample-diverse", face, "-n", 2, "-s", scale, "-o", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["model"] == model

"""`vdsr bench`: what it prints, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from published_vdvae import cut, published_state, write_published
from rich.text import Text
from typer.testing import CliRunner

from vdsr_cli.cli.bench import bench
from vdsr_cli.cli.command import spread
from vdsr_cli.config import DEFAULT_MODEL
from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.weights import load_records

app = typer.Typer()
app.command("bench")(spread(bench))


def run(*arguments: object, code: int = 0):
    """Run the command to its end; errors of the tree come through."""
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def photos(tmp_path, save_picture):
    folder = tmp_path / "photos"
    folder.mkdir()
    save_picture(folder / "a.png", 48, 40, seed=1)
    save_picture(folder / "b.png", 40, 64, seed=2)
    return folder


def test_a_table_does_not_take_the_place_of_a_picture(photos):
    before = (photos / "a.png").read_bytes()
    with pytest.raises(UsageError, match="is an input of this run"):
        run(photos, "-m", "bicubic", "--csv", photos / "a.png", "--overwrite")
    assert (photos / "a.png").read_bytes() == before


def test_importing_it_is_cheap():
    script = "import sys, vdsr_cli.cli.bench\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_the_table(photos, tiny_path):
    result = run(photos, "-m", tiny_path, "--temperatures", "0,1", "--dtype", "float32")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("photos, x4, protocol standard")
    assert [line.split()[1] for line in lines if line.startswith("  tiny")] == ["t=0", "t=1"]
    assert "2 pictures; bicubic not verified: no figure is known for it" in result.stdout
    assert "bits per dimension = distortion" in result.stdout
    assert "not scored, no weights on this disk: lpips" in result.stderr


def test_a_narrow_terminal_has_the_columns_in_several_tables(photos, tiny_path, monkeypatch):
    words = (photos, "-m", tiny_path, "--dtype", "float32", "--seeds", 2)
    wide = run(*words).stdout.splitlines()
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "80")
    narrow = Text.from_ansi(run(*words).stdout).plain.splitlines()
    assert all(len(line) <= 80 for line in narrow)
    titles = [line for line in narrow if line.startswith("  method")]
    (whole,) = [line for line in wide if line.startswith("  method")]
    assert len(titles) > 1 and " ".join(titles).replace("method", "").split() == whole.split()[1:]
    assert sum(line.startswith("  tiny t=0.8") for line in narrow) == len(titles)


def test_a_metric_without_weights_says_so_in_its_column(photos):
    result = run(photos, "-m", "bicubic", "--metrics", "lpips-vgg", "--markdown", code=4)
    lines = result.stdout.splitlines()
    assert "LPIPS vgg" in lines[2] and "no weights" in lines[4]
    assert "lpips_vgg is not scored" in result.stderr


def test_json(photos, tiny_path):
    result = run(photos, "-m", tiny_path, "--json", "--seeds", 2, "--no-elbo", "--quiet")
    document = json.loads(result.stdout)
    assert document["protocol"] == "standard" and document["scale"] == 4
    assert [row["method"] for row in document["rows"]] == ["bicubic", "tiny"]
    row = document["rows"][1]
    assert row["temperature"] == 0.8 and row["seeds"] == [0, 1] and row["psnr_y_std"] > 0
    assert "bits_per_dim" not in row
    assert len(document["pictures"]) == 2 + 4
    assert document["datasets"][0]["bicubic_verified"] is None


def test_edges_are_named(photos):
    document = json.loads(run(photos, "-m", "bicubic", "--json", "--quiet").stdout)
    assert document["edges"] == "repeat"
    mirrored = run(photos, "-m", "bicubic", "--edges", "mirror", "--quiet").stdout
    assert "x4, protocol standard, edges mirror" in mirrored


def test_temperatures_by_level_are_rows(photos, tiny_path, tmp_path):
    words = ["--temperatures", "0;0,16:0.2", "--no-elbo", "--quiet", "--plot", tmp_path / "t.svg"]
    rows = json.loads(run(photos, "-m", tiny_path, "--json", *words).stdout)["rows"]
    assert [row["temperature"] for row in rows] == [None, 0.0, "0,16:0.2"]
    assert [row["seeds"] for row in rows] == [[], [], [0]]
    with pytest.raises(UsageError, match="cells of 64 pixels"):
        run(photos, "-m", tiny_path, "--temperature", "64:0.2")


def test_markdown_marks_the_best(photos, tiny_path):
    result = run(photos, "-m", tiny_path, "--markdown", "--worst", 1, "--protocol", "paper")
    assert result.stdout.startswith("**photos, x4, protocol paper**\n\n| method | PSNR Y |")
    assert "| bicubic |" in result.stdout and "**" in result.stdout.splitlines()[4]
    assert "worst pictures in PSNR Y" in result.stdout


def test_published_rows_stand_apart(photos):
    folder = photos.rename(photos.with_name("Set5"))
    result = run(folder, "-m", "bicubic", "--published")
    assert "SwinIR [" in result.stdout and "as published: SwinIR" in result.stdout
    assert "not comparable with ours" in result.stdout
    result = run(folder, "-m", "bicubic", "--published", "--protocol", "diverse")
    assert "SwinIR [" not in result.stdout


def test_files(photos, tiny_path, tmp_path):
    csv, plot, crops = tmp_path / "s.csv", tmp_path / "c.svg", tmp_path / "crops"
    run(photos, "-m", tiny_path, "--csv", csv, "--plot", plot, "--crops", crops)
    assert csv.read_text().startswith("dataset,picture,method")
    assert plot.read_bytes().startswith(b"<svg")
    assert len(list(crops.iterdir())) == 2


def test_failures_give_exit_code_3(photos, save_picture):
    save_picture(photos / "small.png", 12, 12)
    (photos / "broken.png").write_text("no picture")
    result = run(photos, "-m", "bicubic", code=3)
    assert "2 pictures" in result.stdout
    assert "small.png: 12x12 is too small" in result.stderr
    assert "broken.png" in result.stderr


def test_pictures_of_one_stem_are_all_scored_or_named(tmp_path, save_picture):
    for folder in ("HR", "LRx4"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for name in ("a.png", "a.tif", "b.png"):
        save_picture(tmp_path / "set" / "HR" / name, 48, 48)
    document = json.loads(run(tmp_path / "set" / "HR", "-m", "bicubic", "--json").stdout)
    assert {p["picture"] for p in document["pictures"]} == {"a.png", "a.tif", "b"}
    save_picture(tmp_path / "set" / "LRx4" / "a.png", 12, 12)
    save_picture(tmp_path / "set" / "LRx4" / "b.png", 12, 12)
    result = run(tmp_path / "set", "-m", "bicubic", code=3)
    assert "2 pictures" in result.stdout and "LRx4/a.tif" in result.stderr


def test_the_usual_sets():
    assert "Set14: fourteen pictures" in run("--list").stdout
    sets = json.loads(run("--list", "--json").stdout)
    assert {"Set5", "Set14", "BSD100", "Urban100"} <= {s["name"] for s in sets}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a folder"),
        (["x", "--json", "--markdown"], "exclude"),
        (["x", "--plot", "a.pdf"], "svg"),
        (["x", "-m", "bicubic", "--metrics", "vmaf"], "no metric 'vmaf'"),
        (["x", "-m", "bicubic", "--temperatures", "0,hot"], "number"),
        (["x", "-m", "bicubic", "--temperatures", "3"], "0 to 2"),
    ],
)
def test_usage_errors(arguments, message):
    with pytest.raises(UsageError, match=message):
        run(*arguments)


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        run(tmp_path / "absent", "-m", "bicubic")


def test_help_has_an_example():
    assert "vdsr bench set5/" in run("--help").stdout


def test_the_results_page_has_every_protocol_and_no_unknown_model():
    written = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    page = written.partition("<!-- results -->")[2].partition("<!-- end of results -->")[0]
    tables = {t.partition("**")[0]: t.splitlines() for t in page.split("\n**")[1:]}
    for protocol in ("standard", "paper", "diverse"):
        for dataset in ("Set5", "Set14"):
            lines = tables[f"{dataset}, x4, protocol {protocol}"]
            ours = [line for line in lines if line.startswith("| ") and "[" not in line][2:]
            names = [line.split()[1] for line in ours]
            assert names[:2] == ["bicubic", DEFAULT_MODEL]
            assert set(names[1:]) <= set(load_records()), "run benchmarks/results.py again"


# --- priors -------------------------------------------------------------------------------------


def test_a_prior_is_scored_on_likelihood(photos, tiny_prior_path, tmp_path):
    asked = (photos, "-m", tiny_prior_path, "--seeds", 2, "--csv", tmp_path / "a.csv", "--worst", 1)
    result = run(*asked)
    lines = result.stdout.splitlines()
    assert lines[0] == "photos, protocol likelihood"
    titles = "method PSNR recon. nats/dim bits/dim palette bits WebP bits JXL bits"
    assert lines[2].split() == titles.split()
    assert "2 pictures\n" in result.stdout and "bicubic" not in result.stdout
    assert "worst pictures in PSNR recon." in result.stdout
    assert "bits per dimension = distortion" in result.stdout
    document = json.loads(run(*asked[:3], "--json").stdout)
    assert document["protocol"] == "likelihood" and document["scale"] is None
    row = document["rows"][0]
    assert row["nats_per_dim"] == pytest.approx(row["bits_per_dim"] * 0.693147, rel=1e-4)
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.usefixtures("small_published")
def test_an_encoder_that_is_not_whole_cannot_score(photos, tmp_path, vdsr):
    state = cut(published_state(), "encoder.enc_blocks.7.")
    ended = vdsr("bench", photos, "-m", write_published(tmp_path / "a.th", state))
    assert ended.code == 4
    assert "its encoder is not whole (encoder.enc_blocks.7)" in ended.err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--protocol", "paper"], "--protocol is not for priors"),
        (["--plot", "a.svg"], "--plot is not for priors"),
        (["--model", f"vdvae-x4-prior,{DEFAULT_MODEL}"], "vdvae-x4-prior upscales nothing"),
    ],
)
def test_priors_and_upscaling_do_not_mix(photos, tiny_prior_path, words, problem):
    with pytest.raises(UsageError, match=problem):
        run(photos, "-m", tiny_prior_path, *words)

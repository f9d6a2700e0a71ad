"""`vdsr weights`: what it prints, and how it ends."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from published_vdvae import cut, published_state, write_published
from typer.testing import CliRunner

from vdsr_cli.cli.weights import app
from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.weights import Checkpoint, load_records, read_header, write_safetensors

COMMANDS = ["list", "info", "path", "download", "verify", "convert"]


def run(*arguments: str) -> str:
    """Run a command to its end and return what it printed on stdout."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """A file where the default model's is looked for, and none for other bundled models."""
    path = tmp_path / "bundled.safetensors"
    state = {"a": torch.arange(6.0).reshape(2, 3)}
    write_safetensors(path, Checkpoint(architecture="vdvae-sr", config={"n": 1}, state=state))
    found = {"vdvae-sr-x4.safetensors": path}
    monkeypatch.setattr(
        "vdsr_cli.weights.store.bundled_path",
        lambda source: found.get(source.filename, tmp_path / source.filename),
    )
    return path


def test_importing_it_is_cheap():
    script = (
        "import sys, vdsr_cli.cli.weights\n"
        "print([m for m in ('torch', 'huggingface_hub', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command):
    assert f"vdsr weights {command}" in run(command, "--help")


def test_list_names_every_model(bundled):
    lines = run("list").splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", *load_records()]
    rows = json.loads(run("list", "--json"))
    assert [row["name"] for row in rows] == list(load_records())
    assert rows[0]["path"] == str(bundled) and rows[0]["bytes"] == bundled.stat().st_size
    assert rows[1]["path"] is None
    assert lines[1].split()[1] == "x4" and lines[1].endswith(rows[0]["summary"])


def test_info_of_a_model():
    out = run("info", "openai/ffhq1024")
    assert "architecture: openai-vdvae" in out and "known defect" in out
    facts = json.loads(run("info", "openai/ffhq1024", "--json"))
    assert facts["scores"][0]["value"] == 2.42
    assert facts["path"] is None


def test_info_shows_the_model_card():
    out = run("info", "vdvae-sr-x4")
    for part in ("# vdvae-sr-x4", "## Scores", "## Training", "## Data", "## Limits"):
        assert part in out.splitlines()
    assert out.startswith("# vdvae-sr-x4\n") and "config_in_file" not in out
    assert "config_in_file: {" in run("info", "vdvae-sr-x4", "--header")


def test_info_of_a_file(bundled):
    facts = json.loads(run("info", str(bundled), "--json"))
    assert facts["architecture"] == "vdvae-sr"
    assert facts["config_in_file"] == {"n": 1}
    assert (facts["tensors"], facts["parameters"]) == (1, 6)
    assert "parameters: 6" in run("info", str(bundled))


def test_path(bundled):
    assert run("path", "vdvae-sr-x4") == f"{bundled}\n"
    with pytest.raises(WeightsError, match="not on this disk") as caught:
        run("path", "openai/ffhq256")
    assert caught.value.hint == "vdsr weights download openai/ffhq256"
    with pytest.raises(WeightsError, match="no model named"):
        run("path", "ffhq256")


def with_hash(sha256):
    """The table, but for the hash of the default model's file."""
    record = replace(load_records()["vdvae-sr-x4"], sha256=sha256)
    return {**load_records(), record.name: record}


def test_download_prints_paths_alone(bundled, monkeypatch):
    monkeypatch.setattr("vdsr_cli.weights.store.load_records", lambda: with_hash(None))
    assert run("download", str(bundled), "vdvae-sr-x4") == f"{bundled}\n{bundled}\n"
    rows = json.loads(run("download", str(bundled), "--json"))
    assert rows == [{"model": str(bundled), "path": str(bundled)}]
    for arguments in (["openai/ffhq256"], ["openai/ffhq256", "--offline"]):
        with pytest.raises(WeightsError, match="offline"):
            run("download", *arguments)


def test_one_that_is_absent_stops_no_other_download(bundled, vdsr):
    ended = vdsr("weights", "download", "openai/ffhq256", bundled, "--offline", "--json")
    assert ended.code == 4 and "offline" in ended.err
    assert json.loads(ended.out) == [{"model": str(bundled), "path": str(bundled)}]


@pytest.mark.parametrize("home", ["~nobody-at-all/x"])
def test_a_home_that_is_not_there_is_told(vdsr, monkeypatch, home):
    monkeypatch.setenv("VDSR_HOME", home)
    ended = vdsr("weights", "list")
    assert ended.code == 0 and b"vdvae-sr-x4" in ended.out
    for words in (
        ["info", f"{home}.safetensors"],
        ["download", "https://127.0.0.1:9/x.safetensors"],
    ):
        ended = vdsr("weights", *words)
        assert ended.code == 4 and len(ended.lines) <= 2, ended.err


def test_a_text_beside_a_file_may_be_of_any_bytes(bundled, tmp_path, vdsr):
    own = tmp_path / "own.safetensors"
    own.write_bytes(bundled.read_bytes())
    own.with_suffix(".md").write_bytes(b"caf\xe9")
    ended = vdsr("weights", "info", own)
    assert ended.code == 0 and "caf\ufffd" in ended.out.decode()


def test_verify(bundled, monkeypatch):
    monkeypatch.setattr("vdsr_cli.cli.weights.load_records", lambda: with_hash(None))
    assert run("verify") == "ok       vdvae-sr-x4\n"
    assert json.loads(run("verify", "--json")) == [{"name": "vdvae-sr-x4", "state": "ok"}]
    monkeypatch.setattr("vdsr_cli.cli.weights.load_records", lambda: with_hash("0" * 64))
    for arguments in ([], ["vdvae-sr-x4"], ["openai/ffhq256"]):
        with pytest.raises(WeightsError, match="not verified") as caught:
            run("verify", *arguments)
        is_bundled = arguments != ["openai/ffhq256"]
        assert str(caught.value.hint).startswith("reinstall" if is_bundled else "vdsr weights")


@pytest.mark.usefixtures("small_published")
def test_convert(tmp_path):
    target = tmp_path / "a.safetensors"
    source = write_published(tmp_path / "a.th", published_state(prefix="module."))
    arguments = ("convert", str(source), "-o", str(target))
    assert run(*arguments) == f"{target}\n"
    assert read_header(target).tensors.keys() == published_state().keys()
    facts = json.loads(run(*arguments, "--overwrite", "--config", "ffhq256", "--json"))
    assert facts["config_in_file"] == {"published": "ffhq256"}
    with pytest.raises(UsageError, match="safetensors"):
        run("convert", str(source), "-o", str(tmp_path / "a.bin"), "--config", "ffhq256")


@pytest.mark.usefixtures("small_published")
def test_an_encoder_that_is_not_whole_is_told(tmp_path, vdsr):
    state = cut(published_state(), "encoder.enc_blocks.6.", "encoder.enc_blocks.7.")
    source = write_published(tmp_path / "a.th", state)
    for words in (["convert", source, "-o", tmp_path / "a.safetensors"], ["download", source]):
        ended = vdsr("weights", *words)
        assert ended.code == 0
        assert "(encoder.enc_blocks.6, encoder.enc_blocks.7): it can generate" in ended.err
        assert ended.out.endswith(b".safetensors\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["path", "ffhq256"], 4, "did you mean 'openai/ffhq256'?"),
        (["download", "openai/ffhq256"], 4, "vdsr weights download"),
        (["convert", "none.th", "-o", "a.safetensors", "--config", "ffhq256"], 4, "none.th"),
        (["convert", "none.th", "-o", "a.bin", "--config", "ffhq256"], 2, "a.bin"),
        (["info"], 2, "MODEL"),
    ],
)
def test_exit_codes(vdsr, arguments, code, said):
    ended = vdsr("weights", *arguments)
    assert (ended.code, ended.out) == (code, b"")
    assert said in ended.err and "Traceback" not in ended.err

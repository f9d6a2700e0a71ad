"""Common to all commands: -h, and retired spellings of options."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("path", [[], ["upscale"], ["weights", "list"], ["train", "vdvae"]])
def test_h_is_help(vdsr, path):
    short, long = vdsr(*path, "-h"), vdsr(*path, "--help")
    assert short.code == 0 and short.out == long.out and b"Usage" in short.out


def test_output_is_what_pixels_were_called(vdsr, tiny_path, save_picture, tmp_path):
    lr = save_picture(tmp_path / "lr.png")
    asked = ("upscale", lr, "-m", tiny_path, "-q", "-o")
    old = vdsr(*asked, tmp_path / "old.png", "--output=sample")
    new = vdsr(*asked, tmp_path / "new.png", "--pixels", "sample")
    assert (old.code, new.code) == (0, 0)
    assert old.lines == [
        "vdsr: --output is called --pixels now; --output will go with the next release"
    ]
    assert (tmp_path / "old.png").read_bytes() == (tmp_path / "new.png").read_bytes()


def test_output_is_what_a_files_option_was_called(vdsr, tmp_path):
    ended = vdsr("weights", "convert", tmp_path / "absent.th", "--output", "a.png")
    assert ended.lines[0].startswith("vdsr: --output is called --out now")
    assert ended.code == 2 and "a.png does not end in .safetensors" in ended.err


@pytest.mark.parametrize("path", [(), ("weights",), ("train",)], ids=" ".join)
def test_without_a_command_there_is_help(vdsr, path):
    ended = vdsr(*path)
    assert ended.code == 2 and not ended.out
    assert ended.lines[0] == " ".join(["Usage: vdsr", *path, "[OPTIONS] COMMAND [ARGS]..."])
    assert "Commands" in ended.lines


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("upscal",), "no such command 'upscal'"),
        (("weights", "lst"), "no such command 'lst'"),
        (("--nonsense",), "no such option: --nonsense"),
        (("compare", "a.png"), "missing argument 'B'"),
    ],
    ids=str,
)
def test_what_the_parser_refuses_is_one_line(vdsr, words, told):
    ended = vdsr(*words)
    assert ended.code == 2 and len(ended.lines) == 2
    assert ended.lines[0].startswith(f"vdsr: {told}")
    assert ended.lines[1].startswith("  hint: vdsr") and ended.lines[1].endswith(" -h")


@pytest.mark.parametrize("word", ["--output", "--wrap"])
def test_words_after_two_dashes_are_left_alone(vdsr, word):
    ended = vdsr("upscale", "--dry-run", "--", word)
    assert ended.out.decode().startswith(f"{word} -> ")


def test_the_value_of_wrap_may_be_left_out(vdsr, tiny_path, save_picture, tmp_path, monkeypatch):
    """Before a file's name and before other options; vdsr.toml has true for it."""
    monkeypatch.chdir(tmp_path)
    lr = save_picture(tmp_path / "lr.png", 16, 24)
    words = {
        "xy": ["--wrap", "xy", lr], "bare": ["--wrap", lr], "last": [lr, "--wrap"],
        "x": [lr, "--wrap", "x"], "none": ["--wrap=none", lr], "without": [lr],
    }  # fmt: skip
    for name, asked in words.items():
        ended = vdsr("upscale", *asked, "-m", tiny_path, "-q", "-o", f"{name}.png")
        assert ended.code == 0, ended.err
    (tmp_path / "vdsr.toml").write_text("[upscale]\nwrap = true\n")
    assert vdsr("upscale", lr, "-m", tiny_path, "-q", "-o", "held.png").code == 0
    made = {path.stem: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert made["xy"] == made["bare"] == made["last"] == made["held"]
    assert made["none"] == made["without"]
    assert len({made["xy"], made["x"], made["none"]}) == 3
    assert vdsr("upscale", lr, "--wrap=z").code == 2
    ended = vdsr("upscale", lr, "--wrap", "-m", tiny_path, "--json", "-o", "told.png")
    assert json.loads(ended.out)["wrap"] == "xy"


def test_models_are_completed_without_importing_torch():
    code = "import sys; from vdsr_cli.cli.app import app\n"
    code += "try: app(prog_name='vdsr')\nfinally: print('torch' in sys.modules)"
    asked = {
        "_VDSR_COMPLETE": "complete_bash",
        "COMP_WORDS": "vdsr upscale -m vdvae-sr-x",
        "COMP_CWORD": "3",
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True
    )
    *names, has_torch = ended.stdout.split()
    assert {"vdvae-sr-x2", "vdvae-sr-x4", "vdvae-sr-x4-real", "vdvae-sr-x8"} <= set(names)
    assert all(name.startswith("vdvae-sr-x") for name in names) and has_torch == "False"


@pytest.mark.parametrize("name", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there(vdsr, save_picture, tmp_path, name):
    ended = vdsr("upscale", save_picture(tmp_path / "lr.png"), "--device", name)
    assert ended.code == 5 and not list(tmp_path.glob("*x4*"))

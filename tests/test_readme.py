"""The README says what is true: its commands exist, and CI runs its test command."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"```sh\n(.+?)\n```", README, flags=re.DOTALL)
SHOWN = re.findall(r"^    (?:cat \S+ \| )?(vdsr .+?)(?:  .*)?$", README, flags=re.MULTILINE)


def test_the_two_set_up_commands_are_single_lines() -> None:
    assert len(FENCED) == 2
    assert all("\n" not in command for command in FENCED)


def test_ci_runs_the_test_command_word_for_word() -> None:
    assert FENCED[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("shown", SHOWN)
def test_shown_commands_use_options_that_exist(shown, vdsr, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = shlex.split(shown.split(" > ")[0])[1:]
    command = words[: 2 if words[0] in {"train", "weights", "srvae", "cnn-vae"} else 1]
    ended = vdsr(*(["--help"] if command[0].startswith("-") else [*command, "--help"]))
    assert ended.code == 0
    offered = set(re.findall(r"--?[a-z][a-z-]*", ended.out.decode()))
    assert {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)} <= offered


def test_shown_commands_are_found() -> None:
    assert len(SHOWN) > 8

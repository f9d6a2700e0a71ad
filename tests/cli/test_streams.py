"""Results on stdout whatever stderr is; streams that are closed or full, and readers that go."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vdsr_cli.cli.app import main

posix = pytest.mark.skipif(os.name != "posix", reason="terminals and pipes of POSIX")


class Terminal:
    """A pseudo-terminal, and what is shown on it."""

    def __init__(self) -> None:
        self._master, slave = os.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8", buffering=1)
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._master, 65536):
                self._shown += chunk
        except OSError:  # Linux, once nobody can write to it
            pass

    def close(self) -> str:
        self.stream.close()
        self._reader.join(10)
        os.close(self._master)
        return self._shown.decode()


@pytest.fixture
def on_terminals(tmp_path, monkeypatch):
    """``on_terminals(*words, stdout="file")``: what came to stdout, what to stderr, a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: object, stdout: str = "file") -> tuple[str, str]:
        progress, results = Terminal(), Terminal() if stdout == "terminal" else None
        path = tmp_path / "stdout"
        with monkeypatch.context() as patch:
            stream = results.stream if results else path.open("w", encoding="utf-8")
            patch.setattr(sys, "argv", ["vdsr", *map(str, words)])
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", progress.stream)
            try:
                main()
            except SystemExit as ended:
                assert not ended.code, progress.close()
        if results:
            return results.close(), progress.close()
        stream.close()
        return path.read_text(encoding="utf-8"), progress.close()

    return run


def lines_of(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if line.startswith("{")]


@posix
@pytest.mark.parametrize("stdout", ["file", "terminal"])
@pytest.mark.parametrize("colour", ["0", "1"])
def test_results_of_upscale_do_not_go_with_the_bars(
    on_terminals, tmp_path, tiny_path, save_picture, monkeypatch, stdout, colour
):
    if colour == "1":
        monkeypatch.setenv("FORCE_COLOR", "1")
    pictures = [save_picture(tmp_path / name) for name in ("a.png", "b.png")]
    words = ["upscale", *pictures, "-m", tiny_path, "--json"]
    out, err = on_terminals(*words, stdout=stdout)
    assert [json.loads(line)["status"] for line in lines_of(out)] == ["done", "done"]
    assert "tiles" in err and "status" not in err
    assert "\x1b" not in out


@posix
def test_bars_are_for_terminals_also_where_colour_is_forced(
    vdsr, tmp_path, tiny_path, save_picture, monkeypatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    ended = vdsr("upscale", save_picture(tmp_path / "a.png"), "-m", tiny_path)
    assert ended.code == 0 and ended.err == "" and ended.out.count(b"\n") == 1


COMMANDS = {
    "sample-diverse": ["PHOTO", "-n", 1, "-m", "TINY", "-o", "out/"],
    "generate": ["-m", "PRIOR", "-n", 1, "--size", 16, "-o", "g.png"],
    "bench": ["SET", "-m", "bicubic", "--metrics", "none", "--json"],
    "layers": ["-m", "PRIOR", "-n", 1, "--draws", 2, "--scales", 1, "--size", 16, "--every", 9],
    "weights list": [],
    "weights info": ["TINY"],
    "weights verify": ["cnn-vae-x2"],
    "weights download": ["cnn-vae-x2"],
    "cnn-vae score": ["--data", "FASHION", "--limit", 1],
    "cnn-vae figure": ["--data", "FASHION", "-n", 1, "-o", "c.png"],
    "train vdvae-sr": [
        "SET", "--from", "TINY", "--out", "run", "--steps", 1, "--batch", 1, "--lr-size", 8,
        "--val-every", 0, "--device", "cpu", "--dtype", "float32", "--workers", 1,
    ],
}  # fmt: skip


@posix
@pytest.mark.parametrize("command", COMMANDS)
def test_results_of_every_command_stay_off_the_terminal(
    on_terminals, tmp_path, tiny_path, tiny_prior_path, save_picture, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    places = {
        "PHOTO": save_picture(tmp_path / "a.png"),
        "SET": save_picture(tmp_path / "set" / "b.png", 64, 64).parent,
        "TINY": tiny_path,
        "PRIOR": tiny_prior_path,
        "FASHION": Path(__file__).parents[1] / "data" / "fashion-mnist",
    }
    words = [*command.split(), *(places.get(str(word), word) for word in COMMANDS[command])]
    out, _ = on_terminals(*words)
    assert out and "\x1b" not in out


# Streams that fail


def closing(descriptor: int):
    return {"preexec_fn": lambda: os.close(descriptor)}


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["weights", "list"]])
def test_6_a_full_stdout_is_one_line(start_vdsr, words):
    with open("/dev/full", "wb") as full:
        child = start_vdsr(*words, stdout=full)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 6
    assert err == b"vdsr: standard output: cannot be written: no space left on device\n"


@posix
def test_6_a_closed_stdout_is_one_line(run_vdsr):
    ended = run_vdsr("--version", **closing(1))
    assert ended.code == 6
    assert ended.lines == ["vdsr: standard output: cannot be written: bad file descriptor"]


@posix
@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_no_other_file_is_taken_for_a_closed_stream(tmp_path, descriptor):
    """The next file that is opened would have its number, and get what is meant for the stream."""
    script = f"""
import os, pathlib, sys
os.close({descriptor})
sys.stdin = sys.__stdin__ if {descriptor} else None
from vdsr_cli.cli.streams import open_streams
open_streams()
print(open("other", "wb").fileno() > 2, file=open("said", "w"))
try:
    print(sys.stdin.read())
except OSError:
    print("closed", file=open("said", "a"))
"""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=60, **pipes)
    said = (tmp_path / "said").read_text().split()
    assert said == ["True", "closed"][: 1 + (descriptor == 0)]
    assert (tmp_path / "other").read_bytes() == b""


@posix
def test_errors_do_not_go_to_stdout_where_stderr_is_closed(run_vdsr, tmp_path):
    ended = run_vdsr("upscale", tmp_path / "none.png", "--scale", "99", **closing(2))
    assert (ended.code, ended.out) == (2, b"")


@posix
@pytest.mark.parametrize("words", [["weights", "list"], ["--help"]])
def test_a_reader_that_has_gone_ends_the_run_quietly(start_vdsr, words):
    reader, writer = os.pipe()
    os.close(reader)
    child = start_vdsr(*words, stdout=writer)
    os.close(writer)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (141, b"")


@posix
def test_2_a_working_directory_that_is_gone_is_one_line(run_vdsr, tmp_path):
    (tmp_path / "gone").mkdir()

    def enter_and_remove() -> None:
        os.chdir(tmp_path / "gone")
        os.rmdir(tmp_path / "gone")

    ended = run_vdsr("upscale", "a.png", "--dry-run", preexec_fn=enter_and_remove)
    assert ended.code == 2 and ended.lines[0] == "vdsr: the working directory is gone"

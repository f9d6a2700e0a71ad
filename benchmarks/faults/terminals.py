"""Pseudo-terminals: results go to stdout, whatever stderr is."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Sequence

from runner import SkippedError, Trial, fault

COMMANDS: Sequence[Sequence[str]] = (
    ("upscale", "a.png", "b.png", "-m", "MODEL", "--overwrite", "--json"),
    ("weights", "list", "--json"),
    ("bench", "set", "-m", "bicubic", "--metrics", "none", "--json"),
)


class Terminal:
    """A pseudo-terminal, and what is shown on it."""

    def __init__(self) -> None:
        if not hasattr(os, "openpty"):
            raise SkippedError("no pseudo-terminals")
        self._master, self.slave = os.openpty()
        self.shown = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := os.read(self._master, 65536):
                self.shown += chunk

    def close(self) -> bytes:
        """Ends it; gives what was shown."""
        os.close(self.slave)
        self._thread.join(10)
        os.close(self._master)
        return bytes(self.shown)


def prepare(trial: Trial) -> Iterator[list[str]]:
    """Pictures, and the commands on them."""
    for name in ("a.png", "b.png"):
        trial.picture(name)
    trial.picture("set/c.png", 64, 64)
    for words in COMMANDS:
        yield [trial.model if word == "MODEL" else word for word in words]


def check(trial: Trial, words: Sequence[str], out: bytes) -> None:
    """Expects JSON and nothing else."""
    text = out.replace(b"\r\n", b"\n").decode()
    try:
        many = words[0] == "upscale"
        found = [json.loads(line) for line in text.splitlines()] if many else [json.loads(text)]
    except ValueError:
        found = []
    wanted = 2 if words[0] == "upscale" else 1
    trial.expect(len(found) == wanted, f"{words[0]}: {len(found)} results in {text[:200]!r}")


@fault("stderr is a terminal, stdout a file", times=5)
def to_a_file(trial: Trial) -> None:
    for words in prepare(trial):
        terminal = Terminal()
        with (trial.folder / "out").open("wb") as out:
            trial.vdsr(*words, stdout=out, stderr=terminal.slave, env={"TERM": "xterm"})
        terminal.close()
        check(trial, words, (trial.folder / "out").read_bytes())


@fault("stderr is a terminal, stdout a pipe, colour is forced", times=5)
def to_a_pipe(trial: Trial) -> None:
    for words in prepare(trial):
        terminal = Terminal()
        colours = {"TERM": "xterm", "FORCE_COLOR": "1"}
        ended = trial.vdsr(*words, stderr=terminal.slave, env=colours)
        terminal.close()
        check(trial, words, ended.out)


@fault("stderr and stdout are two terminals", times=5)
def to_another_terminal(trial: Trial) -> None:
    for words in prepare(trial):
        progress, results = Terminal(), Terminal()
        trial.vdsr(*words, stdout=results.slave, stderr=progress.slave, env={"TERM": "xterm"})
        progress.close()
        shown = results.close()
        check(trial, words, b"\n".join(s for s in shown.splitlines() if words[0] != "upscale" or s))


@fault("stderr is a file, colour is forced", times=5)
def no_bars_in_files(trial: Trial) -> None:
    for words in prepare(trial):
        ended = trial.vdsr(*words, env={"TERM": "xterm", "FORCE_COLOR": "1"})
        check(trial, words, ended.out)
        trial.expect("\x1b" not in ended.err, f"{words[0]}: a bar in a file")

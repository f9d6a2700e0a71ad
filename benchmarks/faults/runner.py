"""Shared by the faults: the real command as a child, the checks of every run, the registry.

A fault is a function of a :class:`Trial`, entered by :func:`fault` in a module of its kind:

    @fault("the reader of standard output goes", times=20)
    def reader_gone(trial: Trial) -> None:
        ended = trial.vdsr("weights", "list", stdout=closed_pipe())
        trial.expect(ended.code in (0, 141), f"exit code {ended.code}")

Of every run of the command it is checked that no traceback is shown, that the exit code is in the
table, and that memory stays below the bound; files that a fault guards are compared at its end.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
CODES = frozenset({0, 2, 3, 4, 5, 6, 130, 141, 143})
"""Exit codes of the table, and those of a reader that has gone and of SIGTERM."""
MEMORY_MB = 2000
"""Resident memory that no run may exceed."""
FAULTS: "list[Fault]" = []


class SkippedError(Exception):
    """A fault that cannot be made on this machine, and why."""


@dataclass(frozen=True)
class Fault:
    """One kind of misfortune, tried ``times`` times in a full run and once in a short one."""

    name: str
    make: "Callable[[Trial], None]"
    times: int


def fault(name: str, *, times: int = 1) -> "Callable[[Callable[[Trial], None]], None]":
    """Enters a function into the registry."""

    def enter(make: "Callable[[Trial], None]") -> None:
        FAULTS.append(Fault(name, make, times))

    return enter


@dataclass
class Ended:
    """How a run of the command ended; ``code`` is a shell's: 128 and the signal that ended it."""

    code: int
    out: bytes
    err: str
    memory_mb: float


@dataclass
class Trial:
    """One attempt at a fault, in a folder of its own.

    Attributes:
        folder: empty at first; the working directory of runs.
        model: weights for ``--model``: small, so that runs are short.
        chance: what is random about this attempt.
        counts: runs, tracebacks, lost files, codes outside the table, runs above the bound of
            memory, and other wrongs.
        wrongs: a line for each.
    """

    folder: Path
    model: str
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)
    peak_mb: float = 0.0

    def expect(self, is_right: bool, what: str, *, kind: str = "wrong") -> None:
        """Notes a wrong unless it is right."""
        if not is_right:
            self.counts[kind] += 1
            self.wrongs.append(what)

    def picture(self, name: str, width: int = 24, height: int = 16) -> Path:
        """A smooth picture of random colours, at a path below the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rough = np.random.default_rng(self.chance.randrange(2**32))
        image = Image.fromarray(rough.integers(40, 216, (3, 4, 3), np.uint8))
        image.resize((width, height), Image.Resampling.BICUBIC).save(path)
        return path

    @contextmanager
    def guarded(self, *paths: Path) -> Iterator[None]:
        """Compares files, of the user and not to be touched, before and after."""
        before = {path: _content(path) for path in paths}
        yield
        for path, content in before.items():
            self.expect(_content(path) == content, f"{path.name} was lost or changed", kind="lost")

    def start(self, *words: object, **options: Any) -> "subprocess.Popen[bytes]":
        """The command, with words ``before`` it, as a child that is still running; end it with
        :meth:`end`."""
        before = options.pop("before", [])
        command = [*before, sys.executable, "-m", "vdsr_cli", *map(str, words)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **options.pop("env", {})}
        return subprocess.Popen(
            command, **{"cwd": self.folder, **pipes, **options}, env=environment
        )

    def kill(
        self, child: int, number: signal.Signals, send: Callable[[int, int], None] = os.kill
    ) -> None:
        """Sends a signal to a child process; counts it where that had not ended by itself."""
        has_ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if has_ended is None:
            send(child, number)
            self.counts["signals"] += 1

    def end(self, child: "subprocess.Popen[bytes]", *, also: tuple[int, ...] = ()) -> Ended:
        """Waits for a child and checks how it ended; ``also``: other exit codes that are right."""
        out, err = (_spool(stream) for stream in (child.stdout, child.stderr))
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        texts = [_taken(stream) for stream in (out, err)]
        code = child.returncode if child.returncode >= 0 else 128 - child.returncode
        ended = Ended(code, texts[0], texts[1].decode(errors="replace"), usage.ru_maxrss / 1e3)
        return self.judge(ended, also=also)

    def judge(self, ended: Ended, *, also: tuple[int, ...] = ()) -> Ended:
        """Notes what is wrong with the end of any run."""
        self.counts["runs"] += 1
        self.peak_mb = max(self.peak_mb, ended.memory_mb)
        is_listed = ended.code in (*CODES, *also)
        self.expect("Traceback" not in ended.err, ended.err[-300:], kind="tracebacks")
        self.expect(is_listed, f"exit code {ended.code}: {ended.err[-300:]}", kind="codes")
        self.expect(ended.memory_mb < MEMORY_MB, f"{ended.memory_mb:.0f} MB", kind="memory")
        return ended

    def vdsr(self, *words: object, **options: Any) -> Ended:
        """Runs the command to its end."""
        return self.end(self.start(*words, **options))


def _content(path: Path) -> object:
    """The content of a file, links not followed."""
    if not os.path.lexists(path):
        return None
    if path.is_symlink():
        return os.readlink(path)
    return path.read_bytes() if path.is_file() else path.lstat().st_mode


def _spool(stream: Any) -> Any:
    """Takes what a child writes aside, so that it never waits for a reader."""
    if stream is None:
        return None
    import threading

    spool = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed when it has been read

    def copy() -> None:
        while chunk := stream.read(65536):
            spool.write(chunk)
        stream.close()

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread, spool


def _taken(spooled: Any) -> bytes:
    if spooled is None:
        return b""
    thread, spool = spooled
    thread.join(30)
    spool.seek(0)
    with spool:
        content: bytes = spool.read()
    return content

"""A folder run that is killed again and again ends as one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vdsr_cli.files import finished_name
from vdsr_cli.images.resumable import _MARK

NAMES = ["a.png", "b.png", "sub/c.png", "sub/d.png", "e.png"]
KILLS = 4

# One interpreter is forked for all lives, so that each is at work at once.
ZYGOTE = """
import os, sys
import torch
import vdsr_cli.cli.upscale, vdsr_cli.services.upscale, vdsr_cli.loading
import vdsr_cli.images.resumable as draft, vdsr_cli.images.segments as segments
draft.JOURNAL_EVERY_S, segments._SEGMENT_BYTES = 0.0, 3000
from vdsr_cli.cli.app import main

STEPS = {"open", "os.mkdir", "os.chmod", "os.rename", "os.remove"}

def die_before(step, folder):
    def count(event, arguments):
        nonlocal step
        if event in STEPS and folder in str(arguments[0]).split(os.sep):
            step -= 1
            if not step:
                os.kill(os.getpid(), 9)
    sys.addaudithook(count)

for line in sys.stdin:
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        die_before(int(line), "out")
        sys.argv = ["vdsr", *sys.argv[1:]]
        main()
        os._exit(0)
    print(process, flush=True)
    print(os.waitpid(process, 0)[1], flush=True)
"""


class Lives:
    """Runs of one command line, one after the other."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-c", ZYGOTE, *map(str, words)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # As many threads as here: the last bits of a sum depend on it.
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        self.zygote = subprocess.Popen(command, **pipes, env=environment)

    def start(self, *, until_step: int = 0) -> int:
        """Killed before its n-th step on the files of the folder "out"; 0: never."""
        self.zygote.stdin.write(f"{until_step}\n")
        self.zygote.stdin.flush()
        return int(self.zygote.stdout.readline())

    def wait(self) -> int:
        return int(self.zygote.stdout.readline())

    def end(self) -> None:
        self.zygote.kill()
        self.zygote.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("format", ["png", "jpg"])
def test_killed_at_random_moments(vdsr, tmp_path, tiny_path, save_picture, monkeypatch, format):
    monkeypatch.setattr("vdsr_cli.images.segments._SEGMENT_BYTES", 3000)  # as in the lives
    shots, out, whole = (tmp_path / name for name in ("shots", "out", "whole"))
    (shots / "sub").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        save_picture(shots / name, 40, 90, seed=seed)
    words = ["upscale", "-r", shots, "--model", tiny_path, "--format", format, "--tile", 32]
    words += ["--overlap", 16, "--batch-size", 1, "--skip-existing", "-q"]
    assert vdsr(*words, "-o", whole).code == 0
    wanted = {path.relative_to(whole): path.read_bytes() for path in files(whole)}
    assert len(wanted) == len(NAMES)
    lives, chance, killed = Lives(*words, "-o", out), random.Random(0), 0
    try:
        for _ in range(KILLS):
            before, until = len(files(out)), time.monotonic() + 60
            process = lives.start()
            while len(files(out)) == before and before < len(wanted) and time.monotonic() < until:
                time.sleep(0.002)
            time.sleep(chance.random() * 0.1)
            killed += kill(process)
            lives.wait()
        lives.start()
        assert lives.wait() == 0
    finally:
        lives.end()
    assert killed >= 2, "it was at work"
    assert {p.relative_to(out): p.read_bytes() for p in files(out)} == wanted


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(("format", "fewest"), [("png", 12), ("jpg", 4)])
def test_killed_before_each_step(tmp_path, tiny_path, save_picture, format, fewest):
    out = tmp_path / "out"
    words = ["upscale", save_picture(tmp_path / "a.png", 20, 60), "--model", tiny_path]
    words += ["--tile", 32, "--overlap", 16, "--batch-size", 1]
    words += ["--format", format, "--skip-existing", "-q", "-o", out]
    lives, steps, seen, is_killed = Lives(*words), 0, set(), True
    try:
        while is_killed:
            steps += 1
            lives.start(until_step=steps)
            is_killed = lives.wait() == signal.SIGKILL
            lives.start()
            assert lives.wait() == 0
            (left,) = files(out)
            seen.add((left.name, left.read_bytes()))
            left.unlink()
    finally:
        lives.end()
    assert len(seen) == 1, "the same name and bytes"
    assert steps > fewest, "it was at work"


def files(folder) -> list[Path]:
    """All but the manifest; the unfinished ones show that a life is at work."""
    return [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".jsonl"]


def kill(process: int) -> bool:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def test_what_a_killed_writer_left_is_taken_over(vdsr, tmp_path, tiny_path, save_picture):
    """At any moment of a kill: before the first byte, within, and before the name."""
    save_picture(tmp_path / "a.png")
    for format in ("png", "jpg", "webp"):
        output = tmp_path / "out" / f"a_x4.{format}"
        words = ["upscale", tmp_path / "a.png", "-m", tiny_path, "-o", output, "--overwrite", "-q"]
        assert vdsr(*words).code == 0
        whole = output.read_bytes()
        part, complete = output.with_name(f"{output.name}.part"), finished_name(output)
        lefts = [(complete, content) for content in (b"", whole[:100], whole, whole + b"more")]
        if format == "png":
            lefts += [(part, content) for content in (b"", _MARK, _MARK[:9], _MARK + whole)]
        for path, content in lefts:
            output.unlink(missing_ok=True)
            path.write_bytes(content)
            assert vdsr(*words).code == 0
            assert output.read_bytes() == whole
            assert list(output.parent.iterdir()) == [output]
        output.unlink()

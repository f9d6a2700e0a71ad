"""The short, fixed part of benchmarks/faults and of benchmarks/fuzz.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="these benchmarks need POSIX")


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "name",
    [
        "stderr is a terminal, stdout a file",
        "standard output is full",
        "the reader of standard output has gone",
        "the working directory is deleted",
        "the output is an input by another name",
        "the manifest is another file",
        "a full disk",
        "1,200 folders in one another",
    ],
)
def test_nothing_goes_wrong(name):
    done = run("benchmarks/faults", "--short", "--only", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 tracebacks, 0 lost, 0 codes, 0 memory, 0 wrong" in done.stdout
    assert " 0 runs" not in done.stdout


def test_damaged_pictures():
    done = run("benchmarks/fuzz.py", "--pictures", 500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "500 pictures: 0 wrong" in done.stdout

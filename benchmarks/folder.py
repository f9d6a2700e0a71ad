"""A run over one huge folder: files a second, memory, and what a kill in the middle costs.

    python benchmarks/folder.py FOLDER [--files 100000] [--jobs 2] [--model vdvae-sr-x4-tiny]

Fills FOLDER/in with so many names of one 8x8 picture and runs ``vdsr upscale -r --jobs`` over it.
Half-way the run is killed with SIGKILL, then run again with --skip-existing. Checked at the end:
one output a picture, each with the bytes that its line in the manifest says, one line a picture.
Pictures this small cost mostly the run itself. Reads /proc, so Linux only.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import argument_parser
from PIL import Image

from vdsr_cli.cli.upscale import MANIFEST_NAME

PER_FOLDER = 50_000


def fill(folder: Path, files: int) -> None:
    """So many links to one picture, in folders of at most ``PER_FOLDER``."""
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for index in range(files):
        below = folder / f"{index // PER_FOLDER:03d}"
        below.mkdir(parents=True, exist_ok=True)
        first = below / f"{index - index % PER_FOLDER:09d}.png"
        path = below / f"{index:09d}.png"
        if path == first:
            Image.fromarray(levels).save(path)
        else:
            path.hardlink_to(first)


def resident_mb(pid: int) -> float:
    """Resident size of a process."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(options: argparse.Namespace, *, until: int | None) -> int:
    """One run, with a row every tenth of the files; killed after ``until`` lines of outcome."""
    command = [
        sys.executable, "-m", "vdsr_cli", "upscale", "-r", options.folder / "in",
        "-o", options.folder / "out", "--model", options.model, "--jobs", str(options.jobs),
        "--temperature", "0", "--overlap", "0", "--skip-existing", "--json",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    started, made, skipped = time.perf_counter(), 0, 0
    for line in process.stdout:
        is_skipped = b'"skipped"' in line
        made, skipped = made + (not is_skipped), skipped + is_skipped
        if made == 1 and not is_skipped:
            print(f"  first picture after {time.perf_counter() - started:.1f} s")
            begun = time.perf_counter()
        elif not is_skipped and made % (options.files // 10) == 0:
            rate = (made - 1) / (time.perf_counter() - begun)
            memory = resident_mb(process.pid)
            print(f"  {made:7d} made, {rate:6.1f} files/s, {memory:6.1f} MB resident", flush=True)
        if made == until:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    print(f"  {made} made, {skipped} skipped, exit code {process.wait()}")
    return process.returncode


def check(options: argparse.Namespace) -> None:
    """Refuses a missing, doubled or damaged output, and a missing or doubled line."""
    outputs = {str(path) for path in (options.folder / "out").rglob("*_x4.png")}
    lines = (options.folder / "out" / MANIFEST_NAME).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len(outputs) == len(records) == options.files, (len(outputs), len(records))
    assert {record["output"] for record in records} == {os.path.abspath(path) for path in outputs}
    for record in records:
        content = Path(record["output"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record["sha256"], record
    rest = list((options.folder / "out").rglob(".vdsr-*"))
    print(f"{len(outputs)} outputs, each as its one line says; {len(rest)} unfinished files left")


def main() -> None:
    """Parses, runs twice, checks."""
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--model", default="vdvae-sr-x4-tiny")
    options = parser.parse_args()
    fill(options.folder / "in", options.files)
    print("first run, killed half-way")
    run(options, until=options.files // 2)
    print("second run")
    assert run(options, until=None) == 0
    check(options)


if __name__ == "__main__":
    main()

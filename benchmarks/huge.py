"""One huge output: peak memory, and killed runs that go on and end with the same bytes.

    python benchmarks/huge.py [--model vdvae-sr-x4-tiny] [--size 2500x2500] [--kills 3]

The input is examples/photo.png, mirrored to the size asked for. `vdsr upscale` makes it four times
as large, once without disturbance. Then the same command is killed (SIGKILL) at random moments of
that run's time and started again each time, until the last start may finish. Printed are the peak
memory of the undisturbed process, all seconds, and whether the two files are the same.

    python benchmarks/huge.py --bigtiff

writes a TIFF of more than 4 GiB of noise, without a model, and reads rows of it back.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from common import argument_parser, mirrored, peak_memory_bytes

print = partial(print, flush=True)  # what is done is told before the next run ends
ROOT = Path(__file__).resolve().parents[1]


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def start(source: Path, output: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """One run of the command."""
    command = [sys.executable, "-m", "vdsr_cli", "upscale", source, "-o", output, "--quiet"]
    command += ["--model", options.model, "--temperature", options.temperature]
    return subprocess.Popen([str(part) for part in command], cwd=ROOT)


def finish(process: subprocess.Popen[bytes]) -> float:
    """Waits for a run to end well; its peak memory in bytes."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"vdsr upscale ended with {process.returncode}")
    return peak_memory_bytes(usage)


def undisturbed(source: Path, output: Path, options: argparse.Namespace) -> float:
    """One run from start to end; its seconds."""
    started = time.perf_counter()
    peak = finish(start(source, output, options))
    seconds = time.perf_counter() - started
    megabytes = output.stat().st_size / 1e6
    print(f"undisturbed: {seconds:.0f} s, peak memory {peak / 1e9:.2f} GB, {megabytes:.0f} MB")
    return seconds


def killed(source: Path, output: Path, options: argparse.Namespace, seconds: float) -> None:
    """Runs that are killed, and the last one, which is not."""
    moments = random.Random(options.seed)
    started = time.perf_counter()
    for _ in range(options.kills):
        process = start(source, output, options)
        alive = moments.uniform(0, seconds / options.kills)
        time.sleep(alive)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if output.exists():
            sys.exit(f"{output} exists, though the run was killed or ended before {alive:.0f} s")
        left = [path.name for path in output.parent.glob(f"{output.name}*")]
        print(f"killed after {alive:.0f} s, leaving {', '.join(sorted(left)) or 'nothing'}")
    finish(start(source, output, options))
    print(f"finished, {time.perf_counter() - started:.0f} s in all starts")


def kill_and_compare(options: argparse.Namespace) -> None:
    """The first benchmark."""
    from vdsr_cli.images import save_levels

    height, width = (int(side) for side in options.size.split("x"))
    print(f"{options.model}, {width}x{height}, temperature {options.temperature}")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.png")
        save_levels(source, mirrored((height, width)))
        whole, parts = (Path(folder, f"{name}.{options.format}") for name in ("whole", "parts"))
        seconds = undisturbed(source, whole, options)
        killed(source, parts, options, seconds)
        one, other = file_hash(whole), file_hash(parts)
        print(f"undisturbed {one}\nkilled      {other}")
        print("the same bytes" if one == other else "DIFFERENT BYTES")
        sys.exit(one != other)


def write_bigtiff() -> None:
    """The second benchmark."""
    import torch

    from vdsr_cli.images import Frame, Metadata, open_picture_file, tiff

    # Stored, not deflated: noise would not become smaller, and takes minutes.
    tiff._COMPRESSION_LEVEL = 0
    side, step = 27_000, 250
    band = torch.rand(3, step, side, generator=torch.Generator().manual_seed(0))
    frame = Frame(height=side, width=side, like=Metadata(bit_depth=16), has_alpha=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "big.tif")
        started = time.perf_counter()
        with open_picture_file(path, frame, format="tiff", identity=lambda: "noise") as file:
            for top in range(0, side, step):
                file.put_rows(top, band.roll(top, dims=2))
        size, seconds = path.stat().st_size / 2**30, time.perf_counter() - started
        print(f"{size:.2f} GiB in {seconds:.0f} s, peak memory {peak_memory_bytes() / 1e9:.2f} GB")
        for row in (0, side // 2, side - 1):
            top = row // step * step
            wanted = frame.levels(top, band.roll(top, dims=2))[row - top]
            is_same = np.array_equal(read_tiff_row(path, row), wanted)
            print(f"row {row}: {'as written' if is_same else 'DIFFERENT'}")


def read_tiff_row(path: Path, row: int) -> np.ndarray:
    """(W, 3) of a 16-bit RGB TIFF: its directory read by Pillow, one strip by zlib."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as image, path.open("rb") as file:
        tags, width = image.tag_v2, image.width
        strip, inside = divmod(row, tags[278])
        print(f"{file.read(4)!r}, strip {strip} at byte {tags[273][strip]:,}")
        file.seek(tags[273][strip])
        stored = zlib.decompress(file.read(tags[279][strip]))
    differences = np.frombuffer(stored, "<u2").reshape(-1, width, 3)[inside]
    return np.cumsum(differences, axis=0, dtype=np.uint16)


def main() -> None:
    """Parses and runs."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="vdvae-sr-x4-tiny")
    parser.add_argument("--size", default="2500x2500", help="input height x width")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--format", default="png", choices=["png", "tif"])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--bigtiff", action="store_true", help="the second benchmark")
    options = parser.parse_args()
    if options.bigtiff:
        write_bigtiff()
    else:
        kill_and_compare(options)


if __name__ == "__main__":
    main()

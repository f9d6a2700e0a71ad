"""How the cost of ``vdsr upscale`` grows with the size of a picture and with their number.

    python benchmarks/linear.py [--model vdvae-sr-x4-tiny] [--megapixels 0.1,1,10,100]
                                [--pictures 1,10,100,1000] [--side 32]

Every row is one run of the command as a process of its own: the seconds that its ``--json`` tells
of the pictures themselves, per megapixel of output; the CPU seconds of all threads, likewise, less
those of a run on a picture of 8 pixels; and what the whole process took.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import argument_parser, mirrored, peak_memory_bytes

from vdsr_cli.images import save_levels

SCALE = 4


@dataclass(frozen=True)
class Run:
    """One run of the command: what it tells of its pictures, and what its process took."""

    megapixels: float
    picture_s: float
    process_s: float
    cpu_s: float
    peak_bytes: int

    def row(self, start: "Run") -> str:
        """The rest of a table's row, beside a run on a picture of nearly no size."""
        each, cpu_each = self.picture_s, self.cpu_s - start.cpu_s
        return (
            f"{each / self.megapixels:.3f} | {cpu_each / self.megapixels:.3f} | "
            f"{self.process_s:.1f} | {self.cpu_s:.1f} | {self.peak_bytes / 1e9:.2f} |"
        )


def upscale(source: Path, output: Path, model: str) -> Run:
    """Runs the command, which must succeed."""
    command = ["-m", "vdsr_cli", "upscale", str(source), "-o", str(output), "--model", model]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen([sys.executable, *command, "--json"], stdout=told)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(process.returncode)
        told.seek(0)
        results = [json.loads(line) for line in told]
    pictures = [result for result in results if "seconds" in result]
    return Run(
        megapixels=sum(result["width"] * result["height"] for result in pictures) / 1e6,
        picture_s=sum(result["seconds"] for result in pictures),
        process_s=seconds,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=peak_memory_bytes(usage),
    )


def show_head(first: str) -> None:
    """The head of a table as Markdown."""
    print(f"\n| {first} | s a MP | CPU s a MP | process, s | process, CPU s | peak memory, GB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")


def main() -> None:
    """Parses, measures, prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="vdvae-sr-x4-tiny")
    parser.add_argument("--megapixels", default="0.1,1,10,100", help="of output, rising")
    parser.add_argument("--pictures", default="1,10,100,1000", help="how many, rising")
    parser.add_argument("--side", type=int, default=32, help="of each of them, in pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        least, output = Path(folder, "least.png"), Path(folder, "out.png")
        save_levels(least, mirrored((2, 4)))
        start = upscale(least, output, options.model)
        output.unlink()
        show_head(f"{options.model}: megapixels")
        for megapixels in filter(None, options.megapixels.split(",")):
            source = Path(folder, f"{megapixels}.png")
            side = round(math.sqrt(float(megapixels) * 1e6) / SCALE)
            save_levels(source, mirrored((side, side)))
            run = upscale(source, output, options.model)
            output.unlink()
            print(f"| {run.megapixels:.2f} | {run.row(start)}", flush=True)
        show_head(f"{options.model}: pictures")
        levels = mirrored((512, 512))
        for pictures in map(int, filter(None, options.pictures.split(","))):
            sources = Path(folder, f"{pictures}")
            sources.mkdir()
            for index in range(pictures):
                top, left = divmod(8 * index, 512 - options.side)
                crop = levels[top % 480 :][: options.side, left : left + options.side]
                save_levels(sources / f"{index:05}.png", crop)
            run = upscale(sources, Path(folder, f"{pictures}-out"), options.model)
            print(f"| {pictures} | {run.row(start)}", flush=True)


if __name__ == "__main__":
    main()

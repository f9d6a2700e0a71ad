"""Seconds of ``vdsr upscale`` on a small picture as a whole process, beside ``import torch`` alone.

    python benchmarks/cold_start.py [--model vdvae-sr-x4] [--side 64] [--runs 5]

The two run in turns. What the command takes beyond the import is this project's part: its own
imports, the weights, the first convolutions, the picture. CPU seconds are of all threads.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import argument_parser, mirrored

from vdsr_cli.images import save_levels


def seconds(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Parses, measures, prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="vdvae-sr-x4")
    parser.add_argument("--side", type=int, default=64, help="of the input, in pixels")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.png"), Path(folder, "out.png")
        save_levels(source, mirrored((options.side, options.side)))
        upscale = ["-m", "vdsr_cli", "upscale", str(source), "-o", str(output)]
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "vdsr upscale": [sys.executable, *upscale, "--model", options.model, "--overwrite"],
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for command in commands.values():
            seconds(command)
        for _ in range(options.runs):
            for name, command in commands.items():
                taken[name].append(seconds(command))
    print(
        f"| {options.side}x{options.side}, {options.runs} runs | wall, median | wall, min | CPU |"
    )
    print("| --- | ---: | ---: | ---: |")
    beyond = [
        (wall - base_wall, cpu - base_cpu)
        for (base_wall, base_cpu), (wall, cpu) in zip(*taken.values(), strict=True)
    ]
    for name, runs in {**taken, "beyond the import": beyond}.items():
        wall, cpu = zip(*runs, strict=True)
        print(f"| {name} | {statistics.median(wall):.2f} | {min(wall):.2f} | {min(cpu):.2f} |")


if __name__ == "__main__":
    main()

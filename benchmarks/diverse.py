"""Cost and gain of ``vdsr sample-diverse``, measured on the command as a user runs it.

    python benchmarks/diverse.py [DATASET...] [-n 5] [--runs 3] [--metric-weights DIR]

First the wall seconds of the whole command for one sample and for n, in turn: examples/photo.png,
mirrored to 256x256. Then, for each DATASET (it holds LRx4/NAME.png), the means over its pictures
and samples at each temperature:

    before      LR-PSNR in dB of samples that are not projected, before rounding
    projected   of projected samples, before rounding
    file        of the PNG files, read back
    kept        share of the LR samples that the files give back to 8 bits
    apd mse     average pairwise distance, mean squared, of pictures in 0..1
    std         mean standard deviation, in 8-bit levels
    apd lpips   the same in LPIPS, with --metric-weights

LR-PSNR is that of the mean squared error.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import argument_parser, mirrored

from vdsr_cli.images import save_levels
from vdsr_cli.metrics import pooled_psnr

COLUMNS = ("temperature", "before", "projected", "file", "kept", "apd mse", "std", "apd lpips")


def run(*arguments: object) -> tuple[float, dict[str, Any]]:
    """Runs ``vdsr sample-diverse``; its wall seconds and its JSON."""
    command = [sys.executable, "-m", "vdsr_cli", "sample-diverse", *map(str, arguments), "--json"]
    started = time.perf_counter()
    done = subprocess.run([*command, "--quiet", "--overwrite"], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    return seconds, json.loads(done.stdout)


def print_seconds(folder: Path, model: str, samples: int, runs: int) -> None:
    """The command with one sample and with several, interleaved."""
    picture = folder / "in.png"
    save_levels(picture, mirrored((256, 256)))
    seconds: dict[int, list[float]] = {1: [], samples: []}
    for _ in range(runs):
        for count, measured in seconds.items():
            words = [picture, "-m", model, "-n", count, "-o", folder / f"n{count}/"]
            measured.append(run(*words)[0])
    one, many = (statistics.median(measured) for measured in seconds.values())
    for count, measured in seconds.items():
        print(f"-n {count}: {', '.join(f'{s:.2f}' for s in measured)} s")
    print(f"256x256, medians: {one:.2f} s and {many:.2f} s, ratio {many / one:.2f}\n", flush=True)


def mean(values: list[Any]) -> float | None:
    """The mean of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def samples_of(sets: list[dict[str, Any]], key: str) -> list[Any]:
    """One figure of every sample of some sets, without that of their means."""
    return [p[key] for entry in sets for p in entry["pictures"] if p["sample"] is not None]


def print_table(dataset: Path, folder: Path, options: argparse.Namespace) -> None:
    """The figures of one data set."""
    asked = ["-n", options.samples, "--temperatures", options.temperatures, "-m", options.model]
    if options.metric_weights:
        asked += ["--metric-weights", options.metric_weights]
    pictures = sorted((dataset / "LRx4").glob("*.png"))
    if not pictures:
        sys.exit(f"{dataset} holds no LRx4/*.png")
    plain, projected = [], []
    for picture in pictures:
        common = [picture, *asked, "-o", folder / "table/"]
        plain.append(run(*common, "--no-consistency")[1]["sets"])
        projected.append(run(*common, "--consistency")[1]["sets"])
    print(f"{dataset.name}, {len(pictures)} pictures, {options.samples} samples of each")
    print("".join(f"{name:>12}" for name in COLUMNS))
    for free, held in zip(zip(*plain, strict=True), zip(*projected, strict=True), strict=True):
        figures = [
            held[0]["temperature"],
            pooled_psnr([float(psnr) for psnr in samples_of(free, "lr_psnr_float")]),
            pooled_psnr([float(psnr) for psnr in samples_of(held, "lr_psnr_float")]),
            pooled_psnr([float(psnr) for psnr in samples_of(held, "lr_psnr")]),
            mean(samples_of(held, "lr_same")),
            *(mean([entry[key] for entry in held]) for key in ("apd_mse", "std_mean", "apd_lpips")),
        ]
        print("".join(f"{'-' if f is None else format(f, '.4g'):>12}" for f in figures), flush=True)


def main() -> None:
    """Parses, measures, prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("datasets", nargs="*", type=Path, metavar="DATASET")
    parser.add_argument("-n", "--samples", type=int, default=5)
    parser.add_argument("-m", "--model", default="cvdvae-x4")
    parser.add_argument("--temperatures", default="0,0.5,0.8,1")
    parser.add_argument("--runs", type=int, default=3, help="of the seconds; 0 leaves them out")
    parser.add_argument("--metric-weights", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.runs:
            print_seconds(Path(folder), options.model, options.samples, options.runs)
        for dataset in options.datasets:
            print_table(dataset, Path(folder), options)


if __name__ == "__main__":
    main()

"""How often ``--model auto`` is right, by what has happened to a photograph, and what it costs.

    python benchmarks/auto_model.py PHOTOGRAPHS... [--every 1] [--runs 5]

The twenty kinds of ``benchmarks/input_kinds.py``, each of every photograph, written to a file's
bytes and read as ``vdsr upscale`` reads it. Before that the CPU seconds of the decision beside
those of ``vdvae-sr-x4`` from file to file, in turns in this process, on 512x512 pixels of the first
photograph: the first of each, which pays for whatever is set up once, and the median of the rest.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from common import argument_parser
from input_kinds import KINDS, Kind, Levels, jpeg
from PIL import Image

from vdsr_cli.config import DEFAULT_MODEL
from vdsr_cli.images import read_picture
from vdsr_cli.inspection import inspect
from vdsr_cli.loading import load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.outputs import Existing
from vdsr_cli.paths import Source
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.services.upscale import UpscaleRequest, upscale_file

SIDE = 512


def is_called_degraded(kind: Kind, photo: Levels, seed: int) -> bool:
    """The decision on a photograph that this happened to."""
    picture = read_picture(BytesIO(kind.make(photo, np.random.default_rng(seed))))
    return inspect(picture.rgb[0], picture.jpeg_table).is_degraded


def show_decisions(photos: list[Levels]) -> None:
    """The table of decisions."""
    print(f"\n| {len(photos)} photographs | is | called clean | called degraded |")
    print("| --- | --- | ---: | ---: |")
    right = 0
    for kind in KINDS:
        degraded = sum(is_called_degraded(kind, photo, seed) for seed, photo in enumerate(photos))
        clean = len(photos) - degraded
        right += degraded if kind.is_degraded else clean
        label = "degraded" if kind.is_degraded else "clean"
        print(f"| {kind.name} | {label} | {clean} | {degraded} |", flush=True)
    decisions = len(KINDS) * len(photos)
    print(f"\n{right} of {decisions} decisions are right, {right / decisions:.1%}")


def show_cost(photo: Levels, runs: int) -> None:
    """CPU seconds of the decision and of an upscale, and their ratio."""
    runtime = choose_runtime("cpu")
    loaded = load(DEFAULT_MODEL, runtime, expects=Sampler)
    request = UpscaleRequest(existing=Existing.overwrite)
    streams = {"stdin": sys.stdin.buffer, "stdout": sys.stdout.buffer}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.jpg"), Path(folder, "out.png")
        square = np.array(Image.fromarray(photo).crop((0, 0, SIDE, SIDE)))
        source.write_bytes(jpeg(square, 95))
        picture = read_picture(source)

        def decide() -> None:
            inspect(picture.rgb[0], picture.jpeg_table)

        def upscale() -> None:
            done = upscale_file(Source(path=source), output, loaded, request, runtime, **streams)
            if done.error:
                sys.exit(f"failed: {done.error}")

        taken = [(seconds(decide), seconds(upscale)) for _ in range(runs + 1)]
    rest = [statistics.median(column) for column in zip(*taken[1:], strict=True)]
    print(
        f"| {SIDE}x{SIDE} to x4, {runs} runs | decision, CPU s | upscale, CPU s | ratio |",
        flush=True,
    )
    print("| --- | ---: | ---: | ---: |")
    for name, (decision, whole) in (("first", taken[0]), ("median of the rest", rest)):
        print(f"| {name} | {decision:.4f} | {whole:.3f} | {decision / whole:.2%} |")


def seconds(work: Callable[[], None]) -> float:
    """CPU seconds of one run, of all threads: other programs do not change them much."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Parses, measures, prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="of photographs")
    parser.add_argument("--every", type=int, default=1, help="take every n-th photograph")
    parser.add_argument("--runs", type=int, default=5, help="of the decision and of the upscale")
    options = parser.parse_args()
    paths = [path for folder in options.folders for path in sorted(folder.iterdir())]
    photos = [np.array(Image.open(path).convert("RGB")) for path in paths[:: options.every]]
    show_cost(photos[0], options.runs)
    show_decisions(photos)


if __name__ == "__main__":
    main()

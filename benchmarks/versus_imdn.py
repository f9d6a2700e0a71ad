"""Seconds per megapixel of the bundled x4 models beside IMDN's, measured in turns in one process.

    python benchmarks/versus_imdn.py [--models NAME,...] [--size 256x256] [--threads N] [--runs 7]

IMDN (Hui et al. 2019, 715,176 parameters, random weights) runs in PyTorch in float32, the picture
whole, in the memory layout that is faster here. Ours run as ``vdsr upscale`` runs them. Two things
are timed, per megapixel of output:

    tensor to tensor   the LR picture in float32 in, the larger one out: ours in overlapping tiles,
                       with their noise and stitching
    file to file       PNG to PNG, read and written by the same code for all: ours also with the
                       consistency projection

Every run times each model once; the ratio is that of the minima. CPU seconds are of all threads:
on a busy machine they say more than wall seconds, with one thread.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from common import argument_parser, mirrored
from imdn import IMDN
from torch import Tensor

from vdsr_cli.images import Canvas, read_picture, save_levels
from vdsr_cli.loading import LoadedModel, load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.outputs import Existing
from vdsr_cli.paths import Source
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.sampling.engine import SamplingSettings, sample_strips
from vdsr_cli.services.upscale import UpscaleRequest, upscale_file

SCALE = 4


@dataclass
class Timed:
    """A way to make the larger picture, and what each run of it took."""

    name: str
    run: Callable[[], object]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def time(self) -> None:
        """Runs once more."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.run()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def in_turns(rows: list[Timed], runs: int) -> None:
    """Each row once to warm up, then all of them in turn."""
    for row in rows:
        row.run()
    for _ in range(runs):
        for row in rows:
            row.time()


def show(title: str, rows: list[Timed], megapixels: float) -> None:
    """One table as Markdown, seconds per megapixel; ratios are to the first row."""
    print(f"\n| {title} | wall, median | wall, min | CPU, min | wall ratio | CPU ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    first = rows[0]
    for row in rows:
        seconds = (statistics.median(row.wall), min(row.wall), min(row.cpu))
        each = " | ".join(f"{s / megapixels:.3f}" for s in seconds)
        ratios = f"{min(row.wall) / min(first.wall):.2f} | {min(row.cpu) / min(first.cpu):.2f}"
        print(f"| {row.name} | {each} | {ratios} |")


@torch.inference_mode()
def imdn_tensor(model: IMDN, lr: Tensor) -> Tensor:
    """(3, h, w) in [0, 1] -> (3, 4h, 4w)."""
    layout = torch.channels_last if is_channels_last(model) else torch.contiguous_format
    return model(lr[None].contiguous(memory_format=layout))[0]


def is_channels_last(model: IMDN) -> bool:
    """The layout of its weights."""
    return model.last.weight.is_contiguous(memory_format=torch.channels_last)


def imdn_file(model: IMDN, source: Path, output: Path) -> None:
    """PNG to PNG."""
    picture = read_picture(source)
    sr = imdn_tensor(model, picture.rgb[0])
    canvas = Canvas(*sr.shape[1:], like=picture.metadata, has_alpha=False)
    canvas.put_rows(0, sr)
    canvas.save(output)


def faster_imdn(lr: Tensor) -> IMDN:
    """IMDN in the memory layout that is faster on this picture."""
    models = [IMDN().eval(), IMDN().eval().to(memory_format=torch.channels_last)]
    rows = [Timed("", lambda model=model: imdn_tensor(model, lr)) for model in models]
    in_turns(rows, 2)
    return min(zip(models, rows, strict=True), key=lambda pair: min(pair[1].cpu))[0]


def main() -> None:
    """Parses, measures, prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("--models", default="vdvae-sr-x4,vdvae-sr-x4-tiny")
    parser.add_argument("--temperatures", default="0,0.8")
    parser.add_argument("--size", default="256x256", help="input height x width")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice by default")
    parser.add_argument("--dtype", default="auto", help="of our models")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    runtime = choose_runtime(dtype=options.dtype)
    height, width = (int(side) for side in options.size.split("x"))
    megapixels = height * width * SCALE**2 / 1e6

    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.png"), Path(folder, "out.png")
        save_levels(source, mirrored((height, width)))
        lr = read_picture(source).rgb[0]
        imdn = faster_imdn(lr)
        layout = "channels last" if is_channels_last(imdn) else "contiguous"
        tensors = [Timed(f"IMDN, float32, {layout}", lambda: imdn_tensor(imdn, lr))]
        files = [Timed(tensors[0].name, lambda: imdn_file(imdn, source, output))]

        def add(loaded: LoadedModel, temperature: float) -> None:
            name = f"{loaded.name}, temperature {temperature:g}"
            settings = SamplingSettings(temperature=temperature)
            request = UpscaleRequest(settings=settings, existing=Existing.overwrite)

            def tensor() -> Tensor:
                strips = sample_strips(loaded.model, lr, settings, runtime)
                return torch.cat([strip.pixels for strip in strips], dim=2)

            def file() -> None:
                streams = {"stdin": sys.stdin.buffer, "stdout": sys.stdout.buffer}
                done = upscale_file(
                    Source(path=source), output, loaded, request, runtime, **streams
                )
                if done.error:
                    sys.exit(f"failed: {done.error}")

            tensors.append(Timed(name, tensor))
            files.append(Timed(name, file))

        for name in options.models.split(","):
            loaded = load(name, runtime, expects=Sampler)
            for temperature in options.temperatures.split(","):
                add(loaded, float(temperature))
        print(
            f"{width}x{height} -> {megapixels:.2f} megapixels, {torch.get_num_threads()} threads, "
            f"{options.runs} runs in turn; ours in {str(runtime.dtype).removeprefix('torch.')}"
        )
        for title, rows in (("tensor to tensor", tensors), ("file to file", files)):
            in_turns(rows, options.runs)
            show(title, rows, megapixels)


if __name__ == "__main__":
    main()

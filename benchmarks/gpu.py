"""Samples a second on a GPU, and what share of the card's matrix rate that is.

    python benchmarks/gpu.py [--device cuda] [--dtype auto] [--batches 1,8,32] [--graph]

The matrix rate is measured first: a square product in the same dtype. Then two models draw samples
of 256x256 pixels, their noise at hand: the compact default, and a CVDVAE in the shape of the
published ffhq256 prior with random weights. A model's floating-point operations are those of its
convolutions. Last the compact model as ``vdsr upscale`` runs it, on a picture of ``--side``:
through the engine (tiles, noise, stitching), and file to file; and a folder of pictures by several
processes, which encode while others sample. ``--small`` tries the program itself
on any machine.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import argument_parser, mirrored
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vdsr_cli.batch.listing import Work
from vdsr_cli.batch.processes import Job, WorkerProcesses
from vdsr_cli.cuda_graph import CudaGraph
from vdsr_cli.images import read_picture, save_levels
from vdsr_cli.loading import load
from vdsr_cli.models.cvdvae import CVDVAE, CVDVAEConfig
from vdsr_cli.models.protocol import LatentShape, Sampler
from vdsr_cli.models.vdvae_config import PUBLISHED, VDVAEConfig
from vdsr_cli.outputs import Existing
from vdsr_cli.paths import Source
from vdsr_cli.runtime import Runtime, choose_runtime
from vdsr_cli.sampling.engine import SamplingSettings, fitting, sample_strips
from vdsr_cli.services.upscale import UpscaleRequest, upscale_file

SMALL = VDVAEConfig(
    image_size=32,
    enc_blocks="32x1,32d2,16x1,16d2,8x1,8d8,1x1",
    dec_blocks="1x1,8m1,16m8,32m16",
    width=32,
    low_bit=True,
    input_shift=-112.0,
    input_scale=1 / 70.0,
)


def cvdvae_config(*, is_small: bool) -> CVDVAEConfig:
    """A CVDVAE for x4 (x2 when small) that conditions every block up to the LR resolution."""
    prior = SMALL if is_small else PUBLISHED["ffhq256"]
    side = 16 if is_small else 64
    seen = prior.enc_blocks[prior.enc_blocks.index(f"{side}x") :]
    conditioned = sum(layer.resolution <= side for layer in prior.decoder_layers)
    return CVDVAEConfig(
        prior=prior, image_size_y=side, enc_blocks_y=seen, ky=conditioned, width_y=prior.width
    )


def seconds(run: Callable[[], object], runtime: Runtime, runs: int) -> float:
    """The median of some runs, after two to warm up, until the device has finished each."""

    def once() -> float:
        started = time.perf_counter()
        run()
        if runtime.device.type == "cuda":
            torch.cuda.synchronize(runtime.device)
        return time.perf_counter() - started

    once()
    once()
    return statistics.median(once() for _ in range(runs))


def matrix_rate(runtime: Runtime, side: int, runs: int) -> float:
    """Floating-point operations a second of a product of two (side, side) matrices."""
    matrix = torch.randn(side, side, device=runtime.device, dtype=runtime.dtype)
    return 2 * side**3 / seconds(lambda: matrix @ matrix, runtime, runs)


def inputs(
    model: nn.Module, batch: int, side: int, runtime: Runtime
) -> tuple[Tensor, Callable[[LatentShape], Tensor]]:
    """LR pictures of ``side`` and the noise of every layer for them."""
    device, hr = runtime.device, side * model.scale
    lr = torch.full((batch, 3, side, side), 0.5, device=device)
    noise = {
        shape.layer: torch.randn(batch, shape.channels, *2 * (hr // shape.cell,), device=device)
        for shape in model.latent_shapes
    }
    return lr.contiguous(memory_format=torch.channels_last), lambda shape: noise[shape.layer]


def operations(model: nn.Module, side: int, runtime: Runtime) -> int:
    """Floating-point operations of one sample."""
    lr, noise = inputs(model, 1, side, runtime)
    # With gradients the CPU takes no fused convolutions, which are not counted.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        FlopCounterMode(display=False) as counter,
    ):
        model.sample(lr, noise, 0.8)
    return counter.get_total_flops()


def show_samples(
    name: str, model: nn.Module, side: int, options: argparse.Namespace, rate: float
) -> None:
    """A table's rows of one model: samples a second and the share of the matrix rate."""
    runtime = options.runtime
    each = operations(model, side, runtime)
    for batch in map(int, options.batches.split(",")):
        lr, noise = inputs(model, batch, side, runtime)

        def sample(lr: Tensor, source: Callable[[LatentShape], Tensor] = noise) -> Tensor:
            return model.pixels(model.sample(lr, source, 0.8), None)

        runs: dict[str, Callable[[], object]] = {name: partial(sample, lr)}
        if options.graph:
            runs[f"{name}, replayed"] = partial(CudaGraph(sample, (lr,)), (lr,))
        for label, run in runs.items():
            taken = seconds(run, runtime, options.runs)
            share = each * batch / taken / rate
            times = f"{batch / taken:.1f} | {1e3 * taken / batch:.3f}"
            print(f"| {label} | {each / 1e9:.2f} | {batch} | {times} | {share:.1%} |", flush=True)


def show_upscale(side: int, options: argparse.Namespace) -> None:
    """Megapixels a second of the default model through the engine and from file to file."""
    runtime = options.runtime
    loaded = load("vdvae-sr-x4", runtime, expects=Sampler)
    settings = fitting(SamplingSettings(batch_size=options.tiles), loaded.model, runtime)
    request = UpscaleRequest(settings=settings, existing=Existing.overwrite)
    megapixels = (4 * side) ** 2 / 1e6
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.png"), Path(folder, "out.png")
        save_levels(source, mirrored((side, side)))
        lr = read_picture(source).rgb[0]

        def engine() -> None:
            for _ in sample_strips(loaded.model, lr, settings, runtime):
                pass

        def file() -> None:
            streams = {"stdin": sys.stdin.buffer, "stdout": sys.stdout.buffer}
            done = upscale_file(Source(path=source), output, loaded, request, runtime, **streams)
            if done.error:
                sys.exit(f"failed: {done.error}")

        print(f"\nvdvae-sr-x4 at {side}x{side}, {settings.most_tiles} tiles a batch:")
        for name, run in (("engine", engine), ("file to file", file)):
            taken = seconds(run, runtime, options.runs)
            print(f"{name}: {megapixels / taken:.3g} megapixels of output a second")


def show_folder(options: argparse.Namespace) -> None:
    """Pictures of 1 megapixel a second of a folder, by so many worker processes on one card, from
    their first picture to their last."""
    settings = SamplingSettings(batch_size=options.tiles)
    request = UpscaleRequest(settings=settings, existing=Existing.overwrite)
    device = str(options.runtime.device)
    print(f"\n{options.pictures} pictures of 256x256 into PNG of 1024x1024:")
    with tempfile.TemporaryDirectory() as folder:
        inputs = [Path(folder, f"{index}.png") for index in range(options.pictures)]
        for path in inputs:
            save_levels(path, mirrored((256, 256)))
        works = [Work(input=str(p), output=str(p.with_suffix(".x4.png"))) for p in inputs]
        for count in map(int, options.jobs.split(",")):
            engine = WorkerProcesses(
                job=Job(model="vdvae-sr-x4", request=request, device=device), count=count
            )
            ended = [time.perf_counter() for _ in engine.run(works)]
            each = (ended[-1] - ended[0]) / (len(ended) - 1)
            print(f"--jobs {count}: {1 / each:.3g} pictures a second", flush=True)


@torch.inference_mode()
def main() -> None:
    """Parses, measures, prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--tiles", type=int, help="a batch, of the last measurement")
    parser.add_argument("--side", type=int, default=1024, help="of its input, in pixels")
    parser.add_argument("--jobs", default="1,4,8", help="worker processes of a folder's run")
    parser.add_argument("--pictures", type=int, default=160, help="in that folder; 0 for no run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--graph", action="store_true", help="also replayed as CUDA graphs")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the program")
    options = parser.parse_args()
    if options.small:
        options.batches, options.side, options.runs = "1,2", 64, 1
        options.jobs, options.pictures = "1,2", 4
    options.runtime = runtime = choose_runtime(options.device, options.dtype)
    rate = matrix_rate(runtime, 256 if options.small else 8192, options.runs)
    card = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else "CPU"
    print(f"{card}, {runtime.dtype}: {rate / 1e12:.2f} tera operations a second in a product\n")
    head = "giga operations a sample | batch | samples a second | ms a sample | share of the rate"
    print(f"| model | {head} |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    compact = load("vdvae-sr-x4", runtime, expects=Sampler).model
    show_samples("vdvae-sr-x4", compact, 16 if options.small else 64, options, rate)
    config = cvdvae_config(is_small=options.small)
    cvdvae = runtime.place(CVDVAE(config))
    show_samples("CVDVAE", cvdvae, config.image_size_y, options, rate)
    del cvdvae
    show_upscale(options.side, options)
    if options.pictures:
        show_folder(options)


if __name__ == "__main__":
    main()

"""Steps and megapixels a second of ``vdsr train`` on this machine, on pictures of noise.

    python benchmarks/train_speed.py [--preset vdvae-sr-x4] [--batch 8] [--lr-size 24]
        [--device auto] [--dtype auto] [--compile] [--graph] [--steps 20] [--mean-only] [--profile]

The first steps, in which compilers and caches warm up, are left out.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from common import argument_parser


def noise_pictures(folder: Path, count: int, side: int) -> None:
    """Writes pictures for the trainer to crop."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


def parse() -> argparse.Namespace:
    """The options of the module's docstring."""
    parser = argument_parser(__doc__)
    parser.add_argument("--preset", default="vdvae-sr-x4")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr-size", type=int, default=24)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--graph", action="store_true", help="steps replayed as a CUDA graph")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--degradation", default="bicubic")
    parser.add_argument("--mean-only", action="store_true", help="the phase before the ELBO")
    parser.add_argument("--profile", action="store_true", help="print the dearest kernels")
    return parser.parse_args()


def main() -> None:
    """Parses, measures, prints one JSON object."""
    options = parse()
    import torch

    from vdsr_cli.models.presets import PRIOR_PRESETS
    from vdsr_cli.runtime import choose_runtime
    from vdsr_cli.training.cards import hardware_of
    from vdsr_cli.training.data import PictureStore, find_pictures
    from vdsr_cli.training.loop import TrainConfig, Trainer
    from vdsr_cli.training.start import new_model

    runtime = choose_runtime(options.device, options.dtype)
    objective = "vdvae" if options.preset in PRIOR_PRESETS else "vdvae-sr"
    model = new_model(objective, preset=options.preset, prior=None, start_from=None)
    config = TrainConfig(
        steps=10**9,
        batch=options.batch,
        lr_size=options.lr_size,
        elbo_from=10**9 if options.mean_only else 0,
        degradation=options.degradation,
    )
    scale = model.scale
    with tempfile.TemporaryDirectory() as folder:
        noise_pictures(Path(folder), 4, max(512, options.lr_size * scale))
        store = PictureStore(
            find_pictures([Path(folder)]), scale=scale, min_lr_size=options.lr_size
        )
    trainer = Trainer(
        model,
        store,
        config,
        Path(),
        device=runtime.device,
        compute=runtime.dtype,
        compiled=options.compile,
        replayed=options.graph,
    )

    def steps(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            trainer.train_step()
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / count

    steps(options.warmup)
    if options.profile:
        with torch.profiler.profile() as profile:
            steps(3)
        order = "cuda_time_total" if runtime.device.type == "cuda" else "cpu_time_total"
        print(profile.key_averages().table(sort_by=order, row_limit=20))
    seconds = steps(options.steps)
    megapixels = options.batch * (scale * options.lr_size) ** 2 / 1e6
    figures = {
        "preset": options.preset,
        "hardware": hardware_of(runtime.device),
        "dtype": str(runtime.dtype).removeprefix("torch."),
        "compiled": options.compile,
        "graph": options.graph,
        "batch": options.batch,
        "lr_size": options.lr_size,
        "seconds_per_step": round(seconds, 4),
        "steps_per_second": round(1 / seconds, 3),
        "hr_megapixels_per_second": round(megapixels / seconds, 3),
    }
    if runtime.device.type == "cuda":
        figures["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

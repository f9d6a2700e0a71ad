"""Trains the bundled compact models anew, one after the other, in so many seconds of one GPU.

    python benchmarks/train_bundled.py RUNS DATA... --seconds 560 [--only x4,x8] [--first FOLDER]

Each model has its share of the time. How many steps that is, is measured first, for a second or
two; then ``vdsr train`` runs with so many, the last three quarters of the ELBO cooling down, and
``vdsr train export`` writes RUNS/NAME.safetensors. The pictures are decoded aside, once a scale,
while the first model trains on those of ``--first``, or waits. ``--small`` tries the program itself
on any machine.
"""

import argparse
import gc
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from vdsr_cli.cli.app import main as vdsr
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.services.train_start import new_model
from vdsr_cli.training.data import PictureStore, find_pictures
from vdsr_cli.training.loop import TrainConfig, Trainer
from vdsr_cli.training.run_folder import MEAN

RESCALES = (1.0, 0.65)
LEFT_OVER_S = 5.0
"""Seconds of a model beside its steps: reading the store, recording, writing the checkpoint."""
BLEND = 0.2
"""Share of the mean path's average in the weights, where it was trained alone: see RUNS.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One model.

    Attributes:
        share: of the time.
        objective: of ``vdsr train``.
        preset: architecture.
        start: what ``--from``, or for a CVDVAE ``--prior``, names, unless ``after`` was trained.
        after: name of the model here that it begins with.
        rate: peak learning rate.
        batch, lr_size: crops of a step.
        scale: super-resolution factor.
        mean_alone: share of its time for the mean path alone, before the ELBO.
        degradation: of its LR pictures.
    """

    share: float
    objective: str = "vdvae-sr"
    preset: str | None = None
    start: str | None = None
    after: str | None = None
    rate: float = 1e-3
    batch: int = 32
    lr_size: int = 48
    scale: int = 4
    mean_alone: float = 0.25
    degradation: str = "bicubic"


PLANS = {
    "tiny": Plan(share=35, preset="vdvae-sr-x4-tiny", start="vdvae-sr-x4-tiny"),
    "x4": Plan(share=215, preset="vdvae-sr-x4", start="vdvae-sr-x4"),
    "real": Plan(
        share=70,
        preset="vdvae-sr-x4",
        start="vdvae-sr-x4",
        after="x4",
        rate=5e-4,
        degradation="real",
    ),
    "x2": Plan(share=45, preset="vdvae-sr-x2", start="vdvae-sr-x4", after="x4", scale=2),
    "x8": Plan(
        share=40,
        preset="vdvae-sr-x8",
        start="vdvae-sr-x4",
        after="x4",
        scale=8,
        batch=64,
        lr_size=24,
    ),
    "prior": Plan(
        share=75, objective="vdvae", preset="vdvae-x4-prior", start="vdvae-x4-prior", mean_alone=0
    ),
    "cvdvae": Plan(
        share=45, objective="cvdvae", start="vdvae-x4-prior", after="prior", rate=5e-4, mean_alone=0
    ),
}


def start_of(plan: Plan, runs: Path) -> str | None:
    """Name or path of the weights that a model begins with."""
    is_here = plan.after is not None and (runs / plan.after).exists()
    return str(runs / str(plan.after)) if is_here else plan.start


def milliseconds(plan: Plan, store: PictureStore, device: str, runs: Path) -> tuple[float, float]:
    """Of a step of the mean path alone (0 where there is none) and of the ELBO."""
    runtime = choose_runtime(device)
    is_cuda = runtime.device.type == "cuda"
    if plan.objective == "cvdvae":
        prior = start_of(plan, runs)
        model = new_model(plan.objective, preset=None, prior=prior, start_from=None)
    else:
        model = new_model(plan.objective, preset=plan.preset, prior=None, start_from=None)

    def of_phase(elbo_from: int) -> float:
        config = TrainConfig(
            steps=10**9,
            batch=plan.batch,
            lr_size=plan.lr_size,
            elbo_from=elbo_from,
            degradation=plan.degradation,
            mean_weight=60.0 if plan.mean_alone else 0.0,
        )
        trainer = Trainer(
            model,
            store,
            config,
            runs,
            device=runtime.device,
            compute=runtime.dtype,
            replayed=is_cuda,
        )
        trainer.train_step()
        if is_cuda:
            torch.cuda.synchronize()
        started, count = time.perf_counter(), 20 if is_cuda else 1
        for _ in range(count):
            trainer.train_step()
        if is_cuda:
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - started) / count

    return (of_phase(10**9) if plan.mean_alone else 0.0), of_phase(0)


def decode_aside(sources: Sequence[Path], store: Path, plans: Sequence[Plan]) -> BaseProcess:
    """A process that writes the pictures of each scale to STORE.SCALE."""
    least = {plan.scale: min(p.lr_size for p in plans if p.scale == plan.scale) for plan in plans}
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=decode, args=(sources, store, least), daemon=True)
    process.start()
    return process


def decode(sources: Sequence[Path], store: Path, least: dict[int, int]) -> None:
    """Writes the pictures at each scale, of at least so many LR pixels a side, to STORE.SCALE."""
    for scale, size in least.items():
        pictures = find_pictures(sources)
        decoded = PictureStore(pictures, scale=scale, rescales=RESCALES, min_lr_size=size)
        decoded.save(store.with_suffix(f".{scale}"))


def run(*arguments: object) -> None:
    """``vdsr`` in this process, so that the libraries are loaded once."""
    sys.argv = ["vdsr", *map(str, arguments)]
    try:
        vdsr()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"vdsr {arguments[0]} ended with {ended.code}") from ended


def train(name: str, plan: Plan, seconds: float, store: Path, options: argparse.Namespace) -> None:
    """Measures, trains for about so long, exports."""
    speed_store = PictureStore.load(store)
    mean_ms, elbo_ms = milliseconds(plan, speed_store, options.device, options.runs)
    alone = int(1e3 * seconds * plan.mean_alone / mean_ms) if mean_ms else 0
    rest = max(2, int(1e3 * seconds * (1 - plan.mean_alone) / elbo_ms))
    print(f"{name}: {seconds:.0f} s, {alone} steps of {mean_ms:.1f} ms, {rest} of {elbo_ms:.1f} ms")
    start = start_of(plan, options.runs)
    how = ["--prior", start] if plan.objective == "cvdvae" else ["--preset", plan.preset]
    if start and plan.objective != "cvdvae":
        how += ["--from", start]
    mean = ["--elbo-from", alone, "--mean-weight", 60] if plan.mean_alone else ["--mean-weight", 0]
    run(
        *("train", plan.objective, *options.data, "--out", options.runs / name, *how, *mean),
        *("--steps", alone + rest, "--cooldown", rest * 3 // 4, "--warmup", 300),
        *("--learning-rate", plan.rate, "--ema-decay", 0.999, "--degradation", plan.degradation),
        *("--batch", plan.batch, "--lr-size", plan.lr_size, "--store", store),
        *("--val-every", 0, "--log-every", 200, "--save-every", 4000, "--quiet"),
        *("--device", options.device, "--minutes", round((1.1 * seconds + 20) / 60, 2)),
    )
    folder = options.runs / name
    blend = ["--blend", f"{folder / MEAN}={BLEND}"] if (folder / MEAN).exists() else []
    weights = options.runs / f"{name}.safetensors"
    run("train", "export", folder, "-o", weights, "--overwrite", *blend)


def main() -> None:
    """Parses and trains."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--only", default=",".join(PLANS), help="names, in their order")
    parser.add_argument("--first", type=Path, help="pictures for the first model alone")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="tiny crops, to try the program")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    left = {name: PLANS[name] for name in options.only.split(",")}
    if options.small:
        left = {name: replace(plan, batch=1, lr_size=16) for name, plan in left.items()}
    options.runs.mkdir(parents=True, exist_ok=True)
    decoding = decode_aside(options.data, options.runs / "store", list(left.values()))
    is_first = True
    while left:
        name, plan = next(iter(left.items()))
        store = options.runs / f"store.{plan.scale}"
        if is_first and options.first is not None:
            store = options.runs / "first"
            paths, least = find_pictures([options.first]), plan.lr_size
            PictureStore(paths, scale=plan.scale, rescales=RESCALES, min_lr_size=least).save(store)
        while not store.exists():
            if decoding.exitcode:
                sys.exit("the pictures could not be decoded")
            time.sleep(0.2)
        room = deadline - time.monotonic() - LEFT_OVER_S * len(left)
        seconds = max(1.0, room) * plan.share / sum(other.share for other in left.values())
        train(name, plan, seconds, store, options)
        del left[name]
        is_first = False
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

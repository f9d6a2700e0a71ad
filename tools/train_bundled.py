"""Trains the bundled compact models anew, one after the other, in so many seconds of one GPU.

    python tools/train_bundled.py RUNS DATA... --metric-weights DIR --seconds 560 [--only x4,x8]
        [--first FOLDER]

Each model has its share of the time, and of that each phase: the mean path alone, the ELBO as well,
the samples by LPIPS, of SqueezeNet and, where its weights are in DIR, of VGG16 in turn. How many
steps these are, is measured first, for a second or two; then ``vdsr train`` runs with so many, the
last half of them cooling down, and ``vdsr train export`` writes RUNS/NAME.safetensors. The pictures
are decoded aside, once a scale, while the first model trains on those of ``--first``, or waits. The
likelihood alone (``--likelihood-only``) is left to a run of its own. ``--small`` tries the program
itself on any machine.
"""

import argparse
import gc
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from vdsr_cli.cli.app import main as vdsr
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.training.adversarial_start import adversarial_phase
from vdsr_cli.training.config import AdversarialConfig
from vdsr_cli.training.data import PictureStore, find_pictures
from vdsr_cli.training.loop import TrainConfig, Trainer
from vdsr_cli.training.request import TrainRequest
from vdsr_cli.training.start import new_model

RESCALES = (1.0, 0.65)
LEFT_OVER_S = 5.0
"""Seconds of a model beside its steps: reading the store, recording, writing the checkpoint."""
PHASE = AdversarialConfig(
    start=0,
    perceptual_weight=1.8,
    adversarial_weight=0,
    elbo_weight=0.1,
    elbo_every=4,
    plain_weight=12,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One model.

    Attributes:
        share: of the time.
        objective: of ``vdsr train``.
        start: what ``--from``, or for a CVDVAE ``--prior``, names, unless ``after`` was trained.
        after: name of the model here that it begins with.
        rate: peak learning rate.
        batch, lr_size: crops of a step.
        scale: super-resolution factor.
        mean_alone: share of its time for the mean path alone, before the ELBO.
        adversarial: share of its time for the adversarial phase, after the ELBO.
        phase: the adversarial phase, but for its start.
        mean_weight: of the mean path's L1 in it; None for the default.
        degradation: of its LR pictures.
    """

    share: float
    objective: str = "vdvae-sr"
    start: str
    after: str | None = None
    rate: float = 1e-3
    batch: int = 32
    lr_size: int = 48
    scale: int = 4
    mean_alone: float = 0.1
    adversarial: float = 0.6
    phase: AdversarialConfig = PHASE
    mean_weight: float | None = 120
    degradation: str = "bicubic"


PLANS = {
    "tiny": Plan(
        share=35,
        start="vdvae-sr-x4-tiny",
        phase=replace(PHASE, plain_weight=0),
    ),
    "x4": Plan(
        share=215,
        start="vdvae-sr-x4",
        phase=replace(PHASE, plain_weight=0),
    ),
    "real": Plan(
        share=70,
        start="vdvae-sr-x4-real",
        rate=5e-4,
        phase=replace(
            PHASE,
            l1_weight=0.4,
            perceptual_weight=3.4,
            coarse_weight=3,
            plain_weight=25,
            elbo_weight=0.05,
            diversity=0,
            temperatures=(0.65, 0.9),
        ),
        mean_weight=600,
        degradation="real",
    ),
    "x2": Plan(share=45, start="vdvae-sr-x2", scale=2),
    "x8": Plan(
        share=40,
        start="vdvae-sr-x8",
        scale=8,
        batch=64,
        lr_size=24,
    ),
    "prior": Plan(
        share=75,
        objective="vdvae",
        start="vdvae-x4-prior",
        mean_alone=0,
        adversarial=0,
    ),
    "cvdvae": Plan(
        share=45,
        objective="cvdvae",
        start="vdvae-x4-prior",
        after="prior",
        rate=5e-4,
        mean_alone=0,
        phase=replace(PHASE, l1_weight=0.5, perceptual_weight=4, elbo_weight=0.05, diversity=0.6),
        mean_weight=None,
    ),
}


def start_of(plan: Plan, runs: Path) -> str:
    """Name or path of the weights that a model begins with."""
    is_here = plan.after is not None and (runs / plan.after).exists()
    return str(runs / str(plan.after)) if is_here else plan.start


@dataclass(frozen=True, slots=True)
class Phases:
    """A number for each phase of a run: its milliseconds a step, or its steps."""

    mean_alone: float
    elbo: float
    adversarial: float


def milliseconds(plan: Plan, store: PictureStore, options: argparse.Namespace) -> Phases:
    """Milliseconds of a step of each phase; 0 for one that the plan leaves out."""
    runtime = choose_runtime(options.device)
    is_cuda = runtime.device.type == "cuda"
    start, is_on_prior = start_of(plan, options.runs), plan.objective == "cvdvae"
    model = new_model(
        plan.objective,
        preset=None,
        prior=start if is_on_prior else None,
        start_from=None if is_on_prior else start,
    )

    def of_phase(elbo_from: int, adversarial: AdversarialConfig | None = None) -> float:
        config = TrainConfig(
            steps=10**9,
            batch=plan.batch,
            lr_size=plan.lr_size,
            elbo_from=elbo_from,
            degradation=plan.degradation,
            mean_weight=60.0 if plan.mean_alone else 0.0,
            adversarial=adversarial,
        )
        request = TrainRequest(
            sources=(),
            out=options.runs,
            config=config,
            objective=plan.objective,
            metric_weights=options.metric_weights,
            perceptual=networks(options.metric_weights),
        )
        trainer = Trainer(
            model,
            store,
            config,
            options.runs,
            device=runtime.device,
            compute=runtime.dtype,
            replayed=is_cuda and adversarial is None,
            adversarial=adversarial_phase(request, model, runtime.device),
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

    return Phases(
        of_phase(10**9) if plan.mean_alone else 0.0,
        of_phase(0),
        of_phase(0, plan.phase) if plan.adversarial else 0.0,
    )


def steps_of(plan: Plan, seconds: float, each: Phases) -> Phases:
    """The steps of each phase in so many seconds."""
    shares = Phases(plan.mean_alone, 1 - plan.mean_alone - plan.adversarial, plan.adversarial)
    alone, elbo, adversarial = (
        int(1e3 * seconds * share / ms) if ms else 0
        for share, ms in zip(astuple(shares), astuple(each), strict=True)
    )
    return Phases(alone, max(1, elbo), adversarial)


def networks(metric_weights: Path | None) -> tuple[str, ...]:
    """Those of LPIPS that train: VGG16 where its weights are there, too."""
    has_vgg = metric_weights is not None and (metric_weights / "lpips_vgg.safetensors").exists()
    return ("squeeze", "vgg") if has_vgg else ("squeeze",)


def options_of(phase: AdversarialConfig) -> list[object]:
    """A phase as options of ``vdsr train``, but for its start."""
    usual, found = AdversarialConfig(start=phase.start), list[object]()
    for field in fields(phase):
        value = getattr(phase, field.name)
        if value != getattr(usual, field.name):
            values = value if isinstance(value, tuple) else (value,)
            found += [f"--{field.name.replace('_', '-')}", *values]
    return found


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
        target = store.with_suffix(f".{scale}")
        if target.exists():
            continue
        pictures = find_pictures(sources)
        decoded = PictureStore(pictures, scale=scale, rescales=RESCALES, min_lr_size=size)
        decoded.save(target)


def run(*arguments: object) -> None:
    """``vdsr`` in this process, so that the libraries are loaded once."""
    sys.argv = ["vdsr", *map(str, arguments)]
    try:
        vdsr()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"vdsr {arguments[0]} ended with {ended.code}") from ended


def train(
    name: str,
    plan: Plan,
    seconds: float,
    store: Path,
    data: list[Path],
    options: argparse.Namespace,
) -> None:
    """Measures, trains for about so long, exports; ``store`` is of ``data``."""
    each = milliseconds(plan, PictureStore.load(store), options)
    steps = steps_of(plan, seconds, each)
    total = round(steps.mean_alone + steps.elbo + steps.adversarial)
    print(f"{name}: {seconds:.0f} s, steps {astuple(steps)} of {astuple(each)} ms")
    begins = "--prior" if plan.objective == "cvdvae" else "--from"
    how: list[object] = [begins, start_of(plan, options.runs)]
    if plan.mean_alone:
        how += ["--elbo-from", round(steps.mean_alone)]
    if steps.adversarial:
        how += ["--adversarial", round(steps.mean_alone + steps.elbo)]
        how += ["--metric-weights", options.metric_weights, *options_of(plan.phase)]
        several = len(networks(options.metric_weights)) > 1
        how += ["--perceptual-net", "both" if several else "squeeze"]
        how += [] if plan.mean_weight is None else ["--mean-weight", plan.mean_weight]
    elif not plan.mean_alone:
        how += ["--mean-weight", 0]
    run(
        *("train", plan.objective, *data, "--out", options.runs / name, *how),
        *("--steps", total, "--cooldown", total // 2, "--warmup", 300),
        *("--learning-rate", plan.rate, "--ema-decay", 0.999, "--degradation", plan.degradation),
        *("--batch", plan.batch, "--lr-size", plan.lr_size, "--store", store),
        *("--val-every", 0, "--log-every", 200, "--save-every", 4000, "--quiet"),
        *("--device", options.device, "--minutes", round((1.1 * seconds + 20) / 60, 2)),
    )
    weights = options.runs / f"{name}.safetensors"
    run("train", "export", options.runs / name, "-o", weights, "--overwrite")


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
    parser.add_argument("--metric-weights", type=Path, help="folder with lpips_squeeze.safetensors")
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
        store, data = options.runs / f"store.{plan.scale}", options.data
        if is_first and options.first is not None:
            store, data = options.runs / "first", [options.first]
            if not store.exists():
                stored = PictureStore(
                    find_pictures(data),
                    scale=plan.scale,
                    rescales=RESCALES,
                    min_lr_size=plan.lr_size,
                )
                stored.save(store)
        while not store.exists():
            if decoding.exitcode:
                sys.exit("the pictures could not be decoded")
            time.sleep(0.2)
        room = deadline - time.monotonic() - LEFT_OVER_S * len(left)
        seconds = max(1.0, room) * plan.share / sum(other.share for other in left.values())
        train(name, plan, seconds, store, data, options)
        del left[name]
        is_first = False
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

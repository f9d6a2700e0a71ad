"""The use case of ``vdsr train``: pictures in, a checkpoint out."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vdsr_cli.errors import UsageError
from vdsr_cli.models.compact import CompactVDVAESR
from vdsr_cli.models.registry import PRESETS, build_compact
from vdsr_cli.training.data import PictureStore, find_pictures
from vdsr_cli.training.loop import Trainer, TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What to train on what.

    Attributes:
        sources: picture files and folders.
        out: run folder; ``last.pt`` in it is taken up.
        preset: architecture of a new run.
        config: hyper-parameters.
        rescales: sizes at which each picture is kept.
        branch_from: another run's ``last.pt`` to start this run from, its step counted on.
        device: torch device name.
        save_every, log_every: steps.
    """

    sources: tuple[Path, ...]
    out: Path
    preset: str
    config: TrainConfig
    rescales: tuple[float, ...] = (1.0, 0.65)
    branch_from: Path | None = None
    device: str = "cpu"
    save_every: int = 500
    log_every: int = 50
    on_log: Callable[[dict[str, float]], None] = field(default=lambda row: None)


def train(request: TrainRequest) -> Trainer:
    """Runs to ``config.steps``; a run folder that holds a checkpoint is resumed."""
    if request.preset not in PRESETS:
        raise UsageError(f"unknown preset {request.preset!r}", hint=f"known: {', '.join(PRESETS)}")
    last = request.out / "last.pt"
    start = last if last.exists() else request.branch_from
    torch.manual_seed(request.config.seed)
    model = _model_of(start) if start else CompactVDVAESR(PRESETS[request.preset])
    store = PictureStore(
        find_pictures(request.sources),
        scale=model.scale,
        rescales=request.rescales,
        min_lr_size=request.config.lr_size,
    )
    device = torch.device(request.device)
    trainer = Trainer(model, store, request.config, request.out, device=device)
    if start:
        trainer.resume(start)
    trainer.run(save_every=request.save_every, log_every=request.log_every, on_log=request.on_log)
    return trainer


def _model_of(checkpoint: Path) -> CompactVDVAESR:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return build_compact(json.loads(json.dumps(state["architecture"])))

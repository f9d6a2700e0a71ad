"""The use case of ``vdsr train``: pictures in, a checkpoint out."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vdsr_cli.errors import UsageError
from vdsr_cli.models.compact import CompactVDVAESR
from vdsr_cli.models.registry import COMPACT_VDVAE_SR, PRESETS, build_compact
from vdsr_cli.training.data import PictureStore, find_pictures
from vdsr_cli.training.loop import TrainConfig, Trainer
from vdsr_cli.weights import Checkpoint, write_safetensors


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
        store: file that keeps the decoded pictures from leg to leg; made where it is missing.
        device: torch device name.
        save_every, log_every: steps.
    """

    sources: tuple[Path, ...]
    out: Path
    preset: str
    config: TrainConfig
    rescales: tuple[float, ...] = (1.0, 0.65)
    branch_from: Path | None = None
    store: Path | None = None
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
    store = _open_store(request, model.scale)
    device = torch.device(request.device)
    trainer = Trainer(model, store, request.config, request.out, device=device)
    if start:
        trainer.resume(start)
    trainer.run(save_every=request.save_every, log_every=request.log_every, on_log=request.on_log)
    return trainer


def _open_store(request: TrainRequest, scale: int) -> PictureStore:
    if request.store is not None and request.store.exists():
        return PictureStore.load(request.store)
    store = PictureStore(
        find_pictures(request.sources),
        scale=scale,
        rescales=request.rescales,
        min_lr_size=request.config.lr_size,
    )
    if request.store is not None:
        store.save(request.store)
    return store


def _model_of(checkpoint: Path) -> CompactVDVAESR:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return build_compact(json.loads(json.dumps(state["architecture"])))


def export(checkpoint: Path, out: Path, *, card: dict[str, Any]) -> None:
    """Writes a run's averaged weights as a checkpoint that ``--model`` takes, in bfloat16.

    Args:
        checkpoint: a run's ``last.pt``.
        out: the safetensors file.
        card: facts for the header; the run's own configuration and step are added.
    """
    run = torch.load(checkpoint, map_location="cpu", weights_only=True)
    facts = {"degradation": "bicubic", "step": run["step"], "train": run["config"], **card}
    write_safetensors(
        out,
        Checkpoint(
            architecture=COMPACT_VDVAE_SR,
            config=run["architecture"],
            state={name: value.to(torch.bfloat16) for name, value in run["ema"].items()},
            metadata=json.loads(json.dumps(facts, default=str).replace("Infinity", '"inf"')),
        ),
    )

"""The request for a training run."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from vdsr_cli.models.vdvae_sr import Variant
from vdsr_cli.training.config import Row, RunPlan, TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LegRequest:
    """A leg of a run: where it is, how long it goes, who is told.

    Attributes:
        out: run folder; a run in it is taken up.
        minutes: ends the leg with a checkpoint after so long, decoding included; None for never.
        is_stopped: asked at each step whether to end the leg.
        on_step: told each step that is done: see :class:`~vdsr_cli.training.config.RunPlan`.
    """

    out: Path
    device: str = "cpu"
    dtype: str = "auto"
    minutes: float | None = None
    save_every: int = 500
    log_every: int = 50
    on_log: Callable[[Row], None] = field(default=lambda row: None)
    is_stopped: Callable[[], bool] = field(default=lambda: False)
    on_step: Callable[[int, Mapping[str, Tensor]], None] = field(default=lambda step, figures: None)

    def plan(self) -> RunPlan:
        """The actions beside the steps of a leg that begins now."""
        return RunPlan(
            save_every=self.save_every,
            log_every=self.log_every,
            on_log=self.on_log,
            deadline=None if self.minutes is None else time.monotonic() + 60 * self.minutes,
            is_stopped=self.is_stopped,
            on_step=self.on_step,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest(LegRequest):
    """A training run: data, network, settings.

    Attributes:
        objective: "vdvae", "cvdvae", "vdvae-sr" or "srvae".
        preset: architecture of a new run; None for the objective's default.
        prior: name or path of a pretrained prior that a new run is built on.
        start_from: name or path of finished weights that a new run fine-tunes.
        scale: super-resolution factor of a new model on a prior of the published shape.
        coupled: whether colours, and neighbours, of a new compact model's likelihood depend on
            each other.
        variant: of a new VDVAE-SR on a prior of the published shape; None for the default.
        conditioned_layers: how many of a new CVDVAE's first layers see the LR picture, or None.
        branch_from: another run's ``last.pt`` to start this run from, its step counted on.
        rescale: sizes at which each picture is kept.
        store: file that keeps the decoded pictures from leg to leg; made where it is missing.
        val: pictures to validate on; none for samples only.
        val_every: steps between validations, 0 for none.
        perceptual: networks of the adversarial phase's perceptual term: "squeeze", "vgg".
        graph: whether to record a step as a CUDA graph; None for where that pays: a compact model
            on CUDA, not compiled.
        recompute: whether the backward pass computes inner maps of the blocks again instead of
            keeping them; None for where memory is the processor's. Of published shapes only.
        on_read: told how many pictures are decoded, and of how many.
        on_left_out: told why a picture is not trained on, or how many are too small.
    """

    sources: tuple[Path, ...]
    config: TrainConfig
    objective: str = "vdvae-sr"
    preset: str | None = None
    prior: str | None = None
    start_from: str | None = None
    scale: int | None = None
    coupled: bool = False
    variant: Variant | None = None
    conditioned_layers: int | None = None
    branch_from: Path | None = None
    rescale: Sequence[float] = (1.0, 0.65)
    store: Path | None = None
    val: Sequence[Path] = ()
    val_every: int = 0
    val_limit: int = 16
    metric_weights: Path | None = None
    perceptual: tuple[str, ...] = ("squeeze",)
    compiled: bool = False
    graph: bool | None = None
    recompute: bool | None = None
    workers: int | None = None
    tensorboard: bool = False
    on_read: Callable[[int, int], None] = field(default=lambda done, pictures: None)
    on_left_out: Callable[[str], None] = field(default=lambda reason: None)

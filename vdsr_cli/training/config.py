"""The configuration of a run: its hyper-parameters, and what happens beside its steps."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from vdsr_cli.errors import UsageError
from vdsr_cli.models.protocol import LatentShape
from vdsr_cli.training.published import PublishedShape, published_defaults

Row = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialConfig:
    """The adversarial phase; see :mod:`~vdsr_cli.training.adversarial` for its terms.

    Attributes:
        start: its first step.
        l1_weight, perceptual_weight, adversarial_weight: of the terms of a sample; without the last
            there is no discriminator.
        coarse_weight: of a sample's L1 in the means of 16x16 squares, for models whose results are
            not projected onto the LR picture.
        plain_weight: of a sample's L1 where the HR picture is plain, against grain there.
        elbo_weight: of the model's own objective, the mean path's L1 included.
        elbo_every: steps from one with the ELBO to the next, where it then weighs as much more; the
            mean path is in all of them.
        diversity: share of the distances between samples that is taken off those to the HR
            picture, 0 to 1.
        sharpen: amount of the unsharp mask on what samples are compared with.
        views: whether LPIPS compares pictures in a view drawn at each step, or as they are.
        temperatures: range that a step's temperature is drawn from.
        ramp: steps over which the adversarial term comes to weigh.
        discriminator_rate: peak learning rate of the discriminator, on the model's schedule.
        discriminator_width: its channels at half the resolution.
    """

    start: int
    l1_weight: float = 1.0
    perceptual_weight: float = 1.0
    adversarial_weight: float = 0.1
    coarse_weight: float = 0.0
    plain_weight: float = 0.0
    elbo_weight: float = 0.05
    elbo_every: int = 1
    diversity: float = 0.3
    sharpen: float = 0.0
    views: bool = True
    temperatures: tuple[float, float] = (0.6, 1.0)
    ramp: int = 300
    discriminator_rate: float = 2e-4
    discriminator_width: int = 48

    def __post_init__(self) -> None:
        low, high = self.temperatures
        if not 0 <= low <= high < math.inf:
            raise UsageError(f"samples cannot be drawn at temperatures from {low:g} to {high:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Hyper-parameters of one run.

    Attributes:
        steps: total steps, earlier legs included.
        batch: crops a step and process.
        lr_size: side of a crop in LR pixels.
        learning_rate: peak of AdamW's rate.
        warmup: steps of linear warm-up.
        cooldown: last steps, in which the rate falls linearly to zero.
        schedule: of the rate between them: "constant", or "plateau", which divides it by ten where
            validations get no better; see :func:`~vdsr_cli.training.schedule.plateau_factor`.
        elbo_from: first step of the ELBO; before it the mean path alone is trained, which costs
            less than half and starts the prior near its goal.
        rate_warmup: steps of the ELBO over which the weight of the rate rises from 0 to 1, so that
            the posterior finds a use before it has to pay for it.
        mean_weight: weight of the mean path's L1 on [-1, 1], against an ELBO in bits/dim.
        grad_clip: largest gradient norm.
        skip_above: a step with a larger gradient norm before clipping is skipped (papers' rule).
        give_up_after: so many skipped steps in a row end the run.
        ema_decay: decay of the averaged weights, the ones that are used and shipped.
        weight_decay, beta2: AdamW's.
        degradation: how LR pictures are made: "bicubic", the product's own, or "real".
        fit: what of a picture is trained on: "crop", random squares of it as it is, or "whole",
            all of it, resized and cut to such a square as the papers' loaders do.
        symmetries: what crops undergo: "all" flips and transposes, "mirror" or "none".
        kl: how CVDVAE's layers are added up: "sum", or "mean" over a layer's dimensions.
        likelihood_only: whether a compact model trains what none of its pictures depends on.
        fine_layers: whether a compact CVDVAE trains what its prior does below the LR resolution.
        seed: of crops and posterior noise.
        adversarial: the phase in which samples are trained too, or None for none.
    """

    steps: int
    batch: int = 16
    lr_size: int = 24
    learning_rate: float = 1e-3
    warmup: int = 200
    cooldown: int = 0
    schedule: str = "constant"
    elbo_from: int = 0
    rate_warmup: int = 0
    mean_weight: float = 60.0
    grad_clip: float = 1.0
    skip_above: float = math.inf
    give_up_after: int = 50
    ema_decay: float = 0.999
    weight_decay: float = 0.0
    beta2: float = 0.98
    degradation: str = "bicubic"
    fit: str = "crop"
    symmetries: str = "all"
    kl: str = "sum"
    likelihood_only: bool = False
    fine_layers: bool = False
    seed: int = 0
    adversarial: AdversarialConfig | None = None

    @property
    def is_ever_adversarial(self) -> bool:
        """Whether the run comes to the adversarial phase."""
        return self.adversarial is not None and self.adversarial.start < self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Actions beside the steps.

    Attributes:
        save_every, log_every, validate_every: steps; validate_every 0 is never.
        on_log: told each row of the log.
        validate: given the averaged model and the step, figures for the log.
        validates_start: whether a new run does so before its first step too.
        deadline: time of the monotonic clock at which the leg ends, or None.
        is_stopped: asked at each step whether to end the leg.
        on_step: told the step at which the leg begins, without figures, and each that is done with
            its own, still on the device; of several processes, that of the first.
    """

    save_every: int = 500
    log_every: int = 50
    on_log: Callable[[Row], None] = lambda row: None
    validate_every: int = 0
    validate: Callable[[nn.Module, int], Row] | None = None
    validates_start: bool = False
    deadline: float | None = None
    is_stopped: Callable[[], bool] = lambda: False
    on_step: Callable[[int, Mapping[str, Tensor]], None] = lambda step, figures: None


DEFAULTS: Mapping[str, Mapping[str, float | int | str]] = {
    "vdvae": {"steps": 20_000, "batch": 8, "lr_size": 32, "mean_weight": 30.0},
    "cvdvae": {
        "steps": 10_000,
        "batch": 8,
        "lr_size": 32,
        "learning_rate": 5e-4,
        "mean_weight": 0.0,
    },
    "vdvae-sr": {"steps": 20_000, "batch": 8},
    "srvae": {"steps": 20_000, "batch": 16, "lr_size": 16},
}
"""Hyper-parameters of each objective, where they are not :class:`TrainConfig`'s own."""

ON_PRIOR: Mapping[str, float | int | str] = {"lr_size": 32, "learning_rate": 5e-4}
"""Those of a VDVAE-SR on a pretrained prior, behind those of its objective."""

FINE_TUNING: Mapping[str, float | int | str] = {
    "steps": 1_000,
    "learning_rate": 2e-4,
    "warmup": 20,
    "cooldown": 500,
    "ema_decay": 0.99,
}
"""Those of a run that begins with finished weights, behind those of its objective."""

ADVERSARIAL: Mapping[str, float | int | str] = {
    "learning_rate": 3e-4,
    "mean_weight": 200.0,
    "ema_decay": 0.998,
}
"""Those of a run with the adversarial phase, behind the others."""


LIKELIHOOD_ONLY: Mapping[str, float | int | str] = {"learning_rate": 1e-3, "mean_weight": 0.0}
"""Those of a run that leaves the model's pictures as they are, behind the others."""


def config_for(
    objective: str,
    given: Mapping[str, float | int | str],
    *,
    on_prior: bool = False,
    fine_tuning: bool = False,
    shape: PublishedShape | None = None,
    adversarial: AdversarialConfig | None = None,
) -> TrainConfig:
    """The hyper-parameters of a run: what was given, else its objective's defaults.

    Args:
        objective: name of the objective.
        given: what was asked for.
        on_prior: whether a new model is built on a pretrained prior.
        fine_tuning: whether the run begins with finished weights.
        shape: of a model of the published shape, whose papers then decide; else None.
        adversarial: the phase in which samples are trained too, or None.

    Raises:
        UsageError: an unknown objective, one that ``elbo_from`` would leave nothing to train by,
            or a beta2 of 1.
    """
    if objective not in DEFAULTS:
        raise UsageError(f"unknown objective {objective!r}", hint=f"known: {', '.join(DEFAULTS)}")
    values = dict(DEFAULTS[objective])
    values |= ON_PRIOR if on_prior and objective == "vdvae-sr" else {}
    values |= FINE_TUNING if fine_tuning else {}
    values |= ADVERSARIAL if adversarial else {}
    values |= LIKELIHOOD_ONLY if given.get("likelihood_only") else {}
    values |= {} if shape is None else published_defaults(objective, shape)
    if given.get("elbo_from") and objective in ("vdvae", "cvdvae"):
        raise UsageError(
            f"vdsr train {objective} has no phase without the ELBO", hint="leave --elbo-from out"
        )
    if given.get("beta2") == 1:
        raise UsageError("--beta2 must be below 1: AdamW would never learn how large a gradient is")
    return TrainConfig(**{**values, **given}, adversarial=adversarial)  # type: ignore[arg-type]


def check_crop(
    lr_size: int, shapes: Sequence[LatentShape], scale: int, fixed: int | None = None
) -> None:
    """Raises UsageError where a crop is not of a model's ``fixed`` LR size, or the coarsest of its
    latents does not divide it."""
    if fixed not in (None, lr_size):
        raise UsageError(
            f"crops of {lr_size} LR pixels do not suit the model", hint=f"--lr-size must be {fixed}"
        )
    coarsest = max(shape.cell for shape in shapes)
    if lr_size * scale % coarsest:
        raise UsageError(
            f"crops of {lr_size} LR pixels do not suit the model",
            hint=f"--lr-size must be a multiple of {coarsest // scale}",
        )

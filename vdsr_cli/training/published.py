"""Hyper-parameters for models of the published shape: the papers' and released codes' figures.

    cvdvae      AdamW 1e-4, decay 0.01, betas (0.9, 0.999), batch 4, EMA 0.9999, no clipping
                (released code of Prost 2024; 48 hours on 4 GPUs)
    vdvae-sr    AdamW 1.5e-4 after 100 steps, decay 0.01, betas (0.9, 0.9), EMA 0.999, batch 1,
                100,000 steps; clipping and skipping of the prior's own training
                (released code of Chira 2022; its text has 5e-4)

Published norms are those of nats, ours of bits per dimension, so they are divided by ln 2. The ELBO
and the KL are the whole loss: the mean path's L1 is ours and off unless asked for. The priors know
whole, upright pictures, so each has its shorter side resized and its centre cropped, as the papers'
loaders do (torchvision's Resize and CenterCrop), and is mirrored at most.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vdsr_cli.models.vdvae_config import PUBLISHED, VDVAEConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedShape:
    """The shape that hyper-parameters depend on: the prior's network and the LR picture's side."""

    prior: VDVAEConfig
    lr_size: int


CLIP_AND_SKIP: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "cifar10": (200.0, 400.0),
        "imagenet32": (200.0, 300.0),
        "imagenet64": (220.0, 380.0),
        "ffhq256": (130.0, 180.0),
        "ffhq1024": (360.0, 500.0),
    }
)
"""Largest gradient norm, and the norm above which a step is skipped, in nats (Child 2021)."""

OTHER_CLIP_AND_SKIP = (200.0, 400.0)
"""Of a prior that none of them is: the published code's own defaults."""

Values = dict[str, float | int | str]


def published_defaults(objective: str, shape: PublishedShape) -> Values:
    """The entries of a :class:`~vdsr_cli.training.config.TrainConfig` that the papers decide."""
    common: Values = {"lr_size": shape.lr_size, "mean_weight": 0.0, "weight_decay": 0.01}
    common |= {"warmup": 100, "cooldown": 0, "steps": 100_000, "symmetries": "mirror"}
    common |= {"fit": "whole"}
    if objective == "cvdvae":
        own: Values = {"batch": 4, "learning_rate": 1e-4, "beta2": 0.999, "ema_decay": 0.9999}
        return common | own | {"grad_clip": math.inf}
    clip, skip = (nats / math.log(2) for nats in _clip_and_skip(shape.prior))
    own = {"batch": 1, "learning_rate": 1.5e-4, "beta2": 0.9, "ema_decay": 0.999}
    return common | own | {"grad_clip": clip, "skip_above": skip}


def _clip_and_skip(prior: VDVAEConfig) -> tuple[float, float]:
    named = (CLIP_AND_SKIP[name] for name, config in PUBLISHED.items() if config == prior)
    return next(named, OTHER_CLIP_AND_SKIP)

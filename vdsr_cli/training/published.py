"""Hyper-parameters for models of the published shape: the papers' and released codes' figures.

    cvdvae      AdamW 1e-4, decay 0.01, betas (0.9, 0.999), batch 4, EMA 0.9999, no clipping
                (released code of Prost 2024; 48 hours on 4 GPUs)
    vdvae       AdamW after 100 steps, decay 0.01, betas (0.9, 0.9), pictures as they are; the rest
                in PRIOR_TRAININGS (released code of Child 2021)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorTraining:
    """How the released code trains a prior (Child 2021); the defaults are its own.

    Attributes:
        steps: as many as its published file has.
        batch: pictures a GPU, of which there were 2 for cifar10 and 32 for the others.
        clip: largest gradient norm, in nats.
        skip: gradient norm above which a step is skipped, in nats.
    """

    steps: int = 1_000_000
    batch: int = 8
    learning_rate: float = 1.5e-4
    ema_decay: float = 0.999
    clip: float = 200.0
    skip: float = 400.0


PRIOR_TRAININGS: Mapping[str, PriorTraining] = MappingProxyType(
    {
        "cifar10": PriorTraining(
            steps=1_050_000, batch=16, learning_rate=2e-4, ema_decay=0.9999, clip=200, skip=400
        ),
        "imagenet32": PriorTraining(steps=1_700_000, batch=8, clip=200, skip=300),
        "imagenet64": PriorTraining(steps=1_600_000, batch=4, clip=220, skip=380),
        "ffhq256": PriorTraining(steps=1_700_000, batch=1, clip=130, skip=180),
        "ffhq1024": PriorTraining(steps=1_700_000, batch=1, learning_rate=7e-5, clip=360, skip=500),
    }
)

Values = dict[str, float | int | str]


def published_defaults(objective: str, shape: PublishedShape) -> Values:
    """The entries of a :class:`~vdsr_cli.training.config.TrainConfig` that the papers decide."""
    common: Values = {"lr_size": shape.lr_size, "mean_weight": 0.0, "weight_decay": 0.01}
    common |= {"warmup": 100, "cooldown": 0, "steps": 100_000, "fit": "whole"}
    if objective == "cvdvae":
        own: Values = {"batch": 4, "learning_rate": 1e-4, "beta2": 0.999, "ema_decay": 0.9999}
        return common | own | {"grad_clip": math.inf, "symmetries": "mirror"}
    # The released code's defaults for a prior that none of the published ones is.
    named = (PRIOR_TRAININGS[name] for name, own in PUBLISHED.items() if own == shape.prior)
    prior = next(named, PriorTraining())
    common |= {
        "beta2": 0.9,
        "grad_clip": prior.clip / math.log(2),
        "skip_above": prior.skip / math.log(2),
    }
    if objective == "vdvae":
        own = {"steps": prior.steps, "batch": prior.batch, "learning_rate": prior.learning_rate}
        return common | own | {"ema_decay": prior.ema_decay, "symmetries": "none"}
    own = {"batch": 1, "learning_rate": 1.5e-4, "ema_decay": 0.999, "symmetries": "mirror"}
    return common | own

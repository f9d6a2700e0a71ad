"""Training of CNN-VAE: its objective in bits a pixel, and a trainer that turns alpha.

    alpha BCE(hr, decode(z)) + (1 - alpha) BCE(lr, z)  [+ weight BCE(hr, decode(lr))]

(Weatherly, eqs. 9 to 11.) Equation 12 is printed as ``-sum x_i + log x_j``; the binary cross
entropy that it names is ``-x_i log x_j - (1 - x_i) log(1 - x_j)``. The last term is ours: it trains
the decoder on what super-resolution gives it. The mean over pixels is taken of each term, so that
alpha weighs pictures of different sizes alike.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.models.cnn_vae import CNNVAE, LR_SIZE
from vdsr_cli.training.config import Row, TrainConfig
from vdsr_cli.training.loop import Trainer
from vdsr_cli.training.objectives import Losses, to_unit_range

PROBABILITY_MARGIN = 1e-4
"""How far from 0 and 1 a latent pixel counts as being: BCE is infinite there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CNNVAETrainConfig(TrainConfig):
    """Hyper-parameters of a CNN-VAE's run, those of :class:`TrainConfig` and:

    Attributes:
        alpha: weight of the reconstruction, against 1 - alpha of the latent picture.
        late_alpha: the same in the last steps.
        late_steps: how many steps those are.
        sr_weight: weight of the decoder's BCE on the LR picture itself.
    """

    lr_size: int = LR_SIZE
    degradation: str = "mean"
    alpha: float = 0.75
    late_alpha: float = 0.25
    late_steps: int = 500
    sr_weight: float = 0.0


def default_config(reading: str, **given: float | int) -> CNNVAETrainConfig:
    """The configuration of a run of a reading, behind the fields that were given.

    The paper's: 2,500 batches of 100 at alpha 0.75 and 500 at 0.25, Adam at 5e-6. The corrected
    one's rate is several hundred times as large: at the paper's, 3,000 steps hardly move.
    """
    paper = {"steps": 3_000, "batch": 100, "learning_rate": 5e-6, "warmup": 0}
    paper |= {"ema_decay": 0.0, "beta2": 0.999, "grad_clip": math.inf}
    corrected = {"steps": 6_000, "batch": 64, "learning_rate": 2e-3, "warmup": 100}
    corrected |= {"cooldown": 3_000, "sr_weight": 1.0}
    defaults = paper if reading == "paper" else corrected
    return CNNVAETrainConfig(**{**defaults, **given})  # type: ignore[arg-type]


def cnn_vae_losses(
    model: CNNVAE, hr: Tensor, lr: Tensor, zeta: Tensor, *, alpha: float, sr_weight: float
) -> Losses:
    """The objective in bits a pixel: the sum, and its parts before they are weighted.

    Args:
        hr: (B, 1, 28, 28) uint8.
        lr: (B, 1, 14, 14) uint8.
        zeta: (B, 1, 14, 14) standard normals.
        alpha, sr_weight: see the module.
    """
    target, lr_unit = to_unit_range(hr), to_unit_range(lr)
    z = model.draw(model.encode(target), zeta)
    reconstruction = _bits(F.binary_cross_entropy_with_logits(model.decode_logits(z), target))
    latent = _bits(cross_entropy(lr_unit, z))
    loss, sr = alpha * reconstruction + (1 - alpha) * latent, latent.new_zeros(())
    if sr_weight:
        logits = model.decode_logits(lr_unit)
        sr = _bits(F.binary_cross_entropy_with_logits(logits, target))
        loss = loss + sr_weight * sr
    return Losses(loss, reconstruction, latent, sr)


def cross_entropy(target: Tensor, probability: Tensor) -> Tensor:
    """The mean BCE in nats a pixel; a probability outside the margins counts as on them."""
    inside = probability.clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return -(target * inside.log() + (1 - target) * torch.log1p(-inside)).mean()


def _bits(nats: Tensor) -> Tensor:
    return nats / math.log(2)


class CNNVAETrainer(Trainer):
    """The training loop with CNN-VAE's objective; rows of its log say what its terms are."""

    def _objective(self, hr: Tensor, lr: Tensor, noise: list[Tensor] | None) -> Losses:
        config, model = cast(CNNVAETrainConfig, self.config), cast(CNNVAE, self.model)
        assert noise is not None, "CNN-VAE has no phase without its latents"
        is_late = self.step >= config.steps - config.late_steps
        alpha = config.late_alpha if is_late else config.alpha
        return cnn_vae_losses(model, hr, lr, noise[0], alpha=alpha, sr_weight=config.sr_weight)

    def _row(self, means: dict[str, Tensor], norm: Tensor) -> Row:
        row = super()._row(means, norm)
        row["reconstruction_bits"] = row.pop("distortion_bits")
        row["latent_bits"], row["sr_bits"] = row.pop("rate_bits"), row.pop("mean_l1")
        return row

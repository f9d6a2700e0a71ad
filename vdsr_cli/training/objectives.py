"""The objectives that are minimised, in bits per dimension of the HR picture.

    vdvae     distortion + rate                              the prior p(hr), Child 2021
              + weight * L1 with the layers finer than the LR picture at their means
    cvdvae    sum over i < k of KL(q(z_i | hr) || q(z_i | lr))    Prost 2024, eq. 14
    vdvae-sr  distortion + rate, given lr                    Chira 2022, eq. 11
              + weight * L1 of the mean path on [-1, 1]
    srvae     distortion + rate of hr and lr together        Gatopoulos 2020, eq. 6
              + weight * L1 of the mean path on [-1, 1]

The L1 term trains what temperature 0 shows, the picture at the prior's means, of which the ELBO
says nothing. Of a prior it also brings the LR picture into the layers that a CVDVAE conditions.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vdsr_cli.errors import UsageError
from vdsr_cli.models.compact import CompactVDVAESR
from vdsr_cli.models.compact_prior import CompactCVDVAE, CompactVDVAE
from vdsr_cli.models.cvdvae import CVDVAE
from vdsr_cli.models.protocol import Elbo, NoiseSource
from vdsr_cli.models.registry import architecture_of
from vdsr_cli.models.srvae import SRVAE
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.models.vdvae_sr import VDVAESR


@dataclass(slots=True)
class Losses:
    """One step's figures, still on the device: bits per dimension, the mean path's L1, and the
    terms of the adversarial phase by their names in the log. Bits of no ELBO are not told there."""

    loss: Tensor
    distortion: Tensor
    rate: Tensor
    mean_l1: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    has_elbo: bool = True

    @property
    def figures(self) -> dict[str, Tensor]:
        """Every figure by its name in the log, without what it was computed from."""
        bits = {"distortion_bits": self.distortion, "rate_bits": self.rate}
        named = {
            "loss": self.loss,
            **(bits if self.has_elbo else {}),
            "mean_l1": self.mean_l1,
            **self.terms,
        }
        return {name: figure.detach().float() for name, figure in named.items()}


Objective = Callable[[Any, Tensor, Tensor, NoiseSource | None, float], Losses]
"""``(model, hr, lr, noise, mean_weight) -> Losses`` with hr, lr uint8 (B, 3, ., .)."""


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1]."""
    return pixels.float() / 255


def vdvae_sr_losses(
    model: CompactVDVAESR | VDVAESR | SRVAE,
    hr: Tensor,
    lr: Tensor,
    noise: NoiseSource | None,
    mean_weight: float,
) -> Losses:
    """The objective of VDVAE-SR: the negative ELBO in bits per dimension plus the mean path's L1.

    Args:
        hr: (B, 3, H, W) uint8.
        lr: (B, 3, h, w) uint8.
        noise: posterior noise, or None to train the mean path alone.
    """
    if isinstance(model, VDVAESR):
        return published_vdvae_sr_losses(model, hr, lr, noise, mean_weight)
    target, lr_unit = to_unit_range(hr) * 2 - 1, to_unit_range(lr)
    if noise is None:
        return _mean_path_only(model.mean_path(lr_unit), target, mean_weight)
    elbo, mean_path = model.elbo_and_mean(target, lr_unit, noise)
    mean_l1 = (mean_path - target).abs().mean()
    return _from_elbo(elbo, target, mean_weight, mean_l1)


def published_vdvae_sr_losses(
    model: VDVAESR, hr: Tensor, lr: Tensor, noise: NoiseSource | None, mean_weight: float
) -> Losses:
    """:func:`vdvae_sr_losses` of a model of the published shape; the mean path only where its
    weight is not zero."""
    hr_unit, lr_unit = to_unit_range(hr), to_unit_range(lr)
    target = hr_unit * 2 - 1
    if noise is None:
        return _mean_path_only(model.mean_path(lr_unit), target, mean_weight)
    mean_l1 = target.new_zeros(())
    if mean_weight:
        mean_l1 = (model.mean_path(lr_unit) - target).abs().mean()
    return _from_elbo(model(hr_unit, lr_unit, noise), target, mean_weight, mean_l1)


def vdvae_losses(
    model: CompactVDVAE | VDVAE,
    hr: Tensor,
    lr: Tensor,
    noise: NoiseSource | None,
    mean_weight: float,
) -> Losses:
    """The objective of the unconditional prior: its negative ELBO and, of a compact one, the L1
    of :meth:`CompactVDVAE.elbo_and_mean`; ``lr`` is not looked at."""
    if noise is None:
        raise UsageError("an unconditional prior has no phase without the ELBO")
    hr_unit = to_unit_range(hr)
    if mean_weight and isinstance(model, CompactVDVAE):
        elbo, mean_path = model.elbo_and_mean(hr_unit, noise)
        return _from_elbo(elbo, hr, mean_weight, (mean_path - (2 * hr_unit - 1)).abs().mean())
    return _from_elbo(model(hr_unit, noise), hr, 0.0, hr.new_zeros((), dtype=torch.float32))


def cvdvae_losses(
    model: CompactCVDVAE | CVDVAE,
    hr: Tensor,
    lr: Tensor,
    noise: NoiseSource | None,
    mean_weight: float,
    *,
    kl: str = "sum",
) -> Losses:
    """The objective of CVDVAE: the summed KL of the conditioned layers, as ``rate``.

    With ``kl`` "mean", a layer weighs in the loss by the mean over its dimensions, as in the
    released code; ``rate`` stays what it is.
    """
    hr_unit, lr_unit = to_unit_range(hr), to_unit_range(lr)
    divergence = rate = mean_l1 = zero = hr_unit.new_zeros(())
    if noise is not None:
        latent_kl = model(hr_unit, lr_unit, noise)
        rate = latent_kl.total.mean() * _bits_per_dimension(hr)
        divergence = rate if kl == "sum" else latent_kl.mean_weighted.mean() / math.log(2)
    if mean_weight and isinstance(model, CompactCVDVAE):
        mean_l1 = (model.mean_path(lr_unit) - (hr_unit * 2 - 1)).abs().mean()
    return Losses(divergence + mean_weight * mean_l1, zero, rate, mean_l1)


_OBJECTIVES: Mapping[str | None, Objective] = {
    "vdvae": vdvae_losses,
    "vdvae-sr": vdvae_sr_losses,
    "srvae": vdvae_sr_losses,
}
"""By the name that the models' registry gives them; srVAE's distortion is that of hr and of lr."""


def objective_of(model: nn.Module, *, kl: str = "sum") -> Objective:
    """The objective that a model is trained on; ``kl`` as in :func:`cvdvae_losses`."""
    kind = architecture_of(model)
    if kind.objective == "cvdvae":
        return partial(cvdvae_losses, kl=kl)
    return vdvae_losses if kind.is_prior else _OBJECTIVES[kind.objective]


def _mean_path_only(mean_path: Tensor, target: Tensor, mean_weight: float) -> Losses:
    mean_l1 = (mean_path - target).abs().mean()
    zero = mean_l1.new_zeros(())
    return Losses(mean_weight * mean_l1, zero, zero, mean_l1)


def _from_elbo(elbo: Elbo, hr: Tensor, mean_weight: float, mean_l1: Tensor) -> Losses:
    per_dimension = _bits_per_dimension(hr)
    distortion = elbo.distortion.mean() * per_dimension
    rate = elbo.rate.sum(0).mean() * per_dimension
    return Losses(distortion + rate + mean_weight * mean_l1, distortion, rate, mean_l1)


def _bits_per_dimension(hr: Tensor) -> float:
    """One nat per picture (B, 3, H, W) in bits per dimension."""
    return 1 / (hr[0].numel() * math.log(2))

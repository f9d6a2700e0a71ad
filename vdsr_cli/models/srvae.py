"""srVAE (Gatopoulos 2020): a VAE of a picture and of its own LR version.

    p(hr, lr, z, u) = p(hr | lr, z) p(z | lr, u) p(lr | u) p(u)
    q(z, u | hr)    = q(z | hr) q(u | lr),  lr = d(hr)

    u ──► lr ──┐          u and z are (B, 16, H / 4, W / 4) for hr (B, 3, H, W) and scale 2;
    │     │    ▼          p(u) is a RealNVP, a mixture of Gaussians, or N(0, I);
    └──► z ──► hr         pixels are mixtures of discretised logistics.

The networks are the published ones, with the published tensor names: the default configuration has
39,272,570 parameters. What is done otherwise, and why:

- d is the product's own antialiased bicubic reduction, not Pillow's bilinear one.
- Operations draw, or take means; the published code takes the most likely component's mean.
- The KL of z is exact given u, where the published code has one draw of it: the same bound with
  less noise.
- Training is that of the other models: AdamW, an average of the weights, and the L1 of the mean
  path; the paper's is Adamax at 2e-3 for 2,000 epochs.
- ``residual_unit`` lets the likelihood of hr describe what the bicubic picture lacks. No tensor
  changes; the small model starts at the bicubic picture instead of at grey.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.config import Temperature
from vdsr_cli.models.distributions import gaussian_kl, gaussian_sample
from vdsr_cli.models.dmol import CHANNELS_PER_COMPONENT, dmol_mean, dmol_nll, split_mixture
from vdsr_cli.models.protocol import Elbo, LatentShape, NoiseSource, temperature_at
from vdsr_cli.models.realnvp import (
    LatentPrior,
    MixtureOfGaussians,
    RealNVP,
    StandardNormal,
    gaussian_log_prob,
)
from vdsr_cli.models.sampling import AnySizeSampling
from vdsr_cli.models.srvae_config import LATENT_CELL, FlowVAEConfig, SRVAEConfig
from vdsr_cli.models.srvae_layers import Core, dense_decoder, dense_encoder, dense_network

SCALE = 2
MIN_LOG_SCALE = -7.0
LOG_VARIANCE_BOUND = 7.0

RESIDUAL_LOG_SCALE = -3.0
"""Log scale of a residual likelihood where the network says 0: a deviation of 23 grey levels."""

MAX_RESIDUAL_LOG_SCALE = 2.0
"""Upper bound of it. Beyond, a logistic is flat from black to white and its mean cancels in
float32; the mean path alone does not keep a network from going there."""

PixelDraw = Callable[[Tensor], Tensor]
"""From mixture parameters (B, 10 K, H, W) to a picture in [-1, 1]: its mean, or a draw."""


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A diagonal Gaussian of a batch; float32, (B, C, h, w) each."""

    mean: Tensor
    log_std: Tensor

    @classmethod
    def of(cls, parameters: Tensor) -> "Gaussian":
        """From means and log variances one after the other; these are kept within 7 of zero."""
        mean, log_variance = parameters.float().chunk(2, dim=1)
        bound = LOG_VARIANCE_BOUND
        return cls(mean, 0.5 * F.hardtanh(log_variance, -bound, bound))

    def sample(self, epsilon: Tensor | None, temperature: float = 1.0) -> Tensor:
        """The mean where epsilon is None."""
        return gaussian_sample(self.mean, self.log_std, epsilon, temperature)

    def log_prob(self, x: Tensor) -> Tensor:
        """(B,) nats."""
        return gaussian_log_prob(x, self.mean, self.log_std).flatten(1).sum(1)


@dataclass(frozen=True, slots=True)
class Bound:
    """The parts of the ELBO (Gatopoulos 2020, eq. 6), each (B,) in nats per picture.

    Attributes:
        nll_x, nll_y: -log p(hr | lr, z) and -log p(lr | u), the paper's -RE.
        kl_z, kl_u: divergences; that of u from one draw, so it can be negative.
        log_weight: log p(hr, lr, z, u) - log q(z, u | hr) at the draw, for importance weighting.
    """

    nll_x: Tensor
    nll_y: Tensor
    kl_z: Tensor
    kl_u: Tensor
    log_weight: Tensor


@runtime_checkable
class Autoencoder(Protocol):
    """A VAE of pictures of one small size: srVAE, or the one it is compared with."""

    @property
    def config(self) -> SRVAEConfig | FlowVAEConfig:
        """The architecture's numbers."""

    def bound(self, hr: Tensor, lr: Tensor, noise: NoiseSource) -> Bound:
        """The ELBO's parts; hr and lr in [0, 1], on the 256 grey levels."""

    def reconstruct(
        self, hr: Tensor, lr: Tensor, noise: NoiseSource | None, temperature: float
    ) -> Tensor:
        """hr from its own code -> parameters of its likelihood (B, 10 K, H, W)."""

    def codes(self, hr: Tensor, lr: Tensor) -> tuple[Tensor, ...]:
        """The posterior's means, between which pictures are interpolated."""

    def decode(self, codes: tuple[Tensor, ...], draw: PixelDraw) -> Tensor:
        """Codes -> parameters of hr's likelihood (B, 10 K, H, W)."""


class _PriorOfZ(nn.Module):
    """p(z | lr, u)."""

    def __init__(self, config: SRVAEConfig) -> None:
        super().__init__()
        channels = config.latent_channels
        self.y_nn = nn.Sequential(dense_encoder(3, channels, config.p_z_y), nn.ELU())
        self.u_nn = nn.Sequential(dense_network(channels, channels, config.p_z_u))
        self.core_nn = nn.Sequential(dense_network(2 * channels, 2 * channels, config.p_z))

    def forward(self, lr: Tensor, u: Tensor) -> Tensor:
        joined = torch.cat([self.y_nn(lr), self.u_nn(u)], dim=1)
        y: Tensor = self.core_nn(joined)
        return y


class _LikelihoodOfX(nn.Module):
    """p(hr | lr, z)."""

    def __init__(self, config: SRVAEConfig) -> None:
        super().__init__()
        outputs = CHANNELS_PER_COMPONENT * config.components
        self.z_nn = nn.Sequential(dense_decoder(config.latent_channels, outputs, config.p_x_z))
        self.core_nn = nn.Sequential(dense_network(3 + outputs, outputs, config.p_x))

    def forward(self, lr: Tensor, z: Tensor) -> Tensor:
        large = F.interpolate(lr, scale_factor=SCALE, mode="bilinear", align_corners=False)
        of_z = self.z_nn(z)
        y: Tensor = self.core_nn(torch.cat([large.to(of_z.dtype), of_z], dim=1))
        return y


class SRVAE(AnySizeSampling, nn.Module):
    """The model. Pictures are (B, 3, H, W) and (B, 3, H / 2, W / 2) in [0, 1]; for the prior of u
    H and W are multiples of 8, for super-resolution 4 is enough."""

    def __init__(self, config: SRVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.is_rate_drawn = False
        channels, moments = config.latent_channels, 2 * config.latent_channels
        outputs = CHANNELS_PER_COMPONENT * config.components
        self.p_u = _prior_of_u(config)
        self.q_u = Core(dense_encoder(3, moments, config.q_u))
        self.p_z = _PriorOfZ(config)
        self.q_z = Core(dense_encoder(3, moments, config.q_z))
        self.p_y = Core(dense_decoder(channels, outputs, config.p_y))
        self.p_x = _LikelihoodOfX(config)

    def select_trainable(self) -> None:
        """Freezes what the paper fixes: the weights of a mixture prior."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name != "p_u.pi")

    @property
    def scale(self) -> int:
        """Super-resolution factor."""
        return SCALE

    @property
    def lr_multiple(self) -> int:
        """Sides of LR pictures are multiples of it: those of u are even, for the flow."""
        return 2 * LATENT_CELL // SCALE

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """u, then z."""
        return [LatentShape(layer, self.config.latent_channels, LATENT_CELL) for layer in (0, 1)]

    @property
    def u_shape(self) -> LatentShape:
        """Shape of the latent u."""
        return self.latent_shapes[0]

    @property
    def z_shape(self) -> LatentShape:
        """Shape of the latent z."""
        return self.latent_shapes[1]

    def _seen(self, tensor: Tensor) -> Tensor:
        """In the dtype of the networks' parameters."""
        return tensor.to(next(self.q_u.parameters()).dtype)

    def posterior_u(self, lr: Tensor) -> Gaussian:
        """q(u | lr)."""
        return Gaussian.of(self.q_u(self._seen(lr)))

    def posterior_z(self, hr: Tensor) -> Gaussian:
        """q(z | hr)."""
        return Gaussian.of(self.q_z(self._seen(hr)))

    def prior_z(self, lr: Tensor, u: Tensor) -> Gaussian:
        """p(z | lr, u)."""
        return Gaussian.of(self.p_z(self._seen(lr), self._seen(u)))

    def lr_parameters(self, u: Tensor) -> Tensor:
        """Parameters of p(lr | u), (B, 10 K, h, w), for :mod:`vdsr_cli.models.dmol`."""
        return to_dmol(self.p_y(u))

    def hr_parameters(self, lr: Tensor, z: Tensor) -> Tensor:
        """Parameters of p(hr | lr, z), (B, 10 K, H, W), for :mod:`vdsr_cli.models.dmol`."""
        unit, parameters = self.config.residual_unit, self.p_x(self._seen(lr), self._seen(z))
        if unit is None:
            return to_dmol(parameters)
        return to_dmol(parameters, enlarged(lr), unit)

    def bound(self, hr: Tensor, lr: Tensor, noise: NoiseSource) -> Bound:
        """The ELBO's parts at one draw of u and z; hr and lr are on the 256 grey levels."""
        q_u, q_z = self.posterior_u(lr), self.posterior_z(hr)
        u, z = q_u.sample(noise(self.u_shape)), q_z.sample(noise(self.z_shape))
        p_z = self.prior_z(lr, u)
        nll_x = dmol_nll(2 * hr - 1, self.hr_parameters(lr, z))
        nll_y = dmol_nll(2 * lr - 1, self.lr_parameters(u))
        kl_u = q_u.log_prob(u) - cast(LatentPrior, self.p_u).log_prob(u)
        drawn_kl_z = q_z.log_prob(z) - p_z.log_prob(z)
        kl_z = (
            drawn_kl_z
            if self.is_rate_drawn
            else gaussian_kl(q_z.mean, q_z.log_std, p_z.mean, p_z.log_std).sum(dim=(1, 2, 3))
        )
        return Bound(nll_x, nll_y, kl_z, kl_u, -(nll_x + nll_y + drawn_kl_z + kl_u))

    def elbo_and_mean(self, hr: Tensor, lr: Tensor, noise: NoiseSource) -> tuple[Elbo, Tensor]:
        """One training pass: the bound, and the mean path's picture (B, 3, H, W) in [-1, 1].

        As for the other models hr is in [-1, 1] here, lr in [0, 1].
        """
        bound = self.bound((hr + 1) / 2, lr, noise)
        elbo = Elbo(bound.nll_x + bound.nll_y, torch.stack([bound.kl_u, bound.kl_z]))
        return elbo, self.mean_path(lr)

    def mean_path(self, lr: Tensor) -> Tensor:
        """Super-resolution at the means of u, z and the likelihood: (B, 3, H, W) in [-1, 1]."""
        return dmol_mean(self.super_resolve(lr, None, 0.0))

    def super_resolve(self, lr: Tensor, noise: NoiseSource | None, temperature: float) -> Tensor:
        """u ~ q(u | lr), z ~ p(z | lr, u) -> parameters of hr's likelihood (B, 10 K, H, W)."""
        u = self.posterior_u(lr).sample(noise and noise(self.u_shape), temperature)
        z = self.prior_z(lr, u).sample(noise and noise(self.z_shape), temperature)
        return self.hr_parameters(lr, z)

    def reconstruct(
        self, hr: Tensor, lr: Tensor, noise: NoiseSource | None, temperature: float
    ) -> Tensor:
        """z ~ q(z | hr), and lr itself -> parameters of hr's likelihood (B, 10 K, H, W)."""
        z = self.posterior_z(hr).sample(noise and noise(self.z_shape), temperature)
        return self.hr_parameters(lr, z)

    def generate(
        self, noise: NoiseSource, choice: Tensor, temperature: float, draw: PixelDraw
    ) -> tuple[Tensor, Tensor]:
        """u ~ p(u), lr ~ p(lr | u), z ~ p(z | lr, u).

        Args:
            noise: standard normals of u and z.
            choice: uniforms (B,), for a mixture's component.
            temperature: factor on the deviation of the prior's own noise and of z.
            draw: how lr comes out of its likelihood; z is drawn given the 8-bit picture.

        Returns:
            lr (B, 3, h, w) in [0, 1] and the parameters of hr's likelihood.
        """
        u = cast(LatentPrior, self.p_u).sample(temperature * noise(self.u_shape), choice)
        return self._from_u(u, noise, temperature, draw)

    def codes(self, hr: Tensor, lr: Tensor) -> tuple[Tensor, ...]:
        """The means of q(u | lr) and q(z | hr)."""
        return self.posterior_u(lr).mean, self.posterior_z(hr).mean

    def decode(self, codes: tuple[Tensor, ...], draw: PixelDraw) -> Tensor:
        """Codes u and z -> lr ~ p(lr | u) -> parameters of p(hr | lr, z), (B, 10 K, H, W)."""
        u, z = codes
        return self.hr_parameters(on_levels((draw(self.lr_parameters(u)) + 1) / 2), z)

    def reconstruct_generatively(
        self, lr: Tensor, noise: NoiseSource, temperature: float, draw: PixelDraw
    ) -> tuple[Tensor, Tensor]:
        """u ~ q(u | lr), lr' ~ p(lr | u), z ~ p(z | lr', u): otherwise as :meth:`generate`."""
        u = self.posterior_u(lr).sample(noise(self.u_shape), temperature)
        return self._from_u(u, noise, temperature, draw)

    def _from_u(
        self, u: Tensor, noise: NoiseSource, temperature: float, draw: PixelDraw
    ) -> tuple[Tensor, Tensor]:
        lr = on_levels((draw(self.lr_parameters(u)) + 1) / 2)
        z = self.prior_z(lr, u).sample(noise(self.z_shape), temperature)
        return lr, self.hr_parameters(lr, z)

    def sample(
        self, lr: Tensor, noise: NoiseSource | None, temperature: Temperature, *, repeats: int = 1
    ) -> Tensor:
        """Super-resolution as the engine of ``vdsr upscale`` takes it.

        The mixture is summed up as one logistic a colour: its mean, and the scale of its most
        likely component.

        Returns:
            (B * repeats, 6, H, W) float32, the samples of one picture side by side: mean of the
            pixels in [-1, 1] and log scale.
        """
        factor = temperature_at(temperature, self.z_shape)
        parameters = self.super_resolve(lr.repeat_interleave(repeats, 0), noise, factor)
        mixture = split_mixture(parameters)
        likely = mixture.logits.argmax(dim=1)[:, None, None]
        log_scale = torch.take_along_dim(mixture.log_scale, likely, dim=2).squeeze(2)
        return torch.cat([dmol_mean(parameters), log_scale], dim=1)


def enlarged(lr: Tensor) -> Tensor:
    """The bicubic picture of a residual likelihood: [0, 1] -> (B, 3, H, W) in about [-1, 1]."""
    padded = F.pad(lr.float(), (2, 2, 2, 2), mode="replicate")
    large = F.interpolate(
        padded, scale_factor=SCALE, mode="bicubic", antialias=True, align_corners=False
    )
    edge = 2 * SCALE
    return 2 * large[:, :, edge:-edge, edge:-edge] - 1


def on_levels(unit: Tensor) -> Tensor:
    """A picture rounded to the 256 grey levels of [0, 1]."""
    return unit.clamp(0, 1).mul(255).round() / 255


def to_dmol(parameters: Tensor, base: Tensor | None = None, unit: float = 1.0) -> Tensor:
    """srVAE's mixture parameters -> those of :mod:`vdsr_cli.models.dmol`, float32.

    srVAE's pixels are in [0, 1], and its channels are K logits, then means, log scales and
    coefficients of 3 K channels each, (component, colour) with the colour fastest. On [-1, 1] a
    location m + c r of r in [0, 1] is (2 m - 1 + c) + c r'. With a ``base`` b in [-1, 1] all three
    colours are differences from it: 2 unit m + b - c b of the colour depended on; the published
    likelihood is that of a base of -1, black. With a base the log scales start at
    :data:`RESIDUAL_LOG_SCALE`.

    Args:
        parameters: (B, 10 K, H, W).
        base: (B, 3, H, W) in [-1, 1], or None.
        unit: factor on the means m.
    """
    parameters = parameters.float()
    components = parameters.shape[1] // CHANNELS_PER_COMPONENT
    logits = parameters[:, :components]
    batch, _, height, width = parameters.shape
    parts = parameters[:, components:].reshape(batch, 3, components, 3, height, width)
    mean, log_scale, coefficient = parts.transpose(2, 3).unbind(1)
    if base is not None:
        log_scale = (log_scale + RESIDUAL_LOG_SCALE).clamp(max=MAX_RESIDUAL_LOG_SCALE)
    log_scale = log_scale.clamp(min=MIN_LOG_SCALE) + math.log(2)
    red, green, blue = (-1.0,) * 3 if base is None else base.unsqueeze(2).unbind(1)
    on_red, blue_on_red, blue_on_green = torch.tanh(coefficient).unbind(1)
    location = 2 * unit * mean + torch.stack(
        [
            torch.zeros_like(on_red) + red,
            green - on_red * red,
            blue - blue_on_red * red - blue_on_green * green,
        ],
        dim=1,
    )
    by_colour = torch.stack([location, log_scale, coefficient], dim=2)
    return torch.cat([logits, by_colour.flatten(1, 3)], dim=1)


def _prior_of_u(config: SRVAEConfig) -> nn.Module:
    if config.prior == "realnvp":
        return RealNVP(config.latent_channels, config.flow)
    if config.prior == "mixture":
        cells = (config.hr_size // LATENT_CELL) ** 2
        return MixtureOfGaussians(config.mixture_components, config.latent_channels * cells)
    return StandardNormal()

"""CVDVAE: an LR encoder into the latents of a frozen VDVAE (Prost 2024).

    lr ─► encoder_y ─► activations_y[resolution]
                          ▼
    x ──┬─► enc_y(x, activation_y) ─► q(z_i | z_<i, lr)     blocks i < k, equation 12
        └─► prior ─► residual, p(z_i | z_<i)                blocks i >= k draw from it

    sample:  z_<k ~ q(. | lr), then z_>=k and the pixels from the prior               (10)
    train:   sum_{i<k} KL(q(z_i | z_<i, hr) || q(z_i | z_<i, lr)), z_<k ~ q(. | hr)   (13), (14)

Only ``encoder_y`` and the heads ``enc_y`` train; no gradient flows through the frozen trunk. The
published names of the state dict are kept, ``y`` for the LR picture included. What the paper calls
k is ``ky`` in the released code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from vdsr_cli.config import Temperature
from vdsr_cli.models.blocks import TopDownBlock
from vdsr_cli.models.protocol import LatentShape, NoiseSource, temperature_at
from vdsr_cli.models.sampling import FixedSizeSampling
from vdsr_cli.models.vdvae import (
    VDVAE,
    Decoder,
    Encoder,
    EncoderConfig,
    VDVAEConfig,
    load_prior,
    noise_at,
    set_trainable,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CVDVAEConfig:
    """A CVDVAE; names of fields are the released code's.

    Attributes:
        prior: the frozen VDVAE.
        image_size_y: side of the LR picture.
        enc_blocks_y: layer string of ``encoder_y``, from ``image_size_y`` down.
        ky: how many of the first blocks are conditioned on the LR picture; all of them must work
            at resolutions of ``encoder_y``.
        width_y, custom_width_str_y: channels of ``encoder_y``; must equal the prior's at every
            conditioned resolution.
    """

    prior: VDVAEConfig
    image_size_y: int
    enc_blocks_y: str
    ky: int
    width_y: int = 512
    custom_width_str_y: str = ""

    def __post_init__(self) -> None:
        layers = self.prior.decoder_layers
        if not 1 <= self.ky <= len(layers):
            raise ValueError(f"ky must be within 1..{len(layers)}, got {self.ky}")
        encoder = self.encoder_y
        for resolution in {layer.resolution for layer in layers[: self.ky]}:
            if resolution not in encoder.resolutions:
                raise ValueError(f"ky = {self.ky} conditions blocks at {resolution}, unseen by lr")
            if encoder.width_at(resolution) != self.prior.width_at(resolution):
                raise ValueError(f"encoder_y and prior differ in width at {resolution}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``; raises TypeError on unknown or missing names."""
        return cls(**{**values, "prior": VDVAEConfig(**values["prior"])})

    @property
    def scale(self) -> int:
        """Super-resolution factor."""
        return self.prior.image_size // self.image_size_y

    @property
    def encoder_y(self) -> EncoderConfig:
        """The LR encoder; it normalises by the prior's constants, as the released code does."""
        return replace(
            self.prior.encoder,
            image_size=self.image_size_y,
            enc_blocks=self.enc_blocks_y,
            width=self.width_y,
            custom_width_str=self.custom_width_str_y,
        )


@dataclass(frozen=True, slots=True)
class LatentKL:
    """KL(q(z | hr) || q(z | lr)) of the conditioned blocks of one batch.

    Attributes:
        kl: (k, B) nats per picture, summed over each block's dimensions.
        dimensions: (k,) how many those are, zdim r^2.
    """

    kl: Tensor
    dimensions: Tensor

    @property
    def total(self) -> Tensor:
        """(B,) nats per picture: the criterion of equation 14, a true KL divergence."""
        return self.kl.sum(dim=0)

    @property
    def mean_weighted(self) -> Tensor:
        """(B,) the released code's loss: sum over blocks of the MEAN over a block's dimensions.

        A 1x1 block of 16 dimensions weighs as much as a 64x64 block of 65,536.
        """
        return (self.kl / self.dimensions.to(self.kl)[:, None]).sum(dim=0)


class CVDVAE(FixedSizeSampling, nn.Module):
    """q(z_<k | lr) on top of a frozen VDVAE; see the module's diagram.

    Pictures are in [0, 1]: hr (B, 3, S, S), lr (B, 3, S / scale, S / scale).
    """

    def __init__(self, config: CVDVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        self.encoder = Encoder(config.prior.encoder)
        self.encoder_y = Encoder(config.encoder_y)
        self.decoder = Decoder(config.prior, lr_posteriors=config.ky)

    @classmethod
    def from_prior(cls, prior: VDVAE, config: CVDVAEConfig) -> Self:
        """A model around a frozen copy of ``prior``; raises ValueError if the configs differ."""
        if config.prior != prior.config:
            raise ValueError("config.prior is not the config of the given prior")
        model = cls(config)
        load_prior(model, prior)
        model.select_trainable()
        return model

    @property
    def hr_config(self) -> VDVAEConfig:
        """Configuration of the network that makes the HR picture."""
        return self.config.prior

    @property
    def conditioned_layers(self) -> int:
        """How many of the first layers are drawn from q(z | lr)."""
        return self.config.ky

    def select_trainable(self) -> int:
        """Freezes all but ``encoder_y`` and ``enc_y``; returns how many values train."""
        return set_trainable(self, lambda name: name.startswith("encoder_y.") or ".enc_y." in name)

    def forward(self, hr: Tensor, lr: Tensor, noise: NoiseSource) -> LatentKL:
        """One training pass through the first k blocks.

        Args:
            hr: (B, 3, S, S) in [0, 1].
            lr: (B, 3, S / scale, S / scale) in [0, 1].
            noise: standard normals of each of the first k layers, for q(z | hr).
        """
        activations, lr_activations = self.encoder(hr), self.encoder_y(lr)
        kls: list[Tensor] = []
        dimensions: list[int] = []

        def infer(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            resolution = x.shape[-1]
            x, kl = block.infer_lr_posterior(
                x, activations[resolution], lr_activations[resolution], noise(shape)
            )
            kls.append(kl.sum(dim=(1, 2, 3)))
            dimensions.append(kl[0].numel())
            return x

        self.decoder.run(hr.shape[0], infer, stop=self.config.ky)
        return LatentKL(torch.stack(kls), torch.tensor(dimensions))

    def sample(
        self,
        lr: Tensor,
        noise: NoiseSource | None,
        temperature: Temperature = 1.0,
        *,
        repeats: int = 1,
    ) -> Tensor:
        """Draws z_<k from q(z | lr), the rest from the prior; returns the likelihood's parameters
        (B * repeats, 10 K, S, S), as :meth:`~vdsr_cli.models.protocol.Sampler.sample` says.

        q(z | lr) is tempered like the rest, as the paper's text has it. The released code never
        tempers it: ``Temperatures("0.8,lr:1")``.
        """
        lr_activations = self.encoder_y(lr)

        def generate(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            given_lr = shape.layer < self.conditioned_layers
            factor = temperature_at(temperature, shape, given_lr=given_lr)
            epsilon = noise_at(noise, shape, factor)
            if not given_lr:
                return block.generate(x, epsilon, factor)
            return block.generate_lr_posterior(x, lr_activations[x.shape[-1]], epsilon, factor)

        return self.decoder.parameters_of(self.decoder.run(lr.shape[0] * repeats, generate))

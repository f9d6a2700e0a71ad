"""CNN-VAE (Weatherly): a VAE whose latent picture is asked to be the LR picture.

    hr (B, 1, 28, 28) ─► 2 convolutions, 32 maps of 7x7 ─► 2 linear layers ─► mu, sigma
    z = mu + sigma * zeta (B, 1, 14, 14), pulled towards lr ─► transposed convolution ─► ... ─► hr

Super-resolution is the decoder alone, with lr in the place of z.

**Two readings.** The paper contradicts itself in ways that no code can follow; what each reading
does about it:

=================================  =========================  ==================================
the paper                          ``reading="paper"``        ``reading="corrected"``
=================================  =========================  ==================================
lr by averaging 4x4 blocks, 14x14  2x2 blocks                 2x2 blocks
sigma squared by tanh, so          tanh taken for sigma       softplus for sigma
negative
z leaves [0, 1], where its BCE is  clamped inside its BCE     z itself clamped to [0, 1]
not defined                        only
a linear layer to 576 values, for  linear to 784, ReLU, then  3x3 convolutions to 784 values, then
28x28; ReLU, then sigmoid          sigmoid                    sigmoid alone
=================================  =========================  ==================================

ReLU before the sigmoid confines the paper's pictures to [0.5, 1): black cannot be drawn, and most
of Fashion-MNIST is black. Sizes that the paper leaves out (kernels, strides, channels) are ours.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.models.protocol import LatentShape

READINGS = ("corrected", "paper")
SCALE = 2
HR_SIZE = 28
LR_SIZE = HR_SIZE // SCALE
INITIAL_LOG_SIGMA = -3.0
"""Bias of the corrected reading's sigma before softplus: it starts at about 0.05."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CNNVAEConfig:
    """Architecture of a CNN-VAE.

    Attributes:
        reading: "corrected" or "paper"; see the module.
        encoder_width: maps behind the first convolution; twice as many behind the second.
        decoder_width: maps behind the transposed convolution.
        decoder_layers: convolutions behind it; the corrected reading's alone.
    """

    reading: str = "corrected"
    encoder_width: int = 16
    decoder_width: int = 32
    decoder_layers: int = 3

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise ValueError(f"unknown reading {self.reading!r}, known: {', '.join(READINGS)}")
        if min(self.encoder_width, self.decoder_width, self.decoder_layers) < 1:
            raise ValueError("widths and layers must be at least 1")


@dataclass(frozen=True, slots=True)
class Latent:
    """q(z | hr) of a batch, each (B, 1, 14, 14) float32: mean in (0, 1), standard deviation."""

    mean: Tensor
    sigma: Tensor


class CNNVAE(nn.Module):
    """The network; pictures are (B, 1, 28, 28) and (B, 1, 14, 14), grey, in [0, 1]."""

    def __init__(self, config: CNNVAEConfig) -> None:
        super().__init__()
        self.config = config
        width, maps = config.encoder_width, 2 * config.encoder_width
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, maps, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        features = maps * (HR_SIZE // 4) ** 2
        self.to_mean = nn.Linear(features, LR_SIZE**2)
        self.to_sigma = nn.Linear(features, LR_SIZE**2)
        is_paper = config.reading == "paper"
        self.decoder = _paper_decoder(config) if is_paper else _corrected_decoder(config)
        if not is_paper:
            nn.init.constant_(self.to_sigma.bias, INITIAL_LOG_SIGMA)

    @property
    def scale(self) -> int:
        """Super-resolution factor."""
        return SCALE

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """The one stochastic layer: a grey picture of LR size."""
        return [LatentShape(0, 1, SCALE)]

    def encode(self, hr: Tensor) -> Latent:
        """q(z | hr): a Gaussian for each pixel of the latent picture."""
        features = self.encoder(hr)
        mean, sigma = (layer(features).float() for layer in (self.to_mean, self.to_sigma))
        shape = (-1, 1, LR_SIZE, LR_SIZE)
        squash = torch.tanh if self.config.reading == "paper" else F.softplus
        return Latent(torch.sigmoid(mean).view(shape), squash(sigma).view(shape))

    def draw(self, latent: Latent, zeta: Tensor | None, temperature: float = 1.0) -> Tensor:
        """z (equation 6) from standard normals (B, 1, 14, 14); the mean where they are None.

        In [0, 1] in the corrected reading, unbounded in the paper's.
        """
        if zeta is None:
            return latent.mean
        z = latent.mean + temperature * latent.sigma * zeta
        return z if self.config.reading == "paper" else z.clamp(0, 1)

    def decode_logits(self, z: Tensor) -> Tensor:
        """Input of the last sigmoid, (B, 1, 28, 28) float32, from z or lr."""
        logits: Tensor = self.decoder(z).float()
        return logits.view(-1, 1, HR_SIZE, HR_SIZE)

    def decode(self, z: Tensor) -> Tensor:
        """The picture of z, or the super-resolution of lr: (B, 1, 28, 28) in (0, 1)."""
        return torch.sigmoid(self.decode_logits(z))

    def reconstruct(self, hr: Tensor) -> Tensor:
        """hr through the whole network, at the mean of z (the paper's figure 5)."""
        return self.decode(self.encode(hr).mean)


def _paper_decoder(config: CNNVAEConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(1, config.decoder_width, 4, stride=2, padding=1),
        nn.Flatten(),
        nn.Linear(config.decoder_width * HR_SIZE**2, HR_SIZE**2),
        nn.ReLU(),
    )


def _corrected_decoder(config: CNNVAEConfig) -> nn.Sequential:
    width = config.decoder_width
    layers: list[nn.Module] = [nn.ConvTranspose2d(1, width, 4, stride=2, padding=1), nn.ReLU()]
    for _ in range(config.decoder_layers):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1))

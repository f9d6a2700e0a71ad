"""The parts that models of a kind share: which pixels a likelihood makes, and which tiles it takes.

    LogisticPixels     one logistic a colour    (B, 6 or more, H, W)
    MixturePixels      DMOL                     (B, 10 K, H, W)
    AnySizeSampling    tiles of any size        LogisticPixels
    FixedSizeSampling  one size, a 1x1 top      MixturePixels

Pixels are the likelihood's mean, or a draw from it by standard logistic noise.
"""

from typing import Protocol

from torch import Tensor

from vdsr_cli.config import Temperature
from vdsr_cli.models.dmol import dmol_pixels
from vdsr_cli.models.logistic import logistic_pixels
from vdsr_cli.models.protocol import LatentShape, NoiseSource
from vdsr_cli.models.vdvae_config import VDVAEConfig


class _Sampler(Protocol):
    def sample(
        self, lr: Tensor, noise: NoiseSource | None, temperature: Temperature, *, repeats: int = 1
    ) -> Tensor: ...

    def pixels(self, parameters: Tensor, noise: Tensor | None) -> Tensor: ...


class _Means:
    """Means of a model that samples a likelihood's parameters and turns them into pixels."""

    def means(
        self: _Sampler,
        lr: Tensor,
        noise: NoiseSource | None,
        temperature: Temperature,
        *,
        repeats: int = 1,
    ) -> Tensor:
        """``pixels(sample(...), None)``: (B * repeats, 3, H, W) on [-1, 1]."""
        return self.pixels(self.sample(lr, noise, temperature, repeats=repeats), None)


class LogisticPixels:
    """Pixels of a likelihood of one logistic a colour: (B, 6 or more, H, W)."""

    pixel_noise_channels = 3
    """Channels of logistic noise that a draw of the pixels takes."""

    def pixels(self, parameters: Tensor, noise: Tensor | None) -> Tensor:
        """:func:`~vdsr_cli.models.logistic.logistic_pixels`."""
        return logistic_pixels(parameters, noise)


class MixturePixels:
    """Pixels of a likelihood that mixes K discretised logistics: (B, 10 K, H, W)."""

    @property
    def hr_config(self) -> VDVAEConfig:
        """Configuration of the network that makes the HR picture."""
        raise NotImplementedError

    @property
    def is_floored(self) -> bool:
        """Whether it was trained on grey levels floored to 5 bits."""
        return self.hr_config.low_bit

    @property
    def pixel_noise_channels(self) -> int:
        """Channels of logistic noise that a draw takes: 3 colours and K components."""
        return 3 + self.hr_config.num_mixtures

    def pixels(self, parameters: Tensor, noise: Tensor | None) -> Tensor:
        """The likelihood's parameters (B, 10 K, H, W) -> pixels (B, 3, H, W) on [-1, 1].

        Args:
            parameters: of the mixture.
            noise: (B, 3 + K, H, W) standard logistic, or None for the mean.
        """
        return dmol_pixels(parameters, noise, low_bit=self.is_floored)


class AnySizeSampling(LogisticPixels, _Means):
    """Sampling from a convolutional model: it sees as much of the picture as it is given."""

    fixed_tile: int | None = None
    """The only side that LR inputs may have; None where any multiple of ``lr_multiple`` will do."""

    margin: int = 0
    """See :class:`~vdsr_cli.models.protocol.Sampler`."""


class FixedSizeSampling(MixturePixels, _Means):
    """Sampling from a model of the published shape, which sees a tile as a picture of its one size.

    Its maps of fixed size lie where they lie in each tile, and the latents of its 1x1 top are one
    for a whole tile. Tiles start on the next coarsest latent's cells, whose noise they share.
    """

    scale: int
    margin: int = 0
    """See :class:`~vdsr_cli.models.protocol.Sampler`."""

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer in the order of drawing, coarse to fine."""
        return self.hr_config.latent_shapes

    @property
    def fixed_tile(self) -> int:
        """The side that LR inputs must have."""
        return self.hr_config.image_size // self.scale

    @property
    def lr_multiple(self) -> int:
        """Tiles start on multiples of it: the coarsest cell below the top, in LR pixels."""
        cells = [shape.cell for shape in self.latent_shapes if not shape.is_global]
        return max(1, max(cells) // self.scale)

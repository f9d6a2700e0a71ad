"""The promises of a model to those who use it; one that keeps a promise need not name it.

    Sampler            p(hr | lr)    sample, means, pixels     upscale, sample-diverse, bench
    LikelihoodModel    p(hr | lr)    elbo_and_mean             bench, train
    Prior              p(picture)    sample, pixels, posterior generate, layers, bench
    PartlyTrained      either        select_trainable          train

Latents are described by :class:`LatentShape`, and their noise comes from a :data:`NoiseSource`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from vdsr_cli.config import Temperature, Temperatures
from vdsr_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class LatentShape:
    """One stochastic layer: its index, channels, and the side of its cell in HR pixels.

    A global one has a single cell, a whole tile, which stands for no place in the picture.
    """

    layer: int
    channels: int
    cell: int
    is_global: bool = False


NoiseSource = Callable[[LatentShape], Tensor]
"""Gives the standard normals of a layer: (B, channels, H / cell, W / cell)."""


def temperature_at(
    temperature: Temperature, shape: LatentShape, *, given_lr: bool = False
) -> float:
    """The temperature of one layer; ``given_lr`` where it is drawn from q(z | lr)."""
    if not isinstance(temperature, Temperatures):
        return temperature
    if given_lr and temperature.given_lr is not None:
        return temperature.given_lr
    return temperature.by_cell.get(shape.cell, temperature.rest)


def refuse_unknown_levels(temperature: Temperature, model: "Sampler | Prior") -> None:
    """Raises UsageError for temperatures of latents that a model does not have."""
    if not isinstance(temperature, Temperatures):
        return
    cells = dict.fromkeys(shape.cell for shape in model.latent_shapes)
    if unknown := [cell for cell in temperature.by_cell if cell not in cells]:
        raise UsageError(
            f"--temperature names cells of {unknown[0]} pixels, which the model does not have",
            hint=f"it has {', '.join(map(str, cells))}",
        )
    if temperature.given_lr is not None and not getattr(model, "conditioned_layers", 0):
        raise UsageError(
            "the model draws nothing from q(z | lr)",
            hint="--conditional-temperature is of a CVDVAE",
        )


@dataclass(frozen=True, slots=True)
class Elbo:
    """The parts of the evidence lower bound (Chira 2022, eq. 5) of one batch.

    Attributes:
        distortion: (B,) negative log-likelihood of hr given the latents, nats per image.
        rate: (layers, B) KL(q || p) of each stochastic layer, nats per image.
    """

    distortion: Tensor
    rate: Tensor


@runtime_checkable
class Sampler(Protocol):
    """Draws HR pictures given an LR one, tile by tile: p(hr | lr)."""

    def __hash__(self) -> int:
        """By which models are told apart."""

    @property
    def scale(self) -> int:
        """Integer super-resolution factor."""

    @property
    def lr_multiple(self) -> int:
        """Sides of LR inputs must be multiples of this: the coarsest cell in LR pixels."""

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer, coarse to fine."""

    @property
    def fixed_tile(self) -> int | None:
        """The only side that LR inputs may have, or None."""

    @property
    def pixel_noise_channels(self) -> int:
        """Channels of logistic noise that a draw of the pixels takes."""

    def sample(
        self, lr: Tensor, noise: NoiseSource | None, temperature: Temperature, *, repeats: int = 1
    ) -> Tensor:
        """(B, 3, h, w) in [0, 1] -> (B * repeats, C, H, W) float32, the parameters of the
        likelihood of each sample, those of one picture side by side.

        Args:
            noise: standard normals of each layer for B * repeats pictures; None for the mean path.
            temperature: of all layers or of each level; where it is 0 no noise is asked for.
            repeats: samples drawn of each picture, for which the LR encoder runs once.
        """

    @property
    def margin(self) -> int:
        """LR pixels of its mirror image that a picture needs all around, a multiple of
        ``lr_multiple``: where the network's zero padding shows at a border. 0 where it does not."""

    def means(
        self, lr: Tensor, noise: NoiseSource | None, temperature: Temperature, *, repeats: int = 1
    ) -> Tensor:
        """``pixels(sample(...), None)``, without what the means do not need."""

    def pixels(self, parameters: Tensor, noise: Tensor | None) -> Tensor:
        """Those parameters -> (B, 3, H, W) on [-1, 1]: the mean, or a draw by logistic noise."""


@runtime_checkable
class LikelihoodModel(Protocol):
    """Bounds the likelihood of HR pictures given their LR ones."""

    @property
    def lr_multiple(self) -> int:
        """Sides of LR inputs must be multiples of this."""

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer, coarse to fine."""

    def elbo_and_mean(
        self, hr: Tensor, lr: Tensor, noise: NoiseSource, **options: Tensor
    ) -> tuple[Elbo, Tensor]:
        """hr (B, 3, H, W) in [-1, 1], lr (B, 3, h, w) in [0, 1] -> the parts of the ELBO, and the
        mean path's pixels (B, 3, H, W) in [-1, 1]. One whose ``takes_palette`` is set has the
        option ``palette``, colours (K, 3) in [-1, 1] over which its likelihood is normalised."""


@runtime_checkable
class Prior(Protocol):
    """Draws pictures (B, 3, H, W) out of nothing, and bounds the likelihood of given ones."""

    @property
    def side_px(self) -> int | None:
        """The side of the one size of picture it knows; None where any will do."""

    @property
    def cell_px(self) -> int:
        """Sides of pictures are multiples of this."""

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer, coarse to fine."""

    @property
    def is_low_bit(self) -> bool:
        """Whether its likelihood is of 5 bits."""

    @property
    def pixel_noise_channels(self) -> int:
        """Channels of logistic noise that a draw of the pixels takes."""

    def widest_map(self, height: int, width: int) -> int:
        """The numbers of the largest feature map of one picture: what memory goes by."""

    def sample(
        self, batch: int, size: tuple[int, int], noise: NoiseSource | None, temperature: Temperature
    ) -> Tensor:
        """The likelihood's parameters of so many pictures; ``noise`` None is the mean path."""

    def pixels(self, parameters: Tensor, noise: Tensor | None) -> Tensor:
        """Those parameters -> (B, 3, H, W) on [-1, 1]: the mean, or a draw by logistic noise; of a
        5-bit model centred."""

    def posterior(self, image: Tensor, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """Draws latents from q(z | image), image (B, 3, H, W) in [0, 1]: the likelihood's
        parameters, and the rate (layers, B) in nats per picture."""

    def distortion(self, image: Tensor, parameters: Tensor, **options: Tensor) -> Tensor:
        """-log p(image | latents), (B,) nats per picture, image (B, 3, H, W) in [0, 1]; options as
        of :meth:`LikelihoodModel.elbo_and_mean`."""


@runtime_checkable
class PartlyTrained(Protocol):
    """Freezes what its objective leaves alone, such as the prior that it is built on."""

    def select_trainable(self) -> object:
        """Marks which parameters are trained."""

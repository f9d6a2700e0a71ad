"""The compact unconditional VDVAE, and the two ways of conditioning it on an LR picture.

    CompactVDVAE          x = 0 ─► levels ─► head ─► mean, log scale              p(hr)
    CompactVDVAESROnPrior as compact.CompactVDVAESR, every gate and the           p(hr | lr)
                          bicubic base's weight zero at the start: then it is the prior
    CompactCVDVAE         the first k layers draw from q(z | lr) = enc_y(x, g),   q(z_<k | lr)
                          the rest from the frozen prior

All three have one :class:`~vdsr_cli.models.compact.CompactConfig`; the prior ignores its
``lr_blocks``, which are those of an LR encoder that is put on it. VDVAE-SR: Chira et al. 2022
(Chira 2022). CVDVAE: Prost 2024.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from vdsr_cli.config import Temperature
from vdsr_cli.models.blocks import TopDownBlock
from vdsr_cli.models.compact import (
    CompactConfig,
    CompactHierarchy,
    CompactVDVAESR,
    Level,
    LREncoder,
)
from vdsr_cli.models.cvdvae import LatentKL
from vdsr_cli.models.protocol import Elbo, LatentShape, NoiseSource, temperature_at
from vdsr_cli.models.sampling import AnySizeSampling, LogisticPixels
from vdsr_cli.models.vdvae import set_trainable

_COARSE_GRADIENT = 0.1
"""Share of the mean path's gradient that reaches the layers down to the LR resolution."""


class CompactVDVAE(CompactHierarchy, LogisticPixels):
    """p(hr): no LR encoder, no gates, no bicubic base."""

    context = 128

    def __init__(self, config: CompactConfig) -> None:
        super().__init__(config)
        self._add_hierarchy()

    side_px = None
    """The side of the one size of picture it knows: any will do."""
    is_low_bit = False
    """Whether its likelihood is of 5 bits."""

    @property
    def cell_px(self) -> int:
        """Sides of pictures are multiples of this, the coarsest cell."""
        return self.config.levels[0].cell

    def widest_map(self, height: int, width: int) -> int:
        """Numbers of the largest feature map of one picture, over the levels."""
        levels = self.config.levels
        return max(lv.width * (height // lv.cell) * (width // lv.cell) for lv in levels)

    def _follows_likelihood(self, name: str) -> bool:
        """In the layers finer than the LR picture alone: the others would leave the picture to the
        pixels before, and a CVDVAE would have no latents to learn."""
        if ".enc." not in name:
            return False
        level = int(name.split(".")[1])
        return self.config.levels[level].cell < self.scale

    def forward(self, image: Tensor, noise: NoiseSource) -> Elbo:
        """One training pass: the parts of the negative ELBO, nats per picture.

        Arguments as :meth:`posterior`.
        """
        parameters, rate = self.posterior(image, noise)
        return Elbo(self.distortion(image, parameters), rate)

    def distortion(
        self, image: Tensor, parameters: Tensor, *, palette: Tensor | None = None
    ) -> Tensor:
        """-log p(image | latents), (B,) nats per picture of 256 grey levels; for the palette see
        :func:`~vdsr_cli.models.logistic.negative_log_likelihood`."""
        return self.negative_log_likelihood(2 * image.float() - 1, parameters, palette)

    def elbo_and_mean(self, image: Tensor, noise: NoiseSource) -> tuple[Elbo, Tensor]:
        """One training pass: :meth:`forward`, and the pixels (B, 3, H, W) in [-1, 1], not clamped,
        where the layers finer than the LR picture are at the prior's means.

        Of the gradient through the pixels a tenth reaches the layers above those: enough for them
        to hold the LR picture, too little for their latents to hide detail that it lacks, which
        the LR encoder of a CVDVAE could not know.

        Arguments as :meth:`posterior`.
        """
        target, split = 2 * image.float() - 1, self.config.lr_layers
        activations = self.hr_encoder(target)
        lr_state, coarse = self._infer(self._top(activations), activations, noise, stop=split)
        state, fine = self._infer(lr_state, activations, noise, start=split)
        likelihood = self.negative_log_likelihood(target, self._parameters_of(state))

        def generate(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            return block.generate(x, None, 0.0)

        held = lr_state.detach().lerp(lr_state, _COARSE_GRADIENT)  # the same values
        mean_path = self._parameters_of(self._run(held, generate, start=split), means_only=True)
        return Elbo(likelihood, torch.stack([*coarse, *fine])), mean_path

    def posterior(self, image: Tensor, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """Draws latents from q(z | image); returns what the decoder makes of them, and their KL.

        Args:
            image: (B, 3, H, W) in [0, 1] on the 256 grey levels; sides multiples of the coarsest
                cell.
            noise: standard normals of each layer.

        Returns:
            The likelihood's parameters (B, 6, 9 or 21, H, W), float32, and the rate of each layer
            (layers, B) in nats per picture.
        """
        activations = self.hr_encoder(2 * image.float() - 1)
        state, rate = self._infer(self._top(activations), activations, noise)
        return self._parameters_of(state), torch.stack(rate)

    def sample(
        self,
        batch: int,
        size: tuple[int, int],
        noise: NoiseSource | None,
        temperature: Temperature = 1.0,
    ) -> Tensor:
        """Draws latents from the prior; returns the likelihood's parameters.

        Args:
            batch: how many pictures.
            size: their height and width, multiples of the coarsest cell.
            noise: standard normals of each layer; None for the mean path.
            temperature: factor on every latent's standard deviation, or on those of each level.

        Returns:
            (batch, 6, 9 or 21, H, W) float32: mean of the pixels in [-1, 1], not clamped, log scale
            and, of a coupled likelihood, coefficients.
        """

        def generate(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            factor = temperature_at(temperature, shape)
            return block.generate(x, noise(shape) if noise else None, factor)

        level = self.config.levels[0]
        cells = (side // level.cell for side in size)
        top = self.head.weight.new_zeros(batch, level.width, *cells)
        return self._parameters_of(self._run(top, generate))

    def _infer(
        self,
        x: Tensor,
        activations: dict[int, Tensor],
        noise: NoiseSource,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Runs layers with latents from q(z | image): the state below, and their rates (B,)."""
        rates: list[Tensor] = []

        def infer(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            x, kl = block.infer(x, activations[shape.cell], noise(shape))
            rates.append(kl.sum(dim=(1, 2, 3)))
            return x

        return self._run(x, infer, start=start, stop=stop), rates


class CompactVDVAESROnPrior(CompactVDVAESR):
    """p(hr | lr) that starts as a pretrained prior and learns to look at the LR picture.

    The HR encoder is the prior's, frozen, and sees the picture itself; decoder, LR encoder, gates
    and the weight of the bicubic base train.
    """

    output_scale = CompactHierarchy.output_scale
    first_log_scale = CompactHierarchy.first_log_scale

    def __init__(self, config: CompactConfig) -> None:
        super().__init__(config)
        self.base_gate = nn.Parameter(torch.zeros(1, 3, 1, 1))

    @classmethod
    def from_prior(cls, prior: CompactVDVAE) -> Self:
        """The prior's weights, a fresh LR encoder, gates and base weight of zero."""
        model = cls(prior.config)
        _load_prior(model, prior)
        model.select_trainable()
        return model

    def _open_gates(self) -> None:
        """The gates stay at zero, so that the model starts as the prior."""

    def base(self, lr: Tensor) -> Tensor:
        """``base_gate`` times the bicubic picture: (B, 3, H, W) float32."""
        return self.base_gate.float() * super().base(lr)

    def select_trainable(self) -> int:
        """Freezes the HR encoder; returns how many values train."""
        return set_trainable(self, lambda name: not name.startswith("hr_encoder."))

    def _seen_by_posterior(self, hr: Tensor, base: Tensor) -> Tensor:
        return hr


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactCVDVAEConfig:
    """A CVDVAE on a compact prior.

    Attributes:
        hierarchy: the prior's configuration; its ``lr_blocks`` are the LR encoder's.
        conditioned_blocks: the papers' k, how many of the first layers see the LR picture; all of
            them at or below the LR resolution.
    """

    hierarchy: CompactConfig
    conditioned_blocks: int

    def __post_init__(self) -> None:
        if not 1 <= self.conditioned_blocks <= self.hierarchy.lr_layers:
            raise ValueError(f"conditioned_blocks must be within 1..{self.hierarchy.lr_layers}")

    @classmethod
    def of_prior(cls, hierarchy: CompactConfig, conditioned_blocks: int | None = None) -> Self:
        """Conditions so many layers, None for every one up to the LR resolution."""
        blocks = hierarchy.lr_layers if conditioned_blocks is None else conditioned_blocks
        return cls(hierarchy=hierarchy, conditioned_blocks=blocks)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``; raises TypeError or KeyError."""
        hierarchy = compact_config_from(values["hierarchy"])
        return cls(**{**values, "hierarchy": hierarchy})

    @property
    def scale(self) -> int:
        """Super-resolution factor."""
        return self.hierarchy.scale


class CompactCVDVAE(CompactHierarchy, AnySizeSampling):
    """q(z_<k | lr) on a frozen prior; only ``lr_encoder`` and the heads ``enc_y`` train, or, where
    samples train them, the prior's finest layers."""

    def __init__(self, config: CompactCVDVAEConfig) -> None:
        super().__init__(config.hierarchy)
        self.conditioning = config
        # With no bicubic picture as its base, the prior is wrong by up to 20 of 255 levels in the
        # corners of what it is given.
        self.margin = self.lr_multiple
        self.lr_encoder = LREncoder(config.hierarchy)
        self._add_hierarchy(lr_posteriors=config.conditioned_blocks)

    @classmethod
    def from_prior(cls, prior: CompactVDVAE, conditioned_blocks: int | None = None) -> Self:
        """A frozen copy of the prior, with a fresh LR encoder and fresh heads in so many layers."""
        model = cls(CompactCVDVAEConfig.of_prior(prior.config, conditioned_blocks))
        _load_prior(model, prior)
        model.select_trainable()
        return model

    def select_trainable(self) -> int:
        """Freezes the prior; returns how many values train."""
        return set_trainable(self, lambda name: name.startswith("lr_encoder.") or ".enc_y." in name)

    def select_fine_layers(self) -> None:
        """Trains, beside those of :meth:`select_trainable`, what the prior does below the LR
        resolution: its layers there, the upsampling into them, and the head. Its posterior does
        not, which is to learn them anew by the prior's own training."""
        kept = sum(level.cell >= self.scale for level in self.config.levels)
        for part in (*self.levels[kept:], *self.upsamples[kept - 1 :], self.head):
            for name, parameter in part.named_parameters():
                parameter.requires_grad_(".enc." not in name)

    @property
    def conditioned_layers(self) -> int:
        """How many of the first layers are drawn from q(z | lr)."""
        return self.conditioning.conditioned_blocks

    @property
    def lr_multiple(self) -> int:
        """Sides of LR inputs must be multiples of this: the coarsest cell in LR pixels."""
        return self.config.lr_multiple

    def forward(self, hr: Tensor, lr: Tensor, noise: NoiseSource) -> LatentKL:
        """One training pass through the first k layers (Prost 2024, eqs. 13 and 14).

        Args:
            hr: (B, 3, H, W) in [0, 1].
            lr: (B, 3, h, w) in [0, 1].
            noise: standard normals of each of the first k layers, for q(z | hr).
        """
        activations, lr_activations = self.hr_encoder(2 * hr.float() - 1), self.lr_encoder(lr)
        kls: list[Tensor] = []
        dimensions: list[int] = []

        def infer(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            x, kl = block.infer_lr_posterior(
                x, activations[shape.cell], lr_activations[shape.cell], noise(shape)
            )
            kls.append(kl.sum(dim=(1, 2, 3)))
            dimensions.append(kl[0].numel())
            return x

        self._run(self._top(lr_activations), infer, stop=self.conditioning.conditioned_blocks)
        return LatentKL(torch.stack(kls), torch.tensor(dimensions))

    def sample(
        self, lr: Tensor, noise: NoiseSource | None, temperature: Temperature, *, repeats: int = 1
    ) -> Tensor:
        """Draws z_<k from q(z | lr) and the rest from the prior, all at one temperature unless
        q(z | lr) has its own, as ``Temperatures("0.8,lr:1")``.

        Arguments and result are those of :meth:`CompactVDVAESR.sample
        <vdsr_cli.models.compact.CompactVDVAESR.sample>`.
        """
        return self._parameters_of(self._drawn(lr, noise, temperature, repeats))

    def means(
        self, lr: Tensor, noise: NoiseSource | None, temperature: Temperature, *, repeats: int = 1
    ) -> Tensor:
        """The means of :meth:`sample`, (B * repeats, 3, H, W), without the log scales' work."""
        return self._parameters_of(self._drawn(lr, noise, temperature, repeats), means_only=True)

    def _drawn(
        self, lr: Tensor, noise: NoiseSource | None, temperature: Temperature, repeats: int
    ) -> Tensor:
        """The last state of a sample."""
        activations = self.lr_encoder(lr)

        def generate(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            epsilon = noise(shape) if noise else None
            given_lr = shape.layer < self.conditioned_layers
            factor = temperature_at(temperature, shape, given_lr=given_lr)
            if not given_lr:
                return block.generate(x, epsilon, factor)
            return block.generate_lr_posterior(x, activations[shape.cell], epsilon, factor)

        return self._run(self._top(activations, repeats), generate)

    def mean_path(self, lr: Tensor) -> Tensor:
        """The picture at the means of all latents: (B, 3, H, W) in [-1, 1], not clamped."""
        return self.means(lr, None, 0.0)


def compact_config_from(values: Mapping[str, Any]) -> CompactConfig:
    """The inverse of ``dataclasses.asdict``; raises TypeError or KeyError."""
    levels = tuple(Level(**level) for level in values["levels"])
    return CompactConfig(
        scale=values["scale"],
        levels=levels,
        coupled=values.get("coupled", False),
        neighbours=values.get("neighbours", False),
        context=values.get("context", 0),
    )


def _load_prior(model: CompactHierarchy, prior: CompactVDVAE) -> None:
    """Copies every tensor of ``prior`` into a model that extends it."""
    _, unexpected = model.load_state_dict(prior.state_dict(), strict=False)
    if unexpected:
        raise ValueError(f"the model does not extend the prior: no {unexpected[:3]}")

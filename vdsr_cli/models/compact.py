"""The compact VDVAE-SR: a fully convolutional hierarchical VAE for p(hr | lr).

    lr (B,3,h,w) ─► LR encoder ─► g[cell]           hr ─► HR encoder ─► activation[cell]
                       │  one map a level with           │   (training only)
                       │  cell >= scale                  │
                       ▼                                 ▼
    x = 0 ─► [level 16] ─► [level 8] ─► [level 4 = LR] ─► [level 2] ─► head ─► mean, log scale
               blocks of Child 2021, each: x + gate * g, z ~ p(z | x) or q(z | x, hr)

    hr ~ discretised logistic(bicubic(lr) + 0.1 * mean, log scale)
    where ``coupled``, green given red and blue given both, and with ``neighbours`` pixels given
    those before them: see :mod:`~vdsr_cli.models.colours` and :mod:`~vdsr_cli.models.causal`

A level is named by its *cell*: the side, in HR pixels, of the square that one latent of it covers.
Conditioning follows VDVAE-SR (Chira et al. 2022, equations 9-11) with the LR activations at every
resolution up to the LR picture's own; there is no 1x1 level and no map of fixed size, so the model
takes pictures of any size that is a multiple of ``lr_multiple``.
"""

import itertools
import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.config import Temperature
from vdsr_cli.models.blocks import Plain, TopDownBlock, repeated
from vdsr_cli.models.causal import NEIGHBOUR_CHANNELS, PixelsBefore
from vdsr_cli.models.colours import COLOUR_CHANNELS, LOG_SCALES
from vdsr_cli.models.compact_parts import (
    STYLE,
    CompactConfig,
    HREncoder,
    Level,
    LREncoder,
    Step,
    Upsample,
    enlarged,
)
from vdsr_cli.models.logistic import logistic_pixels, negative_log_likelihood
from vdsr_cli.models.protocol import Elbo, LatentShape, NoiseSource, temperature_at
from vdsr_cli.models.sampling import AnySizeSampling
from vdsr_cli.models.vdvae import set_trainable

__all__ = [
    "COEFFICIENTS",
    "RESIDUAL_SCALE",
    "CompactConfig",
    "CompactHierarchy",
    "CompactVDVAESR",
    "HREncoder",
    "LREncoder",
    "Level",
]

COEFFICIENTS = ("coupling.", "neighbours.", "before.")
"""Where the names of the tensors begin that only some likelihoods have."""
RESIDUAL_SCALE = 0.1
"""The head predicts the difference from the bicubic picture in tenths of the [-1, 1] range."""


class CompactHierarchy(nn.Module):
    """The parts of every compact model: HR encoder, stochastic layers, upsampling and head.

    A subclass first adds the encoders of its own and then calls :meth:`_add_hierarchy`: the order
    of the modules is that of the optimiser's state in a run's checkpoint.

    The convolutions run in the dtype of the parameters (or of autocast); moments, KL, likelihood
    and the bicubic base are float32.
    """

    output_scale = 1.0
    """The value of the head's 1.0 on the [-1, 1] range."""
    first_log_scale = -2.0
    """Log scale of the likelihood where the head says 0."""
    context = 48
    """Width of the network that looks at the pixels before, where a likelihood is made coupled."""
    takes_palette = True
    """Whether the likelihood can be normalised over a palette."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale

    def _add_hierarchy(self, *, gated: bool = False, lr_posteriors: int = 0) -> None:
        """Adds the modules, with gates in the levels up to the LR resolution, and ``enc_y`` heads
        in the first ``lr_posteriors`` blocks; initialises everything."""
        config, layers = self.config, itertools.count()
        self.hr_encoder = HREncoder(config)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                TopDownBlock(
                    level.width,
                    level.latent_channels,
                    STYLE,
                    gated=gated and level.cell >= config.scale,
                    lr_posterior=next(layers) < lr_posteriors,
                )
                for _ in range(level.blocks)
            )
            for level in config.levels
        )
        self.upsamples = nn.ModuleList(
            Upsample(coarse, fine, learned=fine.cell < config.scale)
            for coarse, fine in itertools.pairwise(config.levels)
        )
        finest = config.levels[-1]

        def head(channels: int) -> nn.Conv2d:
            return nn.Conv2d(finest.width, channels * finest.cell**2, 3, padding=1)

        self.head = head(6)
        self.coupling = head(COLOUR_CHANNELS) if config.coupled else None
        self.neighbours = head(NEIGHBOUR_CHANNELS) if config.neighbours else None
        self.before = PixelsBefore(config.block, config.context) if config.neighbours else None
        self._initialise()

    def _initialise(self) -> None:
        """VDVAE's rules (Child 2021)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                slope = math.sqrt(5) if module.kernel_size == (1, 1) else 0.5
                nn.init.kaiming_uniform_(module.weight, a=slope)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        blocks = [block for level in self.blocks_by_level for block in level]
        with torch.no_grad():
            for encoder in self.children():
                if isinstance(encoder, LREncoder | HREncoder):
                    _scale_residuals(encoder.stages)
            for block in blocks:
                block.z_proj.weight.mul_(math.sqrt(1 / len(blocks)))
                block.resnet.last.weight.mul_(math.sqrt(1 / len(blocks)))
                block.prior.last.weight.zero_()
                for posterior in (block.enc, block.enc_y):
                    if posterior is not None:
                        posterior.last.weight.mul_(0.1)
            self.head.weight.mul_(0.1)
            for coefficients in (self.coupling, self.neighbours):
                if coefficients is not None:
                    coefficients.weight.zero_()

    @property
    def blocks_by_level(self) -> list[list[TopDownBlock]]:
        """The stochastic layers of each level, coarse to fine."""
        return [list(cast(Iterable[TopDownBlock], level)) for level in self.levels]

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer in the order of drawing, coarse to fine."""
        return self.config.latent_shapes

    def _top(self, activations: dict[int, Tensor], repeats: int = 1) -> Tensor:
        """The state above the first layer: zero, of the size of an encoder's coarsest map."""
        return repeated(torch.zeros_like(activations[self.config.levels[0].cell]), repeats)

    def _run(self, x: Tensor, step: Step, *, start: int = 0, stop: int | None = None) -> Tensor:
        """Walks down the layers from ``start`` to before ``stop``: the input state of the first to
        the last one's output."""
        shapes = self.latent_shapes
        wanted, following = range(len(shapes))[start:stop], iter(shapes)
        for index, level in enumerate(self.blocks_by_level):
            for first, block in enumerate(level):
                if (shape := next(following)).layer in wanted:
                    x = self.upsamples[index - 1](x) if index and not first else x
                    x = step(block, shape, x)
        return x

    def _parameters_of(
        self, x: Tensor, base: Tensor | None = None, *, means_only: bool = False
    ) -> Tensor:
        """Last state (B * n, ...) -> the likelihood's parameters (B * n, 6, 9 or 21, H, W) float32:
        mean, which is the difference from base (B, 3, H, W) where there is one, log scale, and
        coefficients where colours are coupled; or the means alone (B * n, 3, H, W), the same bits
        for less work."""
        cell = self.config.levels[-1].cell
        weight, bias = self._last_layer(3 * cell**2 if means_only else None)
        parameters = _shuffled(F.conv2d(x, weight, bias, padding=1), cell)
        mean, log_scale = parameters[:, :3], parameters[:, 3:6]
        mean.mul_(self.output_scale)
        if base is not None:
            mean.view(len(base), -1, *base.shape[1:]).add_(base.unsqueeze(1))
        log_scale.add_(self.first_log_scale).clamp_(*LOG_SCALES)
        return parameters

    def _last_layer(self, channels: int | None) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution that gives the likelihood's parameters, or of the
        first ``channels`` of the head."""
        if channels is not None:
            return self.head.weight[:channels], cast(Tensor, self.head.bias)[:channels]
        heads = [head for head in (self.head, self.coupling, self.neighbours) if head is not None]
        biases = [cast(Tensor, head.bias) for head in heads]
        return torch.cat([head.weight for head in heads]), torch.cat(biases)

    def pixels(self, parameters: Tensor, noise: Tensor | None) -> Tensor:
        """:func:`~vdsr_cli.models.logistic.logistic_pixels`."""
        return logistic_pixels(parameters, noise, self.before)

    def negative_log_likelihood(
        self, hr: Tensor, parameters: Tensor, palette: Tensor | None = None
    ) -> Tensor:
        """:func:`~vdsr_cli.models.logistic.negative_log_likelihood`."""
        return negative_log_likelihood(hr, parameters, self.before, palette)

    def select_likelihood(self) -> int:
        """Freezes what means of samples depend on; the log scales, the coefficients and the
        posterior train. Returns how many values do, the frozen rows of the head among them."""
        means = 3 * self.config.levels[-1].cell ** 2

        def without_means(gradient: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(gradient[:means]), gradient[means:]])

        for parameter in self.head.parameters():
            parameter.register_hook(without_means)  # type: ignore[no-untyped-call]
        likelihood = ("head.", *COEFFICIENTS)
        return set_trainable(
            self, lambda name: name.startswith(likelihood) or self._follows_likelihood(name)
        )

    def _follows_likelihood(self, name: str) -> bool:
        """Whether a tensor is one of the posterior that learns a likelihood's bits with it."""
        return name.startswith("hr_encoder.") or ".enc." in name


class CompactVDVAESR(CompactHierarchy, AnySizeSampling):
    """p(hr | lr) with its posterior; see the module's diagram."""

    output_scale = RESIDUAL_SCALE
    first_log_scale = -4.0

    def __init__(self, config: CompactConfig) -> None:
        super().__init__(config)
        self.lr_encoder = LREncoder(config)
        self._add_hierarchy(gated=True)
        self._open_gates()

    @torch.no_grad()
    def _open_gates(self) -> None:
        """Opens the gate of each level's first block, so that training begins at once."""
        for first, *_ in self.blocks_by_level:
            if first.gate_param is not None:
                first.gate_param.fill_(1.0)

    @property
    def lr_multiple(self) -> int:
        """Sides of LR inputs must be multiples of this: the coarsest cell in LR pixels."""
        return self.config.lr_multiple

    def base(self, lr: Tensor) -> Tensor:
        """The bicubic picture (a = -0.5): lr (B, 3, h, w) in [0, 1] -> (B, 3, H, W) in [-1, 1]."""
        return enlarged(lr, self.scale)

    def sample(
        self, lr: Tensor, noise: NoiseSource | None, temperature: Temperature, *, repeats: int = 1
    ) -> Tensor:
        """Draws latents from the conditional prior; returns the likelihood's parameters.

        Args:
            lr: (B, 3, h, w) in [0, 1], h and w multiples of ``lr_multiple``.
            noise: standard normals of each layer for B * repeats pictures; None for the mean path.
            temperature: factor on every latent's standard deviation, or on each level's; 0 is the
                mean path.
            repeats: samples drawn of each picture; the LR encoder runs once for all of them.

        Returns:
            (B * repeats, 6, H, W) float32, the samples of one picture side by side: mean of the
            pixels in [-1, 1], not clamped, and log scale; 9 or 21 channels of a coupled likelihood,
            see :mod:`~vdsr_cli.models.logistic`.
        """
        return self._generate(self.base(lr), self.lr_encoder(lr), noise, temperature, repeats)

    def means(
        self, lr: Tensor, noise: NoiseSource | None, temperature: Temperature, *, repeats: int = 1
    ) -> Tensor:
        """The means of :meth:`sample`, (B * repeats, 3, H, W), without the log scales' work."""
        base, activations = self.base(lr), self.lr_encoder(lr)
        return self._generate(base, activations, noise, temperature, repeats, means_only=True)

    def elbo_and_mean(
        self, hr: Tensor, lr: Tensor, noise: NoiseSource, *, palette: Tensor | None = None
    ) -> tuple[Elbo, Tensor]:
        """One training pass: the ELBO of hr given lr, and the mean path's pixels.

        Args:
            hr: (B, 3, H, W) in [-1, 1] on the 256 grey levels.
            lr: (B, 3, h, w) in [0, 1].
            noise: standard normals of each layer, for the posterior.
            palette: see :func:`~vdsr_cli.models.logistic.negative_log_likelihood`.
        """
        base, lr_activations = self.base(lr), self.lr_encoder(lr)
        hr_activations = self.hr_encoder(self._seen_by_posterior(hr, base))
        rates = []

        def infer(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            x = block.condition(x, lr_activations.get(shape.cell))
            x, kl = block.infer(x, hr_activations[shape.cell], noise(shape))
            rates.append(kl.sum(dim=(1, 2, 3)))
            return x

        parameters = self._parameters_of(self._run(self._top(lr_activations), infer), base)
        mean_path = self._generate(base, lr_activations, None, 0.0, means_only=True)
        distortion = self.negative_log_likelihood(hr, parameters, palette)
        return Elbo(distortion, torch.stack(rates)), mean_path

    def mean_path(self, lr: Tensor) -> Tensor:
        """The picture at the prior's means: (B, 3, H, W) float32 in [-1, 1], not clamped."""
        return self.means(lr, None, 0.0)

    def _seen_by_posterior(self, hr: Tensor, base: Tensor) -> Tensor:
        """The HR encoder's input: what the bicubic picture lacks."""
        return (hr - base) / RESIDUAL_SCALE

    def _generate(
        self,
        base: Tensor,
        lr_activations: dict[int, Tensor],
        noise: NoiseSource | None,
        temperature: Temperature,
        repeats: int = 1,
        *,
        means_only: bool = False,
    ) -> Tensor:
        def generate(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            x = block.condition(x, lr_activations.get(shape.cell))
            factor = temperature_at(temperature, shape)
            return block.generate(x, noise(shape) if noise else None, factor)

        top = self._top(lr_activations, repeats)
        return self._parameters_of(self._run(top, generate), base, means_only=means_only)


def _shuffled(maps: Tensor, cell: int) -> Tensor:
    """``pixel_shuffle``: (B, c * cell^2, h, w) -> (B, c, h * cell, w * cell), a copy in float32
    and in the layout that pictures have, to be finished in place."""
    batch, channels, height, width = maps.shape
    # Converted first: half the time of converting while the pixels move.
    cells = maps.float().view(batch, -1, cell, cell, height, width).permute(0, 1, 4, 2, 5, 3)
    copied = cells.to(copy=True, memory_format=torch.contiguous_format)
    return copied.view(batch, channels // cell**2, height * cell, width * cell)


def _scale_residuals(stages: nn.Module) -> None:
    """Shrinks each stage's residual branches so that their sum keeps the size of its input."""
    for stage in stages.children():
        residuals = [block for block in stage.modules() if isinstance(block, Plain)]
        for residual in residuals:
            residual.last.weight.mul_(0.5 / math.sqrt(len(residuals)))

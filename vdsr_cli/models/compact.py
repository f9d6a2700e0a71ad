"""The compact VDVAE-SR: a fully convolutional hierarchical VAE for p(hr | lr).

    lr (B,3,h,w) ─► LR encoder ─► g[cell]           hr ─► HR encoder ─► activation[cell]
                       │  one map a level with           │   (training only)
                       │  cell >= scale                  │
                       ▼                                 ▼
    x = 0 ─► [level 16] ─► [level 8] ─► [level 4 = LR] ─► [level 2] ─► head ─► mean, log scale
               blocks of Child 2021, each: x + gate * g, z ~ p(z | x) or q(z | x, hr)

    hr ~ discretised logistic(bicubic(lr) + 0.1 * mean, log scale)

A level is named by its *cell*: the side, in HR pixels, of the square that one latent of it covers.
Conditioning follows VDVAE-SR (Chira et al. 2022, equations 9-11) with the LR activations at every
resolution up to the LR picture's own; there is no 1x1 level and no map of fixed size, so the model
takes pictures of any size that is a multiple of ``lr_multiple``.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.models.blocks import BlockStyle, Plain, TopDownBlock
from vdsr_cli.models.distributions import discretized_logistic_log_prob

RESIDUAL_SCALE = 0.1
"""The head predicts the difference from the bicubic picture in tenths of the [-1, 1] range."""

STYLE = BlockStyle(kind="plain", log_std_range=(-8.0, 4.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One resolution of the hierarchy.

    Attributes:
        cell: side in HR pixels of the square that one latent covers; a power of two.
        width: channels of the running state.
        blocks: stochastic layers.
        latent_channels: channels of each layer's z.
        lr_blocks: residual blocks of the LR encoder (0 where cell < scale).
        hr_blocks: residual blocks of the HR encoder.
    """

    cell: int
    width: int
    blocks: int
    latent_channels: int
    lr_blocks: int = 0
    hr_blocks: int = 1

    def __post_init__(self) -> None:
        if self.cell < 1 or self.cell & (self.cell - 1):
            raise ValueError(f"cell must be a power of two, got {self.cell}")
        if min(self.width, self.blocks, self.latent_channels) < 1:
            raise ValueError("width, blocks and latent_channels must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactConfig:
    """Architecture of a compact model: its scale and its levels, coarse to fine."""

    scale: int
    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        cells = [level.cell for level in self.levels]
        if cells != [cells[0] >> i for i in range(len(cells))]:
            raise ValueError(f"cells must halve from level to level, got {cells}")
        if self.scale not in cells:
            raise ValueError(f"no level at the LR resolution: scale {self.scale}, cells {cells}")
        if len({level.width for level in self.levels if level.cell >= self.scale}) != 1:
            raise ValueError("all levels up to the LR resolution share one width")
        if any(level.lr_blocks for level in self.levels if level.cell < self.scale):
            raise ValueError("the LR encoder has no level finer than the LR picture")


@dataclass(frozen=True, slots=True)
class LatentShape:
    """One stochastic layer: its index, channels, and the side of its cell in HR pixels."""

    layer: int
    channels: int
    cell: int


@dataclass(frozen=True, slots=True)
class Elbo:
    """The parts of the evidence lower bound (paper 000, equation 5) of one batch.

    Attributes:
        distortion: (B,) negative log-likelihood of hr given the latents, nats per image.
        rate: (layers, B) KL(q || p) of each stochastic layer, nats per image.
    """

    distortion: Tensor
    rate: Tensor


NoiseSource = Callable[[LatentShape], Tensor]
"""Gives the standard normals of a layer: (B, channels, H / cell, W / cell)."""


class LREncoder(nn.Module):
    """lr (B, 3, h, w) in [0, 1] -> LR activations g, one a level with cell >= scale, by cell."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        levels = [level for level in reversed(config.levels) if level.cell >= config.scale]
        self.cells = [level.cell for level in levels]
        self.conv_in = nn.Conv2d(3, levels[0].width, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(STYLE.residual(level.width) for _ in range(level.lr_blocks)))
            for level in levels
        )

    def forward(self, lr: Tensor) -> dict[int, Tensor]:
        x = self.conv_in(2 * lr - 1)
        activations = {}
        for i, (cell, stage) in enumerate(zip(self.cells, self.stages, strict=True)):
            x = F.avg_pool2d(x, 2) if i else x
            x = x + stage(x)
            activations[cell] = x
        return activations


class HREncoder(nn.Module):
    """Residual picture (B, 3, H, W) -> HR activations by cell, for the posterior."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        levels = list(reversed(config.levels))
        self.cells = [level.cell for level in levels]
        finest = self.cells[0]
        downs: list[nn.Module] = [nn.Conv2d(3 * finest**2, levels[0].width, 3, padding=1)]
        for fine, coarse in itertools.pairwise(levels):
            downs.append(nn.Conv2d(fine.width, coarse.width, 2, stride=2))
        self.downs = nn.ModuleList(downs)
        self.stages = nn.ModuleList(
            nn.Sequential(*(STYLE.residual(level.width) for _ in range(level.hr_blocks)))
            for level in levels
        )

    def forward(self, residual: Tensor) -> dict[int, Tensor]:
        x = F.pixel_unshuffle(residual, self.cells[0])
        activations = {}
        for cell, down, stage in zip(self.cells, self.downs, self.stages, strict=True):
            x = stage(down(x))
            activations[cell] = x
        return activations


class Upsample(nn.Module):
    """From one level's state to the next finer one: nearest below the LR resolution, where g
    brings the detail; a convolution and pixel shuffle above it."""

    def __init__(self, coarse: Level, fine: Level, *, learned: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(coarse.width, 4 * fine.width, 3, padding=1) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is None:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.pixel_shuffle(self.conv(x), 2)


class CompactVDVAESR(nn.Module):
    """p(hr | lr) with its posterior; see the module's diagram.

    The convolutions run in the dtype of the parameters (or of autocast); moments, KL, likelihood
    and the bicubic base are float32.
    """

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        self.lr_encoder = LREncoder(config)
        self.hr_encoder = HREncoder(config)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                TopDownBlock(
                    level.width, level.latent_channels, STYLE, gated=level.cell >= config.scale
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
        self.head = nn.Conv2d(finest.width, 6 * finest.cell**2, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """VDVAE's rules (Child 2021), with the gate of each level's first block open."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                slope = math.sqrt(5) if module.kernel_size == (1, 1) else 0.5
                nn.init.kaiming_uniform_(module.weight, a=slope)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        blocks = [block for level in self.blocks_by_level for block in level]
        with torch.no_grad():
            for stage in [*self.lr_encoder.stages, *self.hr_encoder.stages]:
                residuals = [block for block in stage.modules() if isinstance(block, Plain)]
                for residual in residuals:
                    residual.last.weight.mul_(0.5 / math.sqrt(len(residuals)))
            for block in blocks:
                block.z_proj.weight.mul_(math.sqrt(1 / len(blocks)))
                block.resnet.last.weight.mul_(math.sqrt(1 / len(blocks)))
                block.prior.last.weight.zero_()
                block.enc.last.weight.mul_(0.1)
            for first, *_ in self.blocks_by_level:
                if first.gate_param is not None:
                    first.gate_param.fill_(1.0)
            self.head.weight.mul_(0.1)

    @property
    def blocks_by_level(self) -> list[list[TopDownBlock]]:
        """The stochastic layers of each level, coarse to fine."""
        return [list(cast(Iterable[TopDownBlock], level)) for level in self.levels]

    @property
    def lr_multiple(self) -> int:
        """Sides of LR inputs must be multiples of this: the coarsest cell in LR pixels."""
        return self.config.levels[0].cell // self.scale

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer in the order of drawing, coarse to fine."""
        shapes = [
            (level.latent_channels, level.cell)
            for level in self.config.levels
            for _ in range(level.blocks)
        ]
        return [LatentShape(i, channels, cell) for i, (channels, cell) in enumerate(shapes)]

    def base(self, lr: Tensor) -> Tensor:
        """The bicubic picture (a = -0.5): lr (B, 3, h, w) in [0, 1] -> (B, 3, H, W) in [-1, 1]."""
        up = F.interpolate(
            lr.float(), scale_factor=self.scale, mode="bicubic", antialias=True, align_corners=False
        )
        return up.mul_(2).sub_(1)

    def sample(
        self, lr: Tensor, noise: NoiseSource | None, temperature: float, *, repeats: int = 1
    ) -> Tensor:
        """Draws latents from the conditional prior; returns the likelihood's parameters.

        Args:
            lr: (B, 3, h, w) in [0, 1], h and w multiples of ``lr_multiple``.
            noise: standard normals of each layer for B * repeats pictures; None for the mean path.
            temperature: factor on every latent's standard deviation; 0 is the mean path.
            repeats: samples drawn of each picture; the LR encoder runs once for all of them.

        Returns:
            (B * repeats, 6, H, W) float32, the samples of one picture side by side: mean of the
            pixels in [-1, 1], not clamped, and log scale.
        """
        base, activations = self.base(lr), self.lr_encoder(lr)
        if repeats > 1:
            base = base.repeat_interleave(repeats, 0)
            activations = {c: a.repeat_interleave(repeats, 0) for c, a in activations.items()}
        return self._generate(base, activations, noise, temperature)

    def elbo_and_mean(self, hr: Tensor, lr: Tensor, noise: NoiseSource) -> tuple[Elbo, Tensor]:
        """One training pass: the ELBO of hr given lr, and the mean path's pixels.

        Args:
            hr: (B, 3, H, W) in [-1, 1] on the 256 grey levels.
            lr: (B, 3, h, w) in [0, 1].
            noise: standard normals of each layer, for the posterior.
        """
        base, lr_activations = self.base(lr), self.lr_encoder(lr)
        hr_activations = self.hr_encoder((hr - base) / RESIDUAL_SCALE)
        rates = []

        def infer(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            x, kl = block.infer(x, hr_activations[shape.cell], noise(shape))
            rates.append(kl.sum(dim=(1, 2, 3)))
            return x

        mean, log_scale = self._top_down(base, lr_activations, infer).chunk(2, dim=1)
        distortion = -discretized_logistic_log_prob(hr, mean, log_scale).sum(dim=(1, 2, 3))
        mean_path = self._generate(base, lr_activations, None, 0.0)[:, :3]
        return Elbo(distortion, torch.stack(rates)), mean_path

    def mean_path(self, lr: Tensor) -> Tensor:
        """The picture at the prior's means: (B, 3, H, W) float32 in [-1, 1], not clamped."""
        return self.sample(lr, None, 0.0)[:, :3]

    def _generate(
        self,
        base: Tensor,
        lr_activations: dict[int, Tensor],
        noise: NoiseSource | None,
        temperature: float,
    ) -> Tensor:
        def generate(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            return block.generate(x, noise(shape) if noise else None, temperature)

        return self._top_down(base, lr_activations, generate)

    def _top_down(
        self,
        base: Tensor,
        lr_activations: dict[int, Tensor],
        step: Callable[[TopDownBlock, LatentShape, Tensor], Tensor],
    ) -> Tensor:
        x = torch.zeros_like(lr_activations[self.config.levels[0].cell])
        for level, layers in self._levels_with_layers():
            if level:
                x = self.upsamples[level - 1](x)
            for block, shape in layers:
                x = step(block, shape, block.condition(x, lr_activations.get(shape.cell)))
        mean, log_scale = (
            F.pixel_shuffle(self.head(x), self.config.levels[-1].cell).float().chunk(2, dim=1)
        )
        return torch.cat([base + RESIDUAL_SCALE * mean, (log_scale - 4).clamp(-7.0, 2.0)], dim=1)

    def _levels_with_layers(self) -> Iterator[tuple[int, list[tuple[TopDownBlock, LatentShape]]]]:
        shapes = iter(self.latent_shapes)
        for index, blocks in enumerate(self.blocks_by_level):
            yield index, [(block, next(shapes)) for block in blocks]

"""The parts of the compact models: levels and configuration, encoders, upsampling.

A level is named by its *cell*: the side, in HR pixels, of the square that one latent of it covers.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.models.blocks import BlockStyle, TopDownBlock
from vdsr_cli.models.protocol import LatentShape

STYLE = BlockStyle(kind="plain", log_std_range=(-8.0, 4.0))
MAX_LEVELS = 16
MAX_CONTEXT = 4096
MAX_BLOCKS = 1000
"""The most of a level: configurations come from files, and a list of so many is made at once."""


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
        if self.blocks > MAX_BLOCKS:
            raise ValueError(f"a level has at most {MAX_BLOCKS} blocks, got {self.blocks}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactConfig:
    """Architecture of a compact model.

    Attributes:
        scale: super-resolution factor.
        levels: coarse to fine.
        coupled: whether green depends on red, and blue on both, in the likelihood; see
            :mod:`~vdsr_cli.models.colours`. Files written before there was a choice do not say.
        neighbours: whether pixels, coupled ones, depend on those before them, too; see
            :mod:`~vdsr_cli.models.causal`.
        context: width of the network that looks at the pixels before; 0 for none.
    """

    scale: int
    levels: tuple[Level, ...]
    coupled: bool = False
    neighbours: bool = False
    context: int = 0

    def __post_init__(self) -> None:
        cells = [level.cell for level in self.levels]
        if not 1 <= len(cells) <= MAX_LEVELS:
            raise ValueError(f"there are 1 to {MAX_LEVELS} levels, got {len(cells)}")
        if cells != [cells[0] >> i for i in range(len(cells))]:
            raise ValueError(f"cells must halve from level to level, got {cells}")
        if type(self.scale) is not int or self.scale not in cells:
            raise ValueError(f"no level at the LR resolution: scale {self.scale}, cells {cells}")
        if len({level.width for level in self.levels if level.cell >= self.scale}) != 1:
            raise ValueError("all levels up to the LR resolution share one width")
        if any(level.lr_blocks for level in self.levels if level.cell < self.scale):
            raise ValueError("the LR encoder has no level finer than the LR picture")
        if self.neighbours > self.coupled or (self.context and not self.neighbours):
            raise ValueError("neighbours need coupled colours, and a context needs neighbours")
        if not 0 <= self.context <= MAX_CONTEXT:
            raise ValueError(f"a context is 0 to {MAX_CONTEXT} channels wide, got {self.context}")

    @property
    def lr_multiple(self) -> int:
        """The coarsest cell in LR pixels."""
        return self.levels[0].cell // self.scale

    def with_coupling(self, context: int) -> "CompactConfig":
        """The same with coupled colours, neighbours and, unless there is one, a context."""
        return replace(self, coupled=True, neighbours=True, context=self.context or context)

    @property
    def block(self) -> int:
        """Side of the blocks of HR pixels that depend on each other in the likelihood."""
        return self.levels[0].cell

    @property
    def lr_layers(self) -> int:
        """How many of the stochastic layers are at or below the LR resolution: the first ones."""
        return sum(level.blocks for level in self.levels if level.cell >= self.scale)

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer in the order of drawing, coarse to fine."""
        shapes = [
            (level.latent_channels, level.cell)
            for level in self.levels
            for _ in range(level.blocks)
        ]
        return [LatentShape(i, channels, cell) for i, (channels, cell) in enumerate(shapes)]


Step = Callable[[TopDownBlock, LatentShape, Tensor], Tensor]
"""Takes a layer's input state to its output state: draws its latent in one way or another."""


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
        x = self.conv_in((2 * lr - 1).to(self.conv_in.weight.dtype))
        activations = {}
        for i, (cell, stage) in enumerate(zip(self.cells, self.stages, strict=True)):
            x = F.avg_pool2d(x, 2) if i else x
            x = x + stage(x)
            activations[cell] = x
        return activations


class HREncoder(nn.Module):
    """Picture or residual (B, 3, H, W) -> HR activations by cell, for the posterior."""

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

    def forward(self, picture: Tensor) -> dict[int, Tensor]:
        x = F.pixel_unshuffle(picture, self.cells[0])
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


def enlarged(lr: Tensor, scale: int) -> Tensor:
    """The bicubic picture (a = -0.5): lr (B, 3, h, w) in [0, 1] -> (B, 3, H, W) in [-1, 1]."""
    # In the layout that pictures have, not that of feature maps: twice as fast.
    planes = lr.float().contiguous()
    up = F.interpolate(
        planes, scale_factor=scale, mode="bicubic", antialias=True, align_corners=False
    )
    return up.mul_(2).sub_(1)

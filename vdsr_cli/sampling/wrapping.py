"""Pictures whose one edge goes on at the opposite one: textures, and panoramas all around.

lr ─► with its own pixels again beyond its edges ─► strips, their noise periodic
   ─► seamless across ─► projected, resized ─► cropped (vdsr_cli.sampling.strips)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vdsr_cli.consistency.strips import HALO
from vdsr_cli.errors import UsageError
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.sampling.engine import SampleNoise, SamplingSettings
from vdsr_cli.sampling.noise import PIXEL_LAYER
from vdsr_cli.sampling.tiling import Padding, tiles_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Rows and columns of a picture that stand again beyond its edges.

    Attributes:
        height, width: of the picture, LR pixels.
        rows, columns: LR pixels beyond each edge, multiples of the model's cell; 0 along an axis
            that is not periodic.
    """

    height: int
    width: int
    rows: int = 0
    columns: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width with them."""
        return self.height + 2 * self.rows, self.width + 2 * self.columns

    def pixels(self, scale: int) -> tuple[int, int]:
        """Their rows and columns beyond an edge at a scale."""
        return self.rows * scale, self.columns * scale

    def at(self, scale: int) -> "Surroundings":
        """Those of the picture at a scale, in its pixels."""
        rows, columns = self.pixels(scale)
        return Surroundings(
            height=self.height * scale, width=self.width * scale, rows=rows, columns=columns
        )

    def within(self, most: int) -> "Surroundings":
        """No more than so many of them."""
        return Surroundings(
            height=self.height,
            width=self.width,
            rows=min(self.rows, most),
            columns=min(self.columns, most),
        )

    def around(self, lr: Tensor) -> Tensor:
        """(C, h, w) -> (C, h + 2 rows, w + 2 columns)."""
        rows, columns = self.rows, self.columns
        padding = Padding(top=rows, bottom=rows, left=columns, right=columns, periodic=True)
        return padding.apply(lr)

    def noise(self, noise: SampleNoise, model: Sampler) -> SampleNoise:
        """The noise of the picture as that of the picture with them."""
        if not self.rows and not self.columns:
            return noise
        cells = {s.layer: s.cell for s in model.latent_shapes if not s.is_global} | {PIXEL_LAYER: 1}
        spans = {layer: self._spans(cell, model) for layer, cell in cells.items()}
        return _PeriodicNoise(noise, spans)

    def _spans(self, cell: int, model: Sampler) -> "tuple[_Span, _Span]":
        def span(side: int, beyond: int) -> _Span:
            whole = math.ceil(side / model.lr_multiple) * model.lr_multiple
            period = whole * model.scale // cell if beyond else None
            return _Span(beyond=beyond * model.scale // cell, period=period)

        return span(self.height, self.rows), span(self.width, self.columns)

    def seamless(self, strip: Tensor, scale: int) -> Tensor:
        """Rows (..., W) with them, at a scale -> the same, periodic across: around the seam both of
        its sides, which tiles have drawn apart, fade into each other."""
        if not self.columns:
            return strip
        beyond, width = self.columns * scale, self.width * scale
        half = min(HALO * scale, width // 2)
        weight = (torch.arange(2 * half, device=strip.device) + 0.5) / (2 * half)
        left, right = (strip[..., at - half : at + half] for at in (beyond, beyond + width))
        seam = torch.lerp(right, left, weight)
        inner = strip[..., beyond + half : beyond + width - half]
        period = torch.cat([seam[..., half:], inner, seam[..., :half]], dim=-1)
        index = torch.arange(-beyond, width + beyond, device=strip.device) % width
        return period[..., index]


def surroundings(
    model: Sampler, height: int, width: int, settings: SamplingSettings, *, seen: int = HALO
) -> Surroundings:
    """As far as tiles, and what is made of them, look beyond the edges of a picture, where it is
    periodic.

    Args:
        height, width: of the picture, LR pixels.
        seen: LR pixels beyond an edge that are made use of.

    Raises:
        UsageError: a height that is not a multiple of the cell, where it is a period: it would be
            none of the noise's.
    """
    wrap, cell = settings.wrap or "none", model.lr_multiple
    if wrap == "none":
        return Surroundings(height=height, width=width)
    if "y" in wrap and height % cell:
        raise UsageError(
            f"--wrap {wrap} needs a height that is a multiple of {cell} pixels, not {height}",
            hint="crop or resize the picture first",
        )
    _, overlap = tiles_for(settings.tile, settings.overlap, cell=cell, fixed_tile=model.fixed_tile)
    far = math.ceil((overlap + seen) / cell) * cell
    return Surroundings(
        height=height, width=width, rows=far * ("y" in wrap), columns=far * ("x" in wrap)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """An axis in the cells of a layer: those before the picture, and its period, if it has one."""

    beyond: int
    period: int | None

    def places(self, positions: Tensor) -> Tensor:
        """Positions among all cells -> those in the picture."""
        return positions if self.period is None else (positions - self.beyond) % self.period


class _PeriodicNoise:
    """Noise that begins anew where the picture does; ``spans`` of rows and columns by layer."""

    def __init__(self, noise: SampleNoise, spans: Mapping[int, tuple[_Span, _Span]]) -> None:
        self.noise, self.spans = noise, spans

    def normal(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """Standard normals, as :meth:`~vdsr_cli.sampling.noise.NoiseField.normal`."""
        return self.noise.normal(layer, *self._places(layer, rows, columns), channels)

    def logistic(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """Standard logistic noise of pixels, likewise."""
        return self.noise.logistic(layer, *self._places(layer, rows, columns), channels)

    def _places(self, layer: int, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self.spans:  # a global latent
            return rows, columns
        of_rows, of_columns = self.spans[layer]
        return of_rows.places(rows), of_columns.places(columns)

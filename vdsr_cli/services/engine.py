"""The sampling engine: one LR picture in, finished strips of its samples out.

The tiles of one row are sampled in batches of neighbours and blended into a band; when the next
row of tiles no longer reaches a strip of the band, the strip is yielded. A batch is one connected
piece of the picture, so that what its tiles share is computed once; where a row has fewer tiles
than a batch, the rows are taller. Memory is that of a band, whatever the height of the picture.
What comes out is a function of (lr, model, seed, sample, temperature): tile size and batch size
only change the rounding and what reaches a batch's edge.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from vdsr_cli.config import DEFAULT_BATCH
from vdsr_cli.errors import DeviceError
from vdsr_cli.models.compact import LatentShape, NoiseSource
from vdsr_cli.noise import NoiseField
from vdsr_cli.runtime import Runtime, is_out_of_memory
from vdsr_cli.tiling import AxisPlan, Padding, plan_axis, plan_padding, taller_tile

PIXEL_LAYER = -1
"""The noise field's layer for the likelihood's own noise (``--output sample``)."""
_SAMPLES_A_PASS = 8
"""Samples drawn at once of a batch of tiles, for which its LR encoder runs once."""


class ConditionalSampler(Protocol):
    """What the engine needs of a model."""

    @property
    def scale(self) -> int:
        """Integer super-resolution factor."""

    @property
    def lr_multiple(self) -> int:
        """Sides of LR inputs must be multiples of this: the coarsest cell in LR pixels."""

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer, coarse to fine."""

    def sample(
        self, lr: Tensor, noise: NoiseSource | None, temperature: float, *, repeats: int = 1
    ) -> Tensor:
        """(B, 3, h, w) in [0, 1] -> (B * repeats, 6, H, W): pixel means in [-1, 1], log scales."""


class SampleNoise(Protocol):
    """The noise of one sample, by position: :class:`NoiseField`, or what stands in for it."""

    def normal(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """Standard normals (len(rows), len(columns), channels) float32, on the rows' device."""

    def logistic(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """Standard logistic noise; otherwise as :meth:`normal`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How a picture is sampled.

    Attributes:
        temperature: factor on every latent's standard deviation.
        seed: of the noise field.
        samples: which samples to draw, by index.
        tile, overlap: LR pixels; tile 0 is the whole picture at once.
        batch_size: most tiles a batch.
        output: the likelihood's mean, or a draw from it.
        wrap: the picture is periodic.
    """

    temperature: float = 0.8
    seed: int = 0
    samples: tuple[int, ...] = (0,)
    tile: int = 64
    overlap: int = 16
    batch_size: int = DEFAULT_BATCH
    output: Literal["mean", "sample"] = "mean"
    wrap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturePlan:
    """Padding and tiles of one picture."""

    height: int
    width: int
    padding: Padding
    rows: AxisPlan
    columns: AxisPlan

    @property
    def tiles(self) -> int:
        """How many tiles will be sampled."""
        return len(self.rows.starts) * len(self.columns.starts)

    def finished_by(self, row: int) -> range:
        """The LR rows of the picture that no tile below this row of tiles reaches, and tiles
        above it do not finish: perhaps none, where it lies in the padding."""
        starts, before = self.rows.starts, self.padding.top
        end = starts[row + 1] if row + 1 < len(starts) else self.rows.length
        return range(max(starts[row] - before, 0), min(end - before, self.height))

    @property
    def strip_rows(self) -> tuple[int, ...]:
        """The rows of tiles that finish a strip."""
        return tuple(row for row in range(len(self.rows.starts)) if self.finished_by(row))

    def first_reaching(self, row: int) -> int:
        """The first row of tiles that shares pixels with this one, or is it."""
        starts, tile = self.rows.starts, self.rows.tile
        return next(other for other in range(row + 1) if starts[other] + tile > starts[row])


def plan_picture(height: int, width: int, *, cell: int, settings: SamplingSettings) -> PicturePlan:
    """Plans an LR picture of ``height`` by ``width`` pixels."""
    tile, overlap = settings.tile, settings.overlap
    padding = plan_padding(height, width, cell=cell, margin=overlap, wrap=settings.wrap)
    across, down = padding.left + width + padding.right, padding.top + height + padding.bottom
    columns = plan_axis(across, tile=tile, overlap=overlap, cell=cell)
    together = settings.batch_size // len(columns.starts)
    if tile and together > 1:
        tile = taller_tile(down, tile=tile, overlap=overlap, cell=cell, together=together)
    rows = plan_axis(down, tile=tile, overlap=overlap, cell=cell)
    return PicturePlan(height=height, width=width, padding=padding, rows=rows, columns=columns)


@dataclass(frozen=True, slots=True)
class Strip:
    """Finished rows: ``pixels`` (samples, 3, rows, W) float32, nominally in [0, 1], not clamped,
    whose first row is HR row ``top``."""

    top: int
    pixels: Tensor


@torch.inference_mode()
def sample_strips(
    model: ConditionalSampler,
    lr: Tensor,
    settings: SamplingSettings,
    runtime: Runtime,
    *,
    noises: Sequence[SampleNoise] | None = None,
    first: int = 0,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> Iterator[Strip]:
    """Samples a picture and yields its strips from top to bottom.

    Those that begin with a later one are the same, bit for bit: the rows of tiles that reach into
    it are sampled again.

    Args:
        model: placed by the runtime.
        lr: (3, h, w) float32 in [0, 1], on the CPU.
        settings: how.
        runtime: device and dtype.
        noises: one a sample; None for the noise fields of the settings' seed and samples.
        first: the strip to begin with, one of the plan's ``strip_rows`` by its index.
        on_tiles: told how many tiles have just been finished, or need not be sampled.

    Raises:
        DeviceError: one tile does not fit into memory, or a tile is not finite.
    """
    plan = plan_picture(lr.shape[1], lr.shape[2], cell=model.lr_multiple, settings=settings)
    if noises is None:
        noises = [NoiseField(seed=settings.seed, sample=i) for i in settings.samples]
    band = _Band(plan, model.scale, len(noises), runtime.device)
    drawer = _TileDrawer(model, plan.padding.apply(lr), plan, settings, runtime, noises)
    begin = plan.first_reaching(plan.strip_rows[first]) if first else 0
    on_tiles(begin * len(plan.columns.starts))
    for row in range(begin, len(plan.rows.starts)):
        for columns, pixels in drawer.draw_row(row):
            band.add(row, columns, pixels)
            on_tiles(len(columns))
        strip = band.finish(row)
        if strip is not None and row >= plan.strip_rows[first]:
            yield strip


class _Band:
    """The running sum of weighted tiles of one row of tiles."""

    def __init__(self, plan: PicturePlan, scale: int, samples: int, device: torch.device) -> None:
        self.plan, self.scale = plan, scale
        self.row_windows = plan.rows.windows(scale).to(device)
        self.column_windows = plan.columns.windows(scale).to(device)
        self.sum = torch.zeros(
            samples, 3, plan.rows.tile * scale, plan.columns.length * scale, device=device
        )

    def add(self, row: int, columns: range, pixels: Tensor) -> None:
        """Adds a batch of neighbouring tiles: pixels (samples, 3, T, width of the batch)."""
        starts, tile = self.plan.columns.starts, self.plan.columns.tile * self.scale
        left = starts[columns.start] * self.scale
        horizontal = torch.zeros(pixels.shape[-1], device=pixels.device)
        for column in columns:
            offset = starts[column] * self.scale - left
            horizontal[offset : offset + tile] += self.column_windows[column]
        window = self.row_windows[row].unsqueeze(1) * horizontal
        self.sum[..., left : left + pixels.shape[-1]].addcmul_(pixels, window)

    def finish(self, row: int) -> Strip | None:
        """The rows that no later tile reaches, and moves the rest of the band up."""
        starts, scale = self.plan.rows.starts, self.scale
        last = row == len(starts) - 1
        done = self.sum.shape[2] if last else (starts[row + 1] - starts[row]) * scale
        strip = self._cropped(row)
        if not last:
            rest = self.sum[:, :, done:].clone()
            self.sum.zero_()
            self.sum[:, :, : rest.shape[2]] = rest
        return strip

    def _cropped(self, row: int) -> Strip | None:
        """What a row of tiles has finished of the picture."""
        padding, scale, rows = self.plan.padding, self.scale, self.plan.finished_by(row)
        if not rows:
            return None
        top = (rows.start + padding.top - self.plan.rows.starts[row]) * scale
        left = padding.left * scale
        width = self.plan.width * scale
        pixels = self.sum[:, :, top : top + len(rows) * scale, left : left + width]
        return Strip(rows.start * scale, pixels.add(1).mul_(0.5).cpu())


class _TileDrawer:
    """Draws the tiles of a row in batches, halving the batch when memory runs out."""

    def __init__(
        self,
        model: ConditionalSampler,
        padded: Tensor,
        plan: PicturePlan,
        settings: SamplingSettings,
        runtime: Runtime,
        noises: Sequence[SampleNoise],
    ) -> None:
        self.model, self.padded, self.plan = model, padded, plan
        self.settings, self.runtime = settings, runtime
        self.fields = noises
        self.batch = settings.batch_size

    def draw_row(self, row: int) -> Iterator[tuple[range, Tensor]]:
        """Batches of (column indices, pixels (samples, 3, T, width)) of one row of tiles."""
        noise = _RowNoise(self, row) if self.settings.temperature > 0 else None
        column, count = 0, len(self.plan.columns.starts)
        while column < count:
            rest = count - column
            columns = range(column, column + math.ceil(rest / math.ceil(rest / self.batch)))
            try:
                pixels = self._draw(row, columns, noise)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self._halve(error)
                continue
            yield columns, pixels
            column = columns.stop

    def _halve(self, error: Exception) -> None:
        if not is_out_of_memory(error):
            raise error
        if self.batch == 1:
            raise DeviceError(
                f"a {self.plan.columns.tile}x{self.plan.rows.tile} tile does not fit into memory",
                hint=self._smaller_tile(),
            ) from error
        self.batch //= 2

    def _smaller_tile(self) -> str:
        """What to try where one tile is too much: half the tile, if the overlap allows."""
        cell = self.model.lr_multiple
        if 0 < self.settings.tile < self.plan.rows.tile:
            return "try --batch-size 1"
        side = max(self.plan.columns.tile, self.plan.rows.tile)
        smaller = max(side // 2 // cell * cell, 2 * self.settings.overlap, cell)
        return f"try --tile {smaller}" if smaller < side else "try --device cpu"

    def _draw(self, row: int, columns: range, noise: "_RowNoise | None") -> Tensor:
        plan = self.plan
        top, left = plan.rows.starts[row], plan.columns.starts[columns.start]
        width = plan.columns.starts[columns.stop - 1] + plan.columns.tile - left
        lr = self.padded[None, :, top : top + plan.rows.tile, left : left + width]
        lr = lr.to(self.runtime.device, self.runtime.dtype, memory_format=torch.channels_last)
        drawn = []
        for first in range(0, len(self.fields), _SAMPLES_A_PASS):
            chosen = range(first, min(first + _SAMPLES_A_PASS, len(self.fields)))
            source = None if noise is None else noise.source(chosen, left, width)
            temperature = self.settings.temperature
            parameters = self.model.sample(lr, source, temperature, repeats=len(chosen))
            drawn.append(self._pixels(parameters, chosen, top, left))
        pixels = torch.cat(drawn) if len(drawn) > 1 else drawn[0]
        if not torch.isfinite(pixels.sum()):
            raise DeviceError(
                f"tile at row {top}, column {left} is not finite", hint="try --dtype float32"
            )
        return pixels

    def _pixels(self, parameters: Tensor, chosen: range, top: int, left: int) -> Tensor:
        """The likelihood's parameters (samples, 6, H, W) -> pixels (samples, 3, H, W)."""
        pixels, log_scale = parameters.chunk(2, dim=1)
        if self.settings.output == "mean":
            return pixels
        height, width = (side // self.model.scale for side in pixels.shape[2:])
        rows = self.positions(top, height, 1, vertical=True)
        columns = self.positions(left, width, 1, vertical=False)
        noise = [self.fields[i].logistic(PIXEL_LAYER, rows, columns, 3) for i in chosen]
        return (pixels + log_scale.exp() * torch.stack(noise).permute(0, 3, 1, 2)).clamp(-1, 1)

    def positions(self, start: int, length: int, cell: int, *, vertical: bool) -> Tensor:
        """Absolute cell positions of ``length`` LR pixels from padded position ``start``."""
        padding, plan = self.plan.padding, self.plan
        before, period = (padding.top, plan.height) if vertical else (padding.left, plan.width)
        scale = self.model.scale
        first = (start - before) * scale // cell
        cells = torch.arange(first, first + length * scale // cell, dtype=torch.int32)
        if padding.periodic:
            cells %= period * scale // cell
        return cells.to(self.runtime.device)


class _RowNoise:
    """The noise of one row of tiles, drawn once at full width and shared by overlapping tiles."""

    def __init__(self, drawer: _TileDrawer, row: int) -> None:
        plan = drawer.plan
        self.scale = drawer.model.scale
        self.layers: dict[int, list[Tensor]] = {}
        for shape in drawer.model.latent_shapes:
            rows = drawer.positions(
                plan.rows.starts[row], plan.rows.tile, shape.cell, vertical=True
            )
            columns = drawer.positions(0, plan.columns.length, shape.cell, vertical=False)
            self.layers[shape.layer] = [
                field.normal(shape.layer, rows, columns, shape.channels) for field in drawer.fields
            ]

    def source(self, chosen: range, left: int, width: int) -> NoiseSource:
        """The noise of some samples in ``width`` LR pixels of the row from ``left`` on."""

        def draw(shape: LatentShape) -> Tensor:
            first = left * self.scale // shape.cell
            columns = slice(first, first + width * self.scale // shape.cell)
            cut = [self.layers[shape.layer][i][:, columns] for i in chosen]
            return torch.stack(cut).permute(0, 3, 1, 2)

        return draw

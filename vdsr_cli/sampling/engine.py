"""The sampling engine: one LR picture in, finished strips of its samples out.

The tiles of one row are sampled in batches of neighbours and blended into a band; when the next
row of tiles no longer reaches a strip of the band, the strip is yielded. A batch is one connected
piece of the picture, so that what its tiles share is computed once; where a row has fewer pixels
than a batch of tiles, the rows are taller. A model of one picture size gets its tiles one by one
instead.
Memory is that of a band, whatever the height of the picture.
What comes out is a function of (lr, model, seed, sample, temperature): tile size and batch size
only change the rounding and what reaches a batch's edge.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from vdsr_cli.config import DEFAULT_BATCH, DEFAULT_TEMPERATURE, Edges, Temperature, Wrap
from vdsr_cli.errors import DeviceError, UsageError
from vdsr_cli.models.protocol import LatentShape, NoiseSource, Sampler
from vdsr_cli.runtime import Batches, Runtime
from vdsr_cli.sampling.cuda_graphs import sample
from vdsr_cli.sampling.noise import PIXEL_LAYER, NoiseField
from vdsr_cli.sampling.tiling import (
    AxisPlan,
    Padding,
    mirrored,
    plan_axis,
    plan_padding,
    taller_tile,
    tiles_for,
)

_MOST_TILES = 64
"""The most of a batch that memory decides: a card is busy with fewer, and strips would be large."""
_SAMPLES_A_PASS = 8
"""Samples drawn at once of a batch of tiles, for which its LR encoder runs once."""
_MEASURED: WeakKeyDictionary[Sampler, dict[tuple[int, Runtime], int]] = WeakKeyDictionary()
"""Bytes of a tile, by its side and where the model runs; gone with the model."""


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
        temperature: factor on every latent's standard deviation, or on those of each level.
        seed: of the noise field.
        samples: which samples to draw, by index.
        tile, overlap: LR pixels; tile 0 is the whole picture at once; None is the model's own
            choice.
        batch_size: most tiles a batch; None for ``DEFAULT_BATCH``, or what :func:`fitting` chose.
        output: the likelihood's mean, or a draw from it.
        wrap: the axes along which the picture is periodic; None for x where the picture says that
            it is a panorama all around.
        edges: of the reduction that the consistency projection inverts.
    """

    temperature: Temperature = DEFAULT_TEMPERATURE
    seed: int = 0
    samples: tuple[int, ...] = (0,)
    tile: int | None = None
    overlap: int | None = None
    batch_size: int | None = None
    output: Literal["mean", "sample"] = "mean"
    wrap: Wrap | None = None
    edges: Edges = Edges.repeat

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"a batch of {self.batch_size} tiles is none")
        if self.output not in ("mean", "sample"):
            raise UsageError(f"pixels are the mean or a sample, not {self.output!r}")

    @property
    def periodic(self) -> str:
        """The axes along which the picture is periodic: x, y, xy, or empty."""
        return "" if self.wrap in (None, "none") else self.wrap

    @property
    def most_tiles(self) -> int:
        """Tiles a batch."""
        return self.batch_size or DEFAULT_BATCH


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


def plan_picture(
    height: int,
    width: int,
    *,
    cell: int,
    settings: SamplingSettings,
    fixed_tile: int | None = None,
    margin: int = 0,
) -> PicturePlan:
    """Plans an LR picture of ``height`` by ``width`` pixels for a model's cell, tile and margin.

    Raises:
        UsageError: tiles that the model does not take.
    """
    tile, overlap = tiles_for(settings.tile, settings.overlap, cell=cell, fixed_tile=fixed_tile)
    padding = plan_padding(
        height,
        width,
        cell=cell,
        margin=margin,
        least=fixed_tile or 0,
    )
    across, down = padding.left + width + padding.right, padding.top + height + padding.bottom
    columns = plan_axis(across, tile=tile, overlap=overlap, cell=cell)
    longest = settings.most_tiles * tile**2 // max(across, tile, 1)
    if longest >= 2 * tile - overlap > 0 and not fixed_tile:
        tile = taller_tile(down, longest=longest, overlap=overlap, cell=cell)
    rows = plan_axis(down, tile=tile, overlap=overlap, cell=cell)
    return PicturePlan(height=height, width=width, padding=padding, rows=rows, columns=columns)


def plan_for(model: Sampler, height: int, width: int, settings: SamplingSettings) -> PicturePlan:
    """:func:`plan_picture` for a model."""
    return plan_picture(
        height,
        width,
        cell=model.lr_multiple,
        settings=settings,
        fixed_tile=model.fixed_tile,
        margin=model.margin,
    )


@torch.inference_mode()
def fitting(
    settings: SamplingSettings, model: Sampler, runtime: Runtime, *, samples: int = 1
) -> SamplingSettings:
    """The settings; on CUDA with the batch, where none is given, that half of the card's memory
    holds for so many samples, by what one of a tile takes. The same card chooses the same batch.

    Raises:
        UsageError: tiles that the model does not take.
    """
    if settings.batch_size is not None or runtime.device.type != "cuda" or settings.tile == 0:
        return settings
    cell, fixed = model.lr_multiple, model.fixed_tile
    tile, _ = tiles_for(settings.tile, settings.overlap, cell=cell, fixed_tile=fixed)
    room = torch.cuda.get_device_properties(runtime.device).total_memory // 2
    each = _tile_bytes(model, tile, runtime)
    if fixed is None:
        each *= min(samples, _SAMPLES_A_PASS)
    return replace(settings, batch_size=max(1, min(_MOST_TILES, room // each)))


def _tile_bytes(model: Sampler, tile: int, runtime: Runtime) -> int:
    """Bytes of a card's memory that a sample of one tile takes; measured once for each model."""
    measured = _MEASURED.setdefault(model, {})
    if (tile, runtime) not in measured:
        measured[tile, runtime] = _measured_bytes(model, tile, runtime)
    return measured[tile, runtime]


def _measured_bytes(model: Sampler, tile: int, runtime: Runtime) -> int:
    device, side = runtime.device, tile * model.scale
    lr = torch.zeros(1, 3, tile, tile, device=device)

    def noise(shape: LatentShape) -> Tensor:
        cells = 1 if shape.is_global else side // shape.cell
        return torch.zeros(1, shape.channels, cells, cells, device=device)

    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    model.pixels(model.sample(lr.to(memory_format=torch.channels_last), noise, 1.0), None)
    return torch.cuda.max_memory_allocated(device) - before


def limits_of(model: Sampler, plan: PicturePlan) -> tuple[str, ...]:
    """The limits of a model of one picture size for a picture: notes for the user."""
    if model.fixed_tile is None:
        return ()
    side = model.fixed_tile
    if plan.tiles == 1:
        is_whole = plan.height == plan.width == side
        return () if is_whole else (f"the model knows {side}x{side} pixels: padded to that",)
    return (
        f"the model knows {side}x{side} pixels: each of {plan.tiles} tiles is a picture of its own;"
        " they share their noise where they overlap, but need not agree",
    )


@dataclass(frozen=True, slots=True)
class Strip:
    """Finished rows: ``pixels`` (samples, 3, rows, W) float32, nominally in [0, 1], not clamped,
    whose first row is HR row ``top``, on the device that sampled them."""

    top: int
    pixels: Tensor


@torch.inference_mode()
def sample_strips(
    model: Sampler,
    lr: Tensor,
    settings: SamplingSettings,
    runtime: Runtime,
    *,
    plan: PicturePlan | None = None,
    noises: Sequence[SampleNoise] | None = None,
    first: int = 0,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> Iterator[Strip]:
    """Samples a picture and yields its strips from top to bottom.

    Those that begin with a later one are the same, bit for bit: the rows of tiles that reach into
    it are sampled again.

    Args:
        lr: (3, h, w) float32 in [0, 1], on the CPU or the runtime's device.
        plan: of the picture; None for that of the settings.
        noises: one a sample; None for the noise fields of the settings' seed and samples.
        first: the strip to begin with, one of the plan's ``strip_rows`` by its index.
        on_tiles: told how many tiles have just been finished, or need not be sampled.

    Raises:
        DeviceError: one tile does not fit into memory, or a tile is not finite.
    """
    plan = plan or plan_for(model, lr.shape[1], lr.shape[2], settings)
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
        self.sum = torch.empty(
            samples, 3, plan.rows.tile * scale, plan.columns.length * scale, device=device
        )
        self.is_blank = True

    def add(self, row: int, columns: range, pixels: Tensor) -> None:
        """Adds a batch of neighbouring tiles: pixels (samples, 3, T, width of the batch)."""
        starts, tile = self.plan.columns.starts, self.plan.columns.tile * self.scale
        left = starts[columns.start] * self.scale
        horizontal = torch.zeros(pixels.shape[-1], device=pixels.device)
        for column in columns:
            offset = starts[column] * self.scale - left
            horizontal[offset : offset + tile] += self.column_windows[column]
        window = self.row_windows[row].unsqueeze(1) * horizontal
        if self.is_blank and len(columns) == len(starts):
            torch.mul(pixels, window, out=self.sum)
        else:
            total = self.sum.zero_() if self.is_blank else self.sum
            total[..., left : left + pixels.shape[-1]].addcmul_(pixels, window)
        self.is_blank = False

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
        """The part of the picture that a row of tiles has finished."""
        padding, scale, rows = self.plan.padding, self.scale, self.plan.finished_by(row)
        if not rows:
            return None
        top = (rows.start + padding.top - self.plan.rows.starts[row]) * scale
        left = padding.left * scale
        width = self.plan.width * scale
        pixels = self.sum[:, :, top : top + len(rows) * scale, left : left + width]
        # Behind the last row of tiles the band has done its work.
        is_last = row == len(self.plan.rows.starts) - 1
        pixels = pixels.add_(1) if is_last else pixels.add(1)
        return Strip(rows.start * scale, pixels.mul_(0.5))


class _TileDrawer:
    """Draws the tiles of a row in batches."""

    def __init__(
        self,
        model: Sampler,
        padded: Tensor,
        plan: PicturePlan,
        settings: SamplingSettings,
        runtime: Runtime,
        noises: Sequence[SampleNoise],
    ) -> None:
        self.model, self.padded, self.plan = model, padded, plan
        self.settings, self.runtime = settings, runtime
        self.fields = noises
        self.batches = Batches(self._most_tiles())

    def draw_row(self, row: int) -> Iterator[tuple[range, Tensor]]:
        """Batches of (column indices, pixels (samples, 3, T, width)) of one row of tiles."""
        noise = _RowNoise(self, row) if self.settings.temperature else None

        def draw(columns: range) -> list[tuple[range, Tensor]]:
            return self._draw(row, columns, noise)

        columns = range(len(self.plan.columns.starts))
        for drawn in self.batches.run(columns, draw, self._too_large):
            yield from drawn

    def _most_tiles(self) -> int:
        """Tiles a batch: of a model of fixed size each sample of each tile is a picture of its own,
        and a processor is busy with one."""
        if self.model.fixed_tile is None:
            return self.settings.most_tiles
        if self.runtime.device.type == "cpu":
            return 1
        return max(1, self.settings.most_tiles // min(len(self.fields), _SAMPLES_A_PASS))

    def _too_large(self) -> DeviceError:
        return DeviceError(
            f"a {self.plan.columns.tile}x{self.plan.rows.tile} tile does not fit into memory",
            hint=self._smaller_tile(),
        )

    def _smaller_tile(self) -> str:
        """A hint for where one tile is too much: half the tile, if the overlap allows."""
        cell, fixed = self.model.lr_multiple, self.model.fixed_tile
        tile, overlap = tiles_for(
            self.settings.tile, self.settings.overlap, cell=cell, fixed_tile=fixed
        )
        if 0 < tile < self.plan.rows.tile:
            return "try --batch-size 1"
        side = max(self.plan.columns.tile, self.plan.rows.tile)
        smaller = fixed or max(side // 2 // cell * cell, 2 * overlap, cell)
        return f"try --tile {smaller}" if smaller < side else "try --device cpu"

    def _draw(
        self, row: int, columns: range, noise: "_RowNoise | None"
    ) -> list[tuple[range, Tensor]]:
        """A batch: its pieces with the tiles that they are made of."""
        pieces = self._pieces(columns)
        top, spans = self.plan.rows.starts[row], [self._span(piece) for piece in pieces]
        height = self.plan.rows.tile
        lr = torch.stack([self.padded[:, top : top + height, a:b] for a, b in spans])
        # In float32: a picture of 16 bits has more than bfloat16 holds, and its bicubic base too.
        lr = lr.to(self.runtime.device, torch.float32, memory_format=torch.channels_last)
        drawn = []
        for first in range(0, len(self.fields), _SAMPLES_A_PASS):
            chosen = range(first, min(first + _SAMPLES_A_PASS, len(self.fields)))
            source = None if noise is None else noise.source(chosen, spans)
            pixels = self._pixels(lr, source, chosen, top, spans)
            drawn.append(pixels.view(len(pieces), len(chosen), *pixels.shape[1:]))
        pixels = torch.cat(drawn, dim=1) if len(drawn) > 1 else drawn[0]
        if not torch.isfinite(pixels.sum()):
            raise DeviceError(
                f"tile at row {top}, column {spans[0][0]} is not finite",
                hint=None if self.runtime.dtype == torch.float32 else "try --dtype float32",
            )
        return list(zip(pieces, pixels, strict=True))

    def _pixels(
        self,
        lr: Tensor,
        source: NoiseSource | None,
        chosen: range,
        top: int,
        spans: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Some samples of each piece: (pieces * samples, 3, H, W) on [-1, 1]."""
        temperature, repeats = self.settings.temperature, len(chosen)
        if self.settings.output == "mean":
            return sample(self.model, lr, source, temperature, repeats=repeats, means_only=True)
        parameters = sample(self.model, lr, source, temperature, repeats=repeats)
        return self.model.pixels(parameters, self._pixel_noise(chosen, top, spans))

    def _pieces(self, columns: range) -> list[range]:
        """Neighbouring tiles that the model sees as one piece of the picture."""
        if self.model.fixed_tile is None:
            return [columns]
        return [range(column, column + 1) for column in columns]

    def _span(self, columns: range) -> tuple[int, int]:
        """The first LR column of a piece, and the one behind its last."""
        starts = self.plan.columns.starts
        return starts[columns.start], starts[columns.stop - 1] + self.plan.columns.tile

    def _pixel_noise(self, chosen: range, top: int, spans: Sequence[tuple[int, int]]) -> Tensor:
        """The likelihood's own noise (pieces * samples, channels, H, W)."""
        channels = self.model.pixel_noise_channels
        rows = self.positions(top, self.plan.rows.tile, 1, vertical=True)
        noise = [
            self.fields[i].logistic(
                PIXEL_LAYER, rows, self.positions(a, b - a, 1, vertical=False), channels
            )
            for a, b in spans
            for i in chosen
        ]
        return torch.stack(noise).permute(0, 3, 1, 2)

    def positions(self, start: int, length: int, cell: int, *, vertical: bool) -> Tensor:
        """Absolute cell positions of ``length`` LR pixels from padded position ``start``; those
        in the margin are what the mirror shows."""
        padding, plan = self.plan.padding, self.plan
        before, side = (padding.top, plan.height) if vertical else (padding.left, plan.width)
        scale = self.model.scale
        first = (start - before) * scale // cell
        cells = torch.arange(first, first + length * scale // cell, dtype=torch.int32)
        after = padding.bottom if vertical else padding.right
        cells = mirrored(cells, (side + after - before) * scale // cell)
        return cells.to(self.runtime.device)


class _RowNoise:
    """The noise of one row of tiles, drawn once at full width and shared by overlapping tiles."""

    def __init__(self, drawer: _TileDrawer, row: int) -> None:
        self.drawer, self.row = drawer, row
        self.scale = drawer.model.scale
        self.layers: dict[int, list[Tensor]] = {}
        for shape in drawer.model.latent_shapes:
            rows, columns = self._positions(shape)
            self.layers[shape.layer] = [
                field.normal(shape.layer, rows, columns, shape.channels) for field in drawer.fields
            ]

    def _positions(self, shape: LatentShape) -> tuple[Tensor, Tensor]:
        """Cells of the row of tiles; a global latent has one for all tiles."""
        plan, positions = self.drawer.plan, self.drawer.positions
        if shape.is_global:
            first = torch.zeros(1, dtype=torch.int32, device=self.drawer.runtime.device)
            return first, first
        top = plan.rows.starts[self.row]
        rows = positions(top, plan.rows.tile, shape.cell, vertical=True)
        return rows, positions(0, plan.columns.length, shape.cell, vertical=False)

    def source(self, chosen: range, spans: Sequence[tuple[int, int]]) -> NoiseSource:
        """The noise of some samples in pieces of the row, from one LR column up to another."""

        def draw(shape: LatentShape) -> Tensor:
            cut = [
                self.layers[shape.layer][i][:, self._columns(shape, span)]
                for span in spans
                for i in chosen
            ]
            return torch.stack(cut).permute(0, 3, 1, 2)

        return draw

    def _columns(self, shape: LatentShape, span: tuple[int, int]) -> slice:
        if shape.is_global:
            return slice(None)
        return slice(*(side * self.scale // shape.cell for side in span))

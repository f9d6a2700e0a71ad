"""Drawing the samples of one temperature: one pass of the engine, row by row.

strips (samples, 3, rows, W) ─► grey? ─► projection ─► [mask] ─► exact rows in [0, 1]
    exact rows ─► rounded by cells ─► one Canvas a sample;  mean, deviation, distances, LR-PSNR
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdsr_cli.consistency import ClippedStripProjection, project_within, round_cells
from vdsr_cli.images import Canvas, Metadata
from vdsr_cli.metrics.streaming import LrFidelity, PairwiseDistances
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import SampleNoise, SamplingSettings, sample_strips


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """What is sampled.

    Attributes:
        lr: (3, h, w) float32 in [0, 1], premultiplied by alpha.
        alpha: (1, H, W) of the result, or None.
        metadata: of the source, for the canvases.
        is_projected: whether samples must degrade to ``lr``.
        mask: (H, W) bool; outside it every sample is sample 0. None for no mask.
    """

    lr: Tensor
    alpha: Tensor | None
    metadata: Metadata
    is_projected: bool
    mask: Tensor | None = None

    @property
    def full(self) -> int:
        """The level that stands for 1 in the result's files."""
        return 65535 if self.metadata.bit_depth == 16 else 255


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleSet:
    """The samples of one temperature, ready to be written.

    Attributes:
        canvases: one a sample.
        mean: of the samples, which degrades to the input as they do.
        std: (H, W) float32: root mean square over the channels of the samples' standard deviation
            (of n - 1 degrees of freedom), where 1 is white; zeros for one sample.
        distances: (samples, samples) mean squared differences of the rounded pictures.
        lr_psnr: of each sample, before rounding.
        mean_lr_psnr: of the mean, before rounding.
    """

    canvases: tuple[Canvas, ...]
    mean: Canvas
    std: Tensor
    distances: Tensor
    lr_psnr: tuple[float, ...]
    mean_lr_psnr: float


def draw_set(
    model: Sampler,
    subject: Subject,
    settings: SamplingSettings,
    noises: Sequence[SampleNoise],
    runtime: Runtime,
    *,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> SampleSet:
    """Draws one sample for each noise, all in one pass: the LR encoder sees each tile once.

    Memory is that of the canvases, unless there is a mask: then the samples are held as floats.
    """
    height, width = (side * model.scale for side in subject.lr.shape[1:])
    collector = _Collector(subject, len(noises), model.scale, height, width)
    rows = _exact_rows(model, subject, settings, noises, runtime, on_tiles)
    for exact in rows:
        collector.add(exact, round_rows(exact, subject, model.scale))
    return collector.finish()


def round_rows(exact: Tensor, subject: Subject, scale: int) -> Tensor:
    """Rows as their file will hold them; with alpha that is left to the canvas, which divides."""
    if subject.alpha is not None:
        return exact
    return round_cells(exact, scale, full=subject.full)


def _exact_rows(
    model: Sampler,
    subject: Subject,
    settings: SamplingSettings,
    noises: Sequence[SampleNoise],
    runtime: Runtime,
    on_tiles: Callable[[int], None],
) -> Iterator[Tensor]:
    """Rows (samples, 3, rows, W) in [0, 1], from top to bottom."""
    strips = sample_strips(model, subject.lr, settings, runtime, noises=noises, on_tiles=on_tiles)
    pixels = (_as_stored(strip.pixels.cpu(), subject) for strip in strips)
    if subject.is_projected:
        projections = [ClippedStripProjection(subject.lr, model.scale) for _ in noises]
        rows = (
            torch.stack([p.push(sample) for p, sample in zip(projections, strip, strict=True)])
            for strip in pixels
        )
    else:
        rows = (strip.clamp(0, 1) for strip in pixels)
    if subject.mask is None:
        yield from (part for part in rows if part.shape[2])
    else:
        yield merge_in_mask(torch.cat(list(rows), dim=2), subject, model.scale)


def _as_stored(pixels: Tensor, subject: Subject) -> Tensor:
    """Grey pictures get one value for all channels now, so that the projection sees it."""
    if not subject.metadata.is_grey:
        return pixels
    return pixels.mean(1, keepdim=True).expand_as(pixels)


def merge_in_mask(samples: Tensor, subject: Subject, scale: int) -> Tensor:
    """Whole samples -> the same inside the mask, outside it sample 0 as its file holds it.

    The seam would break the faithfulness around it, so what is inside is projected once more with
    everything outside held.
    """
    assert subject.mask is not None
    base = round_rows(samples[:1], subject, scale)
    merged = torch.where(subject.mask, samples, base)
    merged[:1] = base
    if subject.is_projected:
        low, high = torch.where(subject.mask, 0.0, base), torch.where(subject.mask, 1.0, base)
        lr = subject.lr.unsqueeze(0)
        for sample in merged[1:].unsqueeze(1):
            sample.copy_(project_within(sample, lr, scale, low=low, high=high))
    return merged


class _Collector:
    """Takes rows from top to bottom and makes a :class:`SampleSet` of them."""

    def __init__(self, subject: Subject, samples: int, scale: int, height: int, width: int) -> None:
        self.subject, self.scale, self.top = subject, scale, 0
        self.canvases = [self._canvas(height, width) for _ in range(samples)]
        self.mean = self._canvas(height, width)
        self.std = torch.zeros(height, width)
        self.distances = PairwiseDistances(samples)
        self.fidelity = LrFidelity(subject.lr, samples, scale)
        self.mean_fidelity = LrFidelity(subject.lr, 1, scale)

    def _canvas(self, height: int, width: int) -> Canvas:
        has_alpha = self.subject.alpha is not None
        return Canvas(height, width, like=self.subject.metadata, has_alpha=has_alpha)

    def add(self, exact: Tensor, rounded: Tensor) -> None:
        rounded = self._held_outside(exact, rounded)
        for canvas, rows in zip(self.canvases, rounded, strict=True):
            self._put(canvas, rows)
        mean = exact.mean(0, keepdim=True)
        self._put(self.mean, round_rows(mean, self.subject, self.scale)[0])
        if len(exact) > 1:
            variance = (exact - mean).square_().sum(0).mean(0) / (len(exact) - 1)
            self.std[self.top : self.top + exact.shape[2]] = variance.sqrt_()
        self.distances.add(rounded)
        self.fidelity.add(exact)
        self.mean_fidelity.add(mean)
        self.top += exact.shape[2]

    def _held_outside(self, exact: Tensor, rounded: Tensor) -> Tensor:
        """Outside a mask the rows are rounded already; errors of the inside stay inside."""
        mask = self.subject.mask
        if mask is None:
            return rounded
        rounded = torch.where(mask, rounded, exact)
        rounded[0] = exact[0]
        return rounded

    def _put(self, canvas: Canvas, rows: Tensor) -> None:
        alpha = self.subject.alpha
        cover = None if alpha is None else alpha[:, self.top : self.top + rows.shape[1]]
        canvas.put_rows(self.top, rows, cover)

    def finish(self) -> SampleSet:
        return SampleSet(
            canvases=tuple(self.canvases),
            mean=self.mean,
            std=self.std,
            distances=self.distances.matrix(),
            lr_psnr=tuple(self.fidelity.psnr()),
            mean_lr_psnr=self.mean_fidelity.psnr()[0],
        )

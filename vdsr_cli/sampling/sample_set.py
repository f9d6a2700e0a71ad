"""Drawing the samples of one temperature, and counting what they have in common as they come.

sampling.pipeline ─► Rows of all samples ─► [mask] ─► one Canvas a sample
                            └─► mean, deviation, distances, LR-PSNR
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdsr_cli.consistency import project_within
from vdsr_cli.consistency.strips import HALO
from vdsr_cli.images import Canvas, Picture, round_levels
from vdsr_cli.metrics.streaming import LrFidelity, PairwiseDistances
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import SampleNoise
from vdsr_cli.sampling.pipeline import Rows, UpscalePlan, draw_rows


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
    picture: Picture,
    plan: UpscalePlan,
    runtime: Runtime,
    *,
    noises: Sequence[SampleNoise] | None = None,
    mask: Tensor | None = None,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> SampleSet:
    """Draws one sample for each noise, all in one pass: the LR encoder sees each tile once.

    Memory is that of the canvases, unless there is a mask: then the samples are held as floats.

    Args:
        picture, plan, runtime, noises, on_tiles: as
            :func:`~vdsr_cli.sampling.pipeline.draw_rows` takes them.
        mask: (H, W) bool; outside it every sample is sample 0. None for no mask.
    """
    rows = draw_rows(picture, plan, runtime, noises=noises, on_tiles=on_tiles)
    if mask is not None:
        rows = iter([merge_in_mask(_whole(rows), picture.rgb, plan, mask)])
    collector = _Collector(picture.rgb[0], plan, len(noises or plan.noises), mask)
    for each in rows:
        collector.add(each)
    return collector.finish()


def _whole(rows: Iterator[Rows]) -> Rows:
    _, rgb, alpha = zip(*rows, strict=True)
    return Rows(0, torch.cat(rgb, dim=2), None if alpha[0] is None else torch.cat(alpha, dim=1))


def merge_in_mask(rows: Rows, lr: Tensor, plan: UpscalePlan, mask: Tensor) -> Rows:
    """Whole samples -> the same inside the mask, outside it sample 0 as its file holds it.

    The seam would break the faithfulness around it, so what is inside is projected once more with
    everything outside held.
    """
    mask, lr = mask.to(rows.rgb.device), lr.to(rows.rgb.device)
    base = _rounded(rows.rgb[:1], plan)
    merged = torch.where(mask, rows.rgb, base)
    merged[:1] = base
    if plan.faithful_scale is not None:
        low = torch.where(mask, 0.0, base)[0]
        high = torch.where(mask, 1.0 if rows.alpha is None else rows.alpha, base)[0]
        seen = plan.stages[0].around.within(HALO)
        around, (above, aside) = seen.at(plan.faithful_scale), seen.pixels(plan.faithful_scale)
        for sample in merged[1:]:
            inside = project_within(
                around.around(sample),
                seen.around(lr[0]),
                plan.faithful_scale,
                low=around.around(low),
                high=around.around(high),
                edges=plan.settings.edges,
            )
            height, width = sample.shape[1:]
            sample.copy_(inside[:, above : above + height, aside : aside + width])
    return rows._replace(rgb=merged)


def _rounded(rgb: Tensor, plan: UpscalePlan) -> Tensor:
    """Rows as their file will hold them; with alpha that is left to the canvas, which divides."""
    output = plan.output
    if output.has_alpha:
        return rgb.clamp(0, 1)
    return round_levels(rgb, full=output.full, cell=output.cell).div_(output.full)


class _Collector:
    """Takes rows from top to bottom and makes a :class:`SampleSet` of them."""

    def __init__(self, lr: Tensor, plan: UpscalePlan, samples: int, mask: Tensor | None) -> None:
        output = plan.output
        self.plan, self.mask = plan, mask
        self.canvases = [plan.canvas() for _ in range(samples)]
        self.mean = plan.canvas()
        self.std = torch.zeros(output.height, output.width)
        self.distances = PairwiseDistances(samples)
        scale, settings = output.height // lr.shape[1], plan.settings
        self.fidelity = LrFidelity(lr, samples, scale, settings.edges, settings.periodic)
        self.mean_fidelity = LrFidelity(lr, 1, scale, settings.edges, settings.periodic)

    def add(self, rows: Rows) -> None:
        exact = rows.rgb.clamp(0, 1)
        rounded = self._held_outside(exact, _rounded(exact, self.plan))
        for canvas, sample in zip(self.canvases, rounded, strict=True):
            canvas.put_rows(rows.top, sample, rows.alpha)
        mean = exact.mean(0, keepdim=True)
        self.mean.put_rows(rows.top, mean[0], rows.alpha)
        self._count(rows.top, exact.cpu(), rounded.cpu(), mean.cpu())

    def _count(self, top: int, exact: Tensor, rounded: Tensor, mean: Tensor) -> None:
        if len(exact) > 1:
            variance = (exact - mean).square_().sum(0).mean(0) / (len(exact) - 1)
            self.std[top : top + exact.shape[2]] = variance.sqrt_()
        self.distances.add(rounded)
        self.fidelity.add(exact)
        self.mean_fidelity.add(mean)

    def _held_outside(self, exact: Tensor, rounded: Tensor) -> Tensor:
        """Outside a mask the rows are rounded already; errors of the inside stay inside."""
        if self.mask is None:
            return rounded
        rounded = torch.where(self.mask.to(exact.device), rounded, exact)
        rounded[0] = exact[0]
        return rounded

    def finish(self) -> SampleSet:
        return SampleSet(
            canvases=tuple(self.canvases),
            mean=self.mean,
            std=self.std,
            distances=self.distances.matrix(),
            lr_psnr=tuple(self.fidelity.psnr()),
            mean_lr_psnr=self.mean_fidelity.psnr()[0],
        )

"""Pictures that come in strips of rows: sampled, projected, resized, cut anew.

A source can be drawn from any of its strips on, and that strip and all below it are then the same,
bit for bit, as when it is drawn from the top. This is what lets a run resume where another stopped.

    sampled_strips ─► projected_strips ─► resized_strips ─► rows of a file
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.config import Edges
from vdsr_cli.consistency import cubic, project_rows, projection_tops, seen_rows
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import PicturePlan, SampleNoise, SamplingSettings, sample_strips

LEVEL_REACH: Final = 2
_RESIZED_ROWS: Final = 64
_RESIZED_COLUMNS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StripSource:
    """Pictures of one size in strips of rows, from top to bottom.

    Attributes:
        tops: the first row of each strip, and behind them the height.
        draw: index of a strip -> it and all below it, (pictures, C, rows, W) nominally in [0, 1].
    """

    tops: tuple[int, ...]
    draw: Callable[[int], Iterator[Tensor]]

    @property
    def height(self) -> int:
        """Rows of the pictures."""
        return self.tops[-1]

    def strip_of(self, row: int) -> int:
        """The index of the strip that has a row."""
        return max(i for i, top in enumerate(self.tops[:-1]) if top <= row)

    def rows_from(self, row: int) -> Iterator[tuple[int, Tensor]]:
        """The pieces from a row on: the row that each piece begins with, and the piece."""
        if row == self.height:
            return
        first = self.strip_of(row)
        for top, strip in zip(self.tops[first:], self.draw(first), strict=False):
            yield max(top, row), strip[..., max(0, row - top) :, :]

    def windows(self, spans: Sequence[range]) -> Iterator[Tensor]:
        """The rows of each span; spans may overlap, but neither start nor end above the last."""
        pieces = self.rows_from(spans[0].start)
        top, held = next(pieces)
        for span in spans:
            while top + held.shape[-2] < span.stop:
                held = torch.cat(
                    [held[..., max(0, span.start - top) :, :], next(pieces)[1]], dim=-2
                )
                top = max(top, span.start)
            held, top = held[..., span.start - top :, :], span.start
            yield held[..., : len(span), :]

    def recut(self, tops: tuple[int, ...]) -> "StripSource":
        """The same pictures in strips that begin with other rows, behind them their height."""

        def draw(first: int) -> Iterator[Tensor]:
            return self.windows([range(*ends) for ends in pairwise(tops[first:])])

        return replace(self, tops=tops, draw=draw)

    def cropped(self, beyond: int, aside: int) -> "StripSource":
        """Without so many rows above and below, and columns to the left and the right."""
        if not beyond and not aside:
            return self
        last = self.height - beyond
        starts = (beyond, *(top for top in self.tops if beyond < top < last), last)

        def draw(first: int) -> Iterator[Tensor]:
            windows = self.windows([range(*ends) for ends in pairwise(starts[first:])])
            return (rows[..., aside : rows.shape[-1] - aside] for rows in windows)

        return replace(self, tops=tuple(start - beyond for start in starts), draw=draw)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "StripSource":
        """Strips that are changed, each by itself, but for their rows."""
        return replace(self, draw=lambda first: map(change, self.draw(first)))

    def watched(self, on_strip: Callable[[int, Tensor], None]) -> "StripSource":
        """The same pictures, each strip of which is shown, with its first row, when it is drawn."""

        def draw(first: int) -> Iterator[Tensor]:
            for top, strip in zip(self.tops[first:], self.draw(first), strict=False):
                on_strip(top, strip)
                yield strip

        return replace(self, draw=draw)


def stacked(sources: Sequence[StripSource]) -> StripSource:
    """All pictures of several sources of one size, in the strips of the first."""
    if len(sources) == 1:
        return sources[0]
    tops = sources[0].tops
    cut = [source if source.tops == tops else source.recut(tops) for source in sources]

    def draw(first: int) -> Iterator[Tensor]:
        return map(torch.cat, zip(*(source.draw(first) for source in cut), strict=True))

    return StripSource(tops=tops, draw=draw)


def sampled_strips(
    model: Sampler,
    lr: Tensor,
    plan: PicturePlan,
    settings: SamplingSettings,
    noises: Sequence[SampleNoise],
    runtime: Runtime,
    on_tiles: Callable[[int], None],
) -> StripSource:
    """A sample for each noise of what a picture (3, h, w) in [0, 1] may come from, at the model's
    scale, on the runtime's device, where what is made of its strips stays."""
    tops = (*(plan.finished_by(row).start for row in plan.strip_rows), plan.height)

    def draw(first: int) -> Iterator[Tensor]:
        strips = sample_strips(
            model, lr, settings, runtime, plan=plan, noises=noises, first=first, on_tiles=on_tiles
        )
        return (strip.pixels for strip in strips)

    return StripSource(tops=tuple(top * model.scale for top in tops), draw=draw)


def levelled_strips(source: StripSource, lr: Tensor, scale: int) -> StripSource:
    """The pictures, but for places where the LR pixels (C, h, w) are all of one value,
    :data:`LEVEL_REACH` of them in each direction: there it is that value."""
    side = 2 * LEVEL_REACH + 1
    most = F.max_pool2d(lr, side, stride=1, padding=LEVEL_REACH)
    is_level = most == -F.max_pool2d(-lr, side, stride=1, padding=LEVEL_REACH)

    def draw(first: int) -> Iterator[Tensor]:
        for top, strip in zip(source.tops[first:], source.draw(first), strict=False):
            rows = torch.arange(top, top + strip.shape[-2], device=lr.device) // scale
            level, value = (x[:, rows].repeat_interleave(scale, -1) for x in (is_level, most))
            yield torch.where(level, value, strip)

    return replace(source, draw=draw)


def projected_strips(
    source: StripSource,
    lr: Tensor,
    scale: int,
    *,
    full: int = 255,
    has_alpha: bool = False,
    edges: Edges = Edges.repeat,
) -> StripSource:
    """The nearest pictures within [0, 1] that degrade to ``lr`` (3, h, w), a whole ``scale``
    smaller, on the device of the source's strips.

    Args:
        full: the level that stands for 1 in the file.
        has_alpha: whether the last of the pictures is the others' alpha in [0, 1], beyond which
            they may not go; it stays as it is.
        edges: of the degradation.
    """
    tops = projection_tops(lr.shape[1], scale)

    def draw(first: int) -> Iterator[Tensor]:
        cuts = list(pairwise(tops[first:]))
        seen = [seen_rows(*cut, lr.shape[1]) for cut in cuts]
        windows = source.windows([range(s.start * scale, s.stop * scale) for s in seen])
        for (top, bottom), span, window in zip(cuts, seen, windows, strict=True):
            own = slice((top - span.start) * scale, (bottom - span.start) * scale)
            colours, alpha = (window[:-1], window[-1]) if has_alpha else (window, None)
            done = [
                project_rows(
                    sr, lr, scale, top=top, bottom=bottom, bound=alpha, full=full, edges=edges
                )
                for sr in colours
            ]
            done += [] if alpha is None else [alpha[:, own]]
            yield torch.stack(done)

    return StripSource(tops=tuple(top * scale for top in tops), draw=draw)


def resized_strips(
    source: StripSource,
    height: int,
    width: int,
    *,
    beyond: tuple[int, int] = (0, 0),
    kept: tuple[int, int] = (0, 0),
) -> StripSource:
    """Antialiased bicubic (a = -0.5), as torch's ``interpolate``, to a size of any ratio.

    Args:
        source: the pictures, with ``beyond`` rows and columns beyond each edge.
        height, width: of the results, with ``kept`` rows and columns beyond each edge.
    """
    ratio = (source.height - 2 * beyond[0]) / height
    tops = (*range(0, height + 2 * kept[0], _RESIZED_ROWS), height + 2 * kept[0])
    narrow = source.mapped(lambda rows: _resized_across(rows, width, beyond[1], kept[1]))

    def draw(first: int) -> Iterator[Tensor]:
        cuts = [(top - kept[0], bottom - kept[0]) for top, bottom in pairwise(tops[first:])]
        seen = [_seen(*cut, ratio, beyond[0], source.height) for cut in cuts]
        for cut, span, window in zip(cuts, seen, narrow.windows(seen), strict=True):
            yield _resampling(*cut, ratio, span, beyond[0]).to(window.device) @ window

    return StripSource(tops=tops, draw=draw)


def _seen(first: int, last: int, ratio: float, beyond: int, length: int) -> range:
    """The samples along an axis of ``length``, the first ``beyond`` of them before the picture,
    that samples ``first`` to ``last`` of the resized one are made of."""
    reach = 2 * max(ratio, 1.0)
    low, high = (first + 0.5) * ratio - reach, (last - 0.5) * ratio + reach
    return range(max(0, math.floor(low) + beyond), min(length, math.ceil(high) + beyond))


def _resampling(first: int, last: int, ratio: float, seen: range, beyond: int) -> Tensor:
    """The weights of the samples seen, (last - first, len(seen)): a cubic as wide as a sample that
    is made, or is seen where that is wider."""
    centres = (torch.arange(first, last, dtype=torch.float64) + 0.5) * ratio + beyond
    positions = torch.arange(seen.start, seen.stop, dtype=torch.float64) + 0.5
    weights = cubic((positions - centres.unsqueeze(1)) / max(ratio, 1.0))
    return (weights / weights.sum(1, keepdim=True)).float()


def _resized_across(rows: Tensor, width: int, beyond: int, kept: int) -> Tensor:
    length = rows.shape[-1]
    ratio = (length - 2 * beyond) / width
    pieces = []
    for cut in pairwise((*range(-kept, width + kept, _RESIZED_COLUMNS), width + kept)):
        seen = _seen(*cut, ratio, beyond, length)
        weights = _resampling(*cut, ratio, seen, beyond).to(rows.device)
        pieces.append(rows[..., seen.start : seen.stop] @ weights.T)
    return torch.cat(pieces, dim=-1)

"""Pictures that come in strips of rows: sampled, projected, resized, cut anew.

A source can be drawn from any of its strips on, and that strip and all below it are then the same,
bit for bit, as when it is drawn from the top. This is what lets a run go on where another stopped.

    sampled_strips ─► projected_strips ─► resized_strips ─► rows of a file
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.consistency import StripProjection, cubic, projected_by, replay_top
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import SamplingSettings, plan_for, sample_strips

_RESIZED_ROWS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StripSource:
    """A picture in strips of rows, from top to bottom.

    Attributes:
        tops: the first row of each strip, and behind them the height.
        draw: index of a strip -> it and all below it, (C, rows, W) nominally in [0, 1].
    """

    tops: tuple[int, ...]
    draw: Callable[[int], Iterator[Tensor]]

    @property
    def height(self) -> int:
        """Rows of the picture."""
        return self.tops[-1]

    def strip_of(self, row: int) -> int:
        """The index of the strip that has a row."""
        return max(i for i, top in enumerate(self.tops[:-1]) if top <= row)

    def rows_from(self, row: int) -> Iterator[tuple[int, Tensor]]:
        """What lies from a row on: the row that each piece begins with, and the piece."""
        if row == self.height:
            return
        first = self.strip_of(row)
        for top, strip in zip(self.tops[first:], self.draw(first), strict=False):
            yield max(top, row), strip[:, max(0, row - top) :]

    def recut(self, tops: tuple[int, ...]) -> "StripSource":
        """The same picture in strips that begin with other rows, behind them its height."""

        def draw(first: int) -> Iterator[Tensor]:
            pieces = self.rows_from(tops[first])
            held = torch.empty(0)
            for top, bottom in pairwise(tops[first:]):
                while held.numel() == 0 or held.shape[1] < bottom - top:
                    _, piece = next(pieces)
                    held = torch.cat([held, piece], dim=1) if held.numel() else piece
                yield held[:, : bottom - top]
                held = held[:, bottom - top :]

        return replace(self, tops=tops, draw=draw)


def sampled_strips(
    model: Sampler,
    lr: Tensor,
    settings: SamplingSettings,
    runtime: Runtime,
    on_tiles: Callable[[int], None],
) -> StripSource:
    """One sample of a model for a picture (3, h, w) in [0, 1], at the model's scale, on the
    runtime's device, where what is made of its strips stays."""
    plan = plan_for(model, lr.shape[1], lr.shape[2], settings)
    tops = (*(plan.finished_by(row).start for row in plan.strip_rows), plan.height)

    def draw(first: int) -> Iterator[Tensor]:
        strips = sample_strips(model, lr, settings, runtime, first=first, on_tiles=on_tiles)
        return (strip.pixels[0] for strip in strips)

    return StripSource(tops=tuple(top * model.scale for top in tops), draw=draw)


def projected_strips(source: StripSource, lr: Tensor, scale: int) -> StripSource:
    """The nearest picture that degrades to ``lr`` (3, h, w), a whole ``scale`` smaller, on the
    device of the source's strips."""
    cut = source.recut(tuple(dict.fromkeys(top // scale * scale for top in source.tops)))
    pushes = [top // scale for top in cut.tops]
    done = [projected_by(pushed, lr.shape[1]) for pushed in pushes]
    returning = [i for i, (before, after) in enumerate(pairwise(done)) if after > before]

    def draw(first: int) -> Iterator[Tensor]:
        top = replay_top(pushes[:-1], pushes[returning[first]])
        projection = StripProjection(lr, scale, top=top)
        begin = pushes.index(top)
        for index, strip in enumerate(cut.draw(begin), begin):
            rows = projection.push(strip)
            if index in returning[first:]:
                yield rows

    tops = (*(done[index] for index in returning), lr.shape[1])
    return StripSource(tops=tuple(top * scale for top in tops), draw=draw)


def resized_strips(source: StripSource, height: int, width: int) -> StripSource:
    """Antialiased bicubic (a = -0.5), as torch's ``interpolate``, to a size of any ratio."""
    ratio = source.height / height
    tops = (*range(0, height, _RESIZED_ROWS), height)

    def draw(first: int) -> Iterator[Tensor]:
        held, held_top = torch.empty(0), 0
        pieces = source.rows_from(_seen(tops[first], height, ratio, source.height).start)
        for top, bottom in pairwise(tops[first:]):
            seen = _seen(top, bottom, ratio, source.height)
            while held.numel() == 0 or held_top + held.shape[1] < seen.stop:
                piece_top, piece = next(pieces)
                held_top = held_top if held.numel() else piece_top
                narrow = _resized_across(piece, width)
                held = torch.cat([held, narrow], dim=1) if held.numel() else narrow
            held, held_top = held[:, seen.start - held_top :], seen.start
            weights = _resampling(top, bottom, ratio, seen).to(held.device)
            yield weights @ held[:, : len(seen)]

    return StripSource(tops=tops, draw=draw)


def _seen(top: int, bottom: int, ratio: float, height: int) -> range:
    """The rows of ``height`` that rows ``top`` to ``bottom`` of the resized picture are made of."""
    reach = 2 * max(ratio, 1.0)
    low, high = (top + 0.5) * ratio - reach, (bottom - 0.5) * ratio + reach
    return range(max(0, math.floor(low)), min(height, math.ceil(high)))


def _resampling(top: int, bottom: int, ratio: float, seen: range) -> Tensor:
    """The weights of the rows seen, (bottom - top, len(seen)): a cubic as wide as a row that is
    made, or is seen where that is wider."""
    centres = (torch.arange(top, bottom, dtype=torch.float64) + 0.5) * ratio
    positions = torch.arange(seen.start, seen.stop, dtype=torch.float64) + 0.5
    weights = cubic((positions - centres.unsqueeze(1)) / max(ratio, 1.0))
    return (weights / weights.sum(1, keepdim=True)).float()


def _resized_across(rows: Tensor, width: int) -> Tensor:
    size = rows.shape[1], width
    return F.interpolate(rows.unsqueeze(0), size=size, mode="bicubic", antialias=True)[0]

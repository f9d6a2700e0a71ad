"""Pictures that come in strips of rows: sampled, projected, cut anew.

A source can be drawn from any of its strips on, and that strip and all below it are then the same,
bit for bit, as when it is drawn from the top. This is what lets a run go on where another stopped.

    sampled_strips ─► projected_strips ─► recut ─► rows of a file
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from vdsr_cli.consistency import StripProjection, projected_by, replay_top
from vdsr_cli.runtime import Runtime
from vdsr_cli.services.engine import (
    ConditionalSampler,
    SamplingSettings,
    plan_for,
    sample_strips,
)


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


def cut_up(picture: Tensor, rows: int = 64) -> StripSource:
    """A picture (C, H, W) that is here already, in strips of so many rows."""
    tops = (*range(0, picture.shape[1], rows), picture.shape[1])
    strips = torch.split(picture, rows, dim=1)
    return StripSource(tops=tops, draw=lambda first: iter(strips[first:]))


def sampled_strips(
    model: ConditionalSampler,
    lr: Tensor,
    settings: SamplingSettings,
    runtime: Runtime,
    on_tiles: Callable[[int], None],
) -> StripSource:
    """One sample of a model for a picture (3, h, w) in [0, 1], at the model's scale."""
    plan = plan_for(model, lr.shape[1], lr.shape[2], settings)
    tops = (*(plan.finished_by(row).start for row in plan.strip_rows), plan.height)

    def draw(first: int) -> Iterator[Tensor]:
        strips = sample_strips(model, lr, settings, runtime, first=first, on_tiles=on_tiles)
        return (strip.pixels[0] for strip in strips)

    return StripSource(tops=tuple(top * model.scale for top in tops), draw=draw)


def projected_strips(source: StripSource, lr: Tensor, scale: int) -> StripSource:
    """The nearest picture that degrades to ``lr`` (3, h, w), a whole ``scale`` smaller."""
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

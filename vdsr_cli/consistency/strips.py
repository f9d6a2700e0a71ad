"""Degradation and projection of a picture that arrives in strips of rows from top to bottom.

Both look some rows beyond those that they make; memory is that of strips, whatever the height.
"""

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from vdsr_cli.config import Edges
from vdsr_cli.consistency.clipping import project_within
from vdsr_cli.consistency.degradation import REACH, degrade

HALO: Final = 8
"""LR samples around a block that its projection sees: what lies beyond has a share of 3^-8."""
_BLOCK_ROWS: Final = 512
"""HR rows of a block: with fewer, more of the work would lie in halos, and with more, memory."""
_BLOCK_COLUMNS: Final = 160
"""LR columns of a block, likewise."""


def projection_tops(height: int, scale: int) -> tuple[int, ...]:
    """The LR rows that the blocks of :func:`project_rows` begin with, and behind them the height:
    the same for a picture, however it arrives."""
    return (*range(0, height, max(2 * HALO, _BLOCK_ROWS // scale)), height)


def seen_rows(top: int, bottom: int, height: int) -> range:
    """The LR rows that the projection of rows ``top`` to ``bottom`` looks at."""
    return range(max(0, top - HALO), min(height, bottom + HALO))


def project_rows(
    sr: Tensor,
    lr: Tensor,
    scale: int,
    *,
    top: int,
    bottom: int,
    bound: Tensor | None = None,
    full: int = 255,
    edges: Edges = Edges.repeat,
) -> Tensor:
    """Some rows of :func:`project_within`, up to what is far below rounding.

    Args:
        sr: (3, rows, W), the HR rows of :func:`seen_rows`.
        lr: (3, h, w), the whole LR picture.
        top, bottom: LR rows, two neighbours of :func:`projection_tops`.
        bound: the upper bound of each pixel, of the size of sr; None for 1.
        full, edges: as :func:`project_within` takes them.

    Returns:
        (3, (bottom - top) * scale, W).
    """
    height, width = lr.shape[1:]
    seen = seen_rows(top, bottom, height)
    lr_rows, own = lr[:, seen.start : seen.stop], slice(top - seen.start, bottom - seen.start)
    blocks = -(-width // _BLOCK_COLUMNS)
    cuts = [width * block // blocks for block in range(blocks + 1)]
    pieces = []
    for left, right in pairwise(cuts):
        low, high = max(0, left - HALO), min(width, right + HALO)
        seen_hr = slice(low * scale, high * scale)
        inside = project_within(
            sr[..., seen_hr],
            lr_rows[..., low:high],
            scale,
            high=1.0 if bound is None else bound[..., seen_hr],
            full=full,
            edges=edges,
        )
        across = slice((left - low) * scale, (right - low) * scale)
        pieces.append(inside[:, own.start * scale : own.stop * scale, across])
    return torch.cat(pieces, dim=2) if len(pieces) > 1 else pieces[0]


class StripDegradation:
    """:func:`degrade` of pictures that arrive in strips of rows.

    Args:
        height: of the degraded picture.
    """

    def __init__(self, height: int, scale: int, edges: Edges = Edges.repeat) -> None:
        self.height, self.scale, self.edges = height, scale, edges
        self.known = self.emitted = 0
        self.held: Tensor | None = None

    def push(self, strip: Tensor) -> Tensor:
        """Takes the next rows (..., rows, W), a multiple of the scale; returns the degraded rows
        (..., r, W / scale) that are known by now, perhaps none."""
        held = strip if self.held is None else torch.cat([self.held, strip], dim=-2)
        first = self.known - (held.shape[-2] - strip.shape[-2]) // self.scale
        self.known += strip.shape[-2] // self.scale
        start = self.emitted
        self.emitted = self.known if self.known == self.height else max(start, self.known - REACH)
        done = degrade(held, self.scale, self.edges)[..., start - first : self.emitted - first, :]
        self.held = held[..., max(0, self.emitted - REACH - first) * self.scale :, :]
        return done

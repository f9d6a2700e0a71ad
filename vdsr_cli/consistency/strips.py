"""Degradation and projection of a picture that arrives in strips of rows from top to bottom.

Each stage knows its rows up to some frontier and needs a few rows beyond those it makes; what no
stage needs any more is let go. Memory is that of some strips, whatever the height.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vdsr_cli.consistency.degradation import HALO, REACH, degrade, degrade_adjoint, solve_gram


class Part(NamedTuple):
    """A rectangle of a picture, in LR samples."""

    top: int
    bottom: int
    left: int
    right: int

    def widened(self, reach: int, height: int, width: int) -> "Part":
        """With what lies within ``reach``, as far as the picture goes."""
        top, bottom = max(0, self.top - reach), min(height, self.bottom + reach)
        return Part(top, bottom, max(0, self.left - reach), min(width, self.right + reach))

    def moved(self, top: int, left: int = 0) -> "Part":
        """The same, counted from another corner."""
        return Part(self.top - top, self.bottom - top, self.left - left, self.right - left)

    def within(self, around: "Part") -> "Part":
        """Where it lies in one that contains it."""
        return self.moved(around.top, around.left)

    def of(self, pixels: Tensor, scale: int = 1) -> Tensor:
        """What (..., H, W) holds there; ``scale`` pixels are an LR sample."""
        rows = pixels[..., self.top * scale : self.bottom * scale, :]
        return rows[..., self.left * scale : self.right * scale]


class Rows:
    """The rows of (..., height, width) that one stage has made and others still need.

    Rows are counted as LR rows, each of ``per_row`` rows of the tensors.
    """

    def __init__(self, height: int, per_row: int = 1) -> None:
        self.height, self.per_row = height, per_row
        self.first = self.end = 0
        self._held: Tensor | None = None

    def begin(self, first: int, rows: Tensor) -> None:
        """Has some rows, from ``first`` on, as if others had been there before."""
        self.first = self.end = first
        self.append(rows)

    def append(self, rows: Tensor) -> None:
        """Takes the next rows."""
        self._held = rows if self._held is None else torch.cat([self._held, rows], dim=-2)
        self.end += rows.shape[-2] // self.per_row

    def between(self, low: int, high: int) -> Tensor:
        """Rows ``low`` to ``high``: a view."""
        assert self._held is not None
        start, stop = low - self.first, high - self.first
        return self._held[..., start * self.per_row : stop * self.per_row, :]

    def around(self, low: int, high: int, reach: int) -> tuple[Tensor, slice]:
        """These rows with ``reach`` more on both sides where the picture has them, and which of
        them, as LR rows, are those asked for."""
        start, stop = max(0, low - reach), min(self.height, high + reach)
        return self.between(start, stop), slice(low - start, high - start)

    def part(self, part: Part) -> Tensor:
        """A rectangle: a view."""
        assert self._held is not None
        return part.moved(self.first).of(self._held, self.per_row)

    def known_with(self, reach: int) -> int:
        """Up to which row all have ``reach`` known ones below, or the picture's end."""
        return self.end if self.end == self.height else max(0, self.end - reach)

    def drop_before(self, row: int) -> None:
        """Lets go of the rows above one."""
        if self._held is not None and row > self.first:
            self._held = self._held[..., (row - self.first) * self.per_row :, :]
            self.first = row


class StripDegradation:
    """:func:`degrade` of pictures that arrive in strips of rows.

    Args:
        height: of the degraded picture.
        scale: of the degradation.
    """

    def __init__(self, height: int, scale: int) -> None:
        self.scale = scale
        self.rows = Rows(height, scale)
        self.emitted = 0

    def push(self, strip: Tensor) -> Tensor:
        """Takes the next rows (..., rows, W), a multiple of the scale; returns the degraded rows
        (..., r, W / scale) that are known by now, perhaps none."""
        self.rows.append(strip)
        start, self.emitted = self.emitted, self.rows.known_with(REACH)
        around, own = self.rows.around(start, self.emitted, REACH)
        self.rows.drop_before(self.emitted - REACH)
        return degrade(around, self.scale)[..., own, :]


class StripProjection:
    """:func:`project` for a picture that arrives in strips of rows.

    Args:
        lr: (3, h, w), what the result must degrade to.
        scale: of the degradation.
        top: the LR row that the first strip begins with. What comes out near it is wrong, for lack
            of what lies above; see :func:`replay_top`.
    """

    def __init__(self, lr: Tensor, scale: int, *, top: int = 0) -> None:
        self.lr, self.scale = lr, scale
        self.rows = Rows(lr.shape[1], scale)
        self.residual = Rows(lr.shape[1])
        self.emitted = projected_by(top, lr.shape[1])
        if top:
            self._begin(top)

    def _begin(self, top: int) -> None:
        """Holds as many rows, of nothing, as would be held had the strips above been pushed."""
        width, measured = self.lr.shape[2], max(0, top - REACH)
        held = (top - self.emitted) * self.scale
        self.rows.begin(self.emitted, self.lr.new_zeros(3, held, width * self.scale))
        low = max(0, self.emitted - REACH - HALO)
        self.residual.begin(low, self.lr.new_zeros(3, measured - low, width))

    def push(self, strip: Tensor) -> Tensor:
        """Takes the next rows (3, rows, W), a multiple of the scale; returns the projected rows
        that are final by now, perhaps none."""
        self.rows.append(strip)
        self._measure()
        start, self.emitted = self.emitted, self.residual.known_with(REACH + HALO)
        done = self.rows.between(start, self.emitted)
        if self.emitted > start:
            done = self._correction(start, self.emitted).add_(done)
        self.rows.drop_before(min(self.emitted, self.residual.end - REACH))
        self.residual.drop_before(self.emitted - REACH - HALO)
        return done

    def _measure(self) -> None:
        """Brings the residual lr - A sr as far as the rows reach."""
        start, end = self.residual.end, self.rows.known_with(REACH)
        if end > start:
            around, own = self.rows.around(start, end, REACH)
            self.residual.append(self.lr[:, start:end] - degrade(around, self.scale)[:, own])

    def _correction(self, top: int, bottom: int) -> Tensor:
        """LR rows ``top`` to ``bottom`` of A' (A A')^-1 residual."""
        residual, own = self.residual.around(top, bottom, REACH + HALO)
        low, high = max(0, own.start - REACH), own.stop + REACH
        solved = solve_gram(residual, self.scale)[:, low:high]
        spread = degrade_adjoint(solved, self.scale)
        return spread[:, (own.start - low) * self.scale : (own.stop - low) * self.scale]


def projected_by(pushed: int, height: int) -> int:
    """How many of ``height`` LR rows :class:`StripProjection` has returned after it was given so
    many."""
    return height if pushed == height else max(0, pushed - 2 * REACH - HALO)


def replay_top(tops: Sequence[int], top: int) -> int:
    """Where a projection must begin for its pushes from ``top`` on to return what they would have
    returned had it begun at 0, bit for bit.

    Each push works on all that is held. So what is held must be made of rows of the picture alone:
    first the rows, then the residuals, which reach up from the push by as much as this.

    Args:
        tops: the LR rows that strips begin with.
        top: one of them.
    """
    for _ in range(2):
        reach = 2 * (REACH + HALO)
        top = max((start for start in tops if start <= top - reach), default=0)
    return top

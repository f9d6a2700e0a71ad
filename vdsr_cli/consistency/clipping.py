"""The projection that stays within bounds: what a file of integers can be faithful to.

The nearest picture to sr that lies within bounds and degrades to lr is clip(sr + A' m), where the
LR picture m of multipliers makes A clip(sr + A' m) = lr (the conditions of Karush, Kuhn and
Tucker). Clipping the projection alone leaves 41 to 60 dB of LR-PSNR on pictures with black or white
parts; here what is clipped from a pixel its free neighbours give:

    m <- m + RELAXATION (A A')^-1 ((lr - A clip(sr + A' m)) / share of free pixels)
"""

from collections.abc import Iterator
from itertools import groupby, pairwise
from operator import itemgetter

import torch
import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.consistency.degradation import (
    REACH,
    SOLVE_REACH,
    degrade,
    degrade_adjoint,
    project,
    solve_gram_nearly,
)
from vdsr_cli.consistency.strips import Part, Rows, StripProjection

STEPS = 5
"""Steps of the iteration; more gain little that 8-bit levels would show."""
RELAXATION = 1.2
LEAST_SHARE = 0.15
"""Share of free pixels that a step counts on at least: with less it would overshoot."""
NOTICED = 0.02 / 255
"""LR error that is worth a step: about what rounding to 8 bits leaves anyway."""
NEAR = 2
"""LR samples around such an error in which multipliers are sought."""


def _shortfall(
    raised: Tensor, lr: Tensor, scale: int, low: Tensor | float, high: Tensor | float
) -> Tensor:
    """(lr - A clip(raised)) over the share of pixels that clipping leaves free."""
    both = raised.new_empty(2, *raised.shape)
    inside, is_free = both
    # Scalars stay numbers, which torch clips by faster than by tensors.
    torch.clamp(raised, low, high, out=inside)  # type: ignore[arg-type]
    torch.eq(inside, raised, out=is_free)
    reduced, share = degrade(both, scale)
    lacking: Tensor = lr - reduced
    return lacking.div_(share.clamp_min_(LEAST_SHARE))


def project_within(
    sr: Tensor, lr: Tensor, scale: int, *, low: Tensor | float = 0.0, high: Tensor | float = 1.0
) -> Tensor:
    """Nearly the nearest picture with ``low <= picture <= high`` that degrades to ``lr``, as far
    as that allows.

    Args:
        sr: (..., H, W).
        lr: (..., H / scale, W / scale).
        scale: of the degradation.
        low, high: bounds, for all pixels or (broadcast to sr) for each; equal bounds hold a pixel.
    """
    projected = project(sr, lr, scale)
    multipliers = torch.zeros_like(lr)
    raised = projected
    for _ in range(STEPS):
        step = solve_gram_nearly(_shortfall(raised, lr, scale, low, high), scale)
        multipliers.add_(step, alpha=RELAXATION)
        raised = projected + degrade_adjoint(multipliers, scale)
    return torch.clamp(raised, low, high)  # type: ignore[arg-type]


class ClippedStripProjection:
    """:func:`project_within` [0, 1] for a picture that arrives in strips of rows.

    It has the interface of :class:`StripProjection`, with which it starts. The steps that follow
    touch only what lies near cells that clipping made unfaithful, fewer in each step.

    Args:
        lr: (3, h, w), what the result must degrade to.
        scale: of the degradation.
    """

    def __init__(self, lr: Tensor, scale: int) -> None:
        height = lr.shape[1]
        self.lr, self.scale = lr, scale
        self.projection = StripProjection(lr, scale)
        self.projected = Rows(height, scale)
        self.start = _Multipliers(height)
        self.steps = [_Multipliers(height) for _ in range(STEPS)]
        self.emitted = 0

    def push(self, strip: Tensor) -> Tensor:
        """Takes the next rows (3, rows, W), a multiple of the scale; returns the rows, in [0, 1],
        that are final by now, perhaps none."""
        projected = self.projection.push(strip)
        if not projected.shape[1]:
            return projected
        self.projected.append(projected)
        self._begin()
        for before, after in pairwise([self.start, *self.steps]):
            self._measure(before, after)
            after.step_from(before, self.scale)
        return self._emit()

    def _begin(self) -> None:
        """The next multipliers of the start, all zero, and which of them will be sought."""
        top, bottom = self.start.shortfall.end, self.projected.known_with(REACH)
        if bottom > top:
            around, own = self.projected.around(top, bottom, REACH)
            reduced = degrade(around.clamp(0, 1), self.scale)[:, own]
            self.start.fall_short(self.lr[:, top:bottom] - reduced)
        begun, known = self.start.rows.end, self.start.near.end
        self.start.rows.append(torch.zeros_like(self.lr[:, begun:known]))
        self.start.shortfall.drop_before(known - NEAR)

    def _measure(self, before: "_Multipliers", after: "_Multipliers") -> None:
        """What the next rows fall short of with the multipliers of a step, where these are sought;
        zero elsewhere."""
        top, bottom = after.shortfall.end, before.rows.known_with(2 * REACH)
        if bottom <= top:
            return
        near = before.near.between(top, bottom)
        found = torch.zeros_like(self.lr[:, top:bottom])
        for part in _parts(near, top):
            wide = self._widened(part)
            raised = self._raised(before.rows, wide)
            lacking = _shortfall(raised, wide.of(self.lr), self.scale, 0.0, 1.0)
            part.moved(top).of(found).copy_(part.within(wide).of(lacking))
        after.fall_short(found.mul_(near), near=before.near)

    def _widened(self, part: Part) -> Part:
        """A part with what its degradation sees, or what its share of A' comes from."""
        return part.widened(REACH, *self.lr.shape[1:])

    def _raised(self, multipliers: Rows, part: Part) -> Tensor:
        """projected + A' multipliers of a part."""
        wide = self._widened(part)
        spread = degrade_adjoint(multipliers.part(wide), self.scale)
        return self.projected.part(part) + part.within(wide).of(spread, self.scale)

    def _emit(self) -> Tensor:
        """The rows whose multipliers are settled."""
        last, near = self.steps[-1].rows, self.steps[0].near
        reach = SOLVE_REACH + REACH
        top, bottom = self.emitted, min(last.known_with(REACH), near.known_with(reach))
        done = self.projected.between(top, bottom).clamp(0, 1)
        if bottom > top:
            around, own = near.around(top, bottom, reach)
            for part in _parts(_dilated(around, reach)[:, own], top):
                raised = self._raised(last, part).clamp_(0, 1)
                part.moved(top).of(done, self.scale).copy_(raised)
        self.emitted = bottom
        for held in (self.projected, last):
            held.drop_before(bottom - REACH)
        for step in (self.start, *self.steps):
            step.near.drop_before(bottom - reach)
        return done


class _Multipliers:
    """The multipliers that a step makes, and what it makes them of, row by row."""

    def __init__(self, height: int) -> None:
        self.rows = Rows(height)
        self.shortfall = Rows(height)
        self.near = Rows(height)
        """(1, h, w), ones where the shortfall is worth a step, zeros elsewhere."""

    def fall_short(self, shortfall: Tensor, near: Rows | None = None) -> None:
        """Takes the next rows of the shortfall; ``near`` is where others may be sought at all."""
        self.shortfall.append(shortfall)
        top, bottom = self.near.end, self.shortfall.known_with(NEAR)
        around, own = self.shortfall.around(top, bottom, NEAR)
        noticed = (around.abs().amax(0, keepdim=True) > NOTICED).to(around)
        found = _dilated(noticed, NEAR)[:, own]
        self.near.append(found if near is None else found * near.between(top, bottom))

    def step_from(self, before: "_Multipliers", scale: int) -> None:
        """The next rows: those before the step, and the step where it is worth it."""
        top, bottom = self.rows.end, self.near.known_with(SOLVE_REACH)
        if bottom <= top:
            return
        rows = before.rows.between(top, bottom)
        near, own = self.near.around(top, bottom, SOLVE_REACH)
        if bool(near.any()):
            shortfall, _ = self.shortfall.around(top, bottom, SOLVE_REACH)
            step = solve_gram_nearly(shortfall * near, scale)
            rows = rows.add(step[:, own], alpha=RELAXATION)
        self.rows.append(rows)
        self.shortfall.drop_before(min(bottom - SOLVE_REACH, self.near.end - NEAR))
        before.rows.drop_before(bottom)


def _dilated(cells: Tensor, reach: int) -> Tensor:
    """(1, h, w) of zeros and ones -> ones wherever one lies within ``reach``, diagonally too."""
    if not bool(cells.any()):
        return cells
    side = 2 * reach + 1
    down = F.pad(cells, (0, 0, reach + 1, reach)).cumsum(1)
    found = down[:, side:] - down[:, :-side]
    across = F.pad(found, (reach + 1, reach)).cumsum(2)
    return (across[..., side:] > across[..., :-side]).to(cells)


_COLUMNS = 32
"""LR columns that a part is made of: with fewer, more of its work would lie around it."""


def _parts(near: Tensor, top: int) -> Iterator[Part]:
    """Rectangles that cover the ones of (1, rows, w), whose first row is the picture's ``top``:
    blocks of columns, joined where they touch, between the first and the last row with a one."""
    width = near.shape[2]
    blocks = [
        (bool(near[..., left : left + _COLUMNS].any()), left, min(left + _COLUMNS, width))
        for left in range(0, width, _COLUMNS)
    ]
    for has_any, run in groupby(blocks, key=itemgetter(0)):
        if has_any:
            joined = list(run)
            left, right = joined[0][1], joined[-1][2]
            rows = near[0, :, left:right].any(1).nonzero()
            yield Part(top + int(rows[0]), top + int(rows[-1]) + 1, left, right)

"""Several pictures on their way into one file: what the coders of all formats have in common.

    head | picture | picture | ... | tail

A frame of an animation is the smallest rectangle with all that is not as in the frame before, so
that nothing else can change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vdsr_cli.images.picture import Metadata


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """One picture, and its place among the others.

    Attributes:
        levels: (H, W, c), as its format holds them.
        before: the levels of the picture before it; None for the first.
        at: the byte of the file that it begins at.
    """

    index: int
    levels: NDArray[Any]
    metadata: Metadata
    before: NDArray[Any] | None
    at: int

    def changed(self, *, step: int = 1) -> tuple[slice, slice]:
        """Rows and columns of all that is not as before, a pixel at least; beginning at multiples
        of ``step``."""
        if self.before is None:
            return slice(0, self.levels.shape[0]), slice(0, self.levels.shape[1])
        is_new = (self.levels != self.before).any(axis=2)
        return _span(is_new.any(axis=1), step), _span(is_new.any(axis=0), step)


def _span(is_new: NDArray[np.bool_], step: int) -> slice:
    places = np.flatnonzero(is_new)
    if not len(places):
        return slice(0, 1)
    first = int(places[0])
    return slice(first - first % step, int(places[-1]) + 1)


class SeriesCoder(Protocol):
    """A file of several pictures; the bytes of each depend on its turn alone."""

    def head(self, size: int) -> bytes:
        """The bytes before the pictures, of a file of so many bytes; always as long."""

    def encoded(self, turn: Turn) -> bytes:
        """The next picture."""

    def tail(self) -> bytes:
        """The bytes behind the last picture."""


def whole_units(durations: Sequence[Fraction], unit_ms: int) -> tuple[int, ...]:
    """Durations in milliseconds in whole units, rounded so that no frame comes earlier or later by
    more than half of one."""
    ends, elapsed = [0], Fraction(0)
    for duration in durations:
        elapsed += duration
        ends.append(round(elapsed / unit_ms))
    return tuple(end - start for start, end in pairwise(ends))

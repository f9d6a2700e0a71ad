"""Picture files written in segments of whole rows, each of which is encoded by itself.

    head | segment | segment | ... | tail

No segment refers to another, so that a file can be resumed behind any of them, and where the
cuts lie depends on the size of the picture alone: however its rows arrive, the bytes are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

_SEGMENT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Some rows of a picture, encoded.

    Attributes:
        checksum: of what was compressed, where the format sums that up.
    """

    data: bytes
    rows: int
    checksum: int = 0


class SegmentCoder(Protocol):
    """One picture on its way into a file of some format.

    Segments may be encoded in several threads and in any order; they are added from one, in theirs.

    Attributes:
        rows_each: the rows of every segment but the last, which has what is left.
        rows_done: the rows that are added.
    """

    rows_each: int
    rows_done: int

    def head(self) -> bytes:
        """The bytes before the segments: final after the last of them, always as long."""

    def encoded(self, levels: NDArray[Any]) -> Segment:
        """The rows of one segment (rows_each, W, c)."""

    def add(self, segment: Segment) -> None:
        """Takes note of the segment that is next in the file."""

    def tail(self) -> bytes:
        """The bytes behind the last segment."""

    def state(self) -> dict[str, Any]:
        """The state that another coder of the same picture resumes from, fit for JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on behind the segments of the coder whose state this is."""


def rows_a_segment(width: int, channels: int, dtype: np.dtype[Any]) -> int:
    """How many rows make about a mebibyte, one at least."""
    return max(1, _SEGMENT_BYTES // (width * channels * dtype.itemsize))


def encoded_segments(coder: SegmentCoder, levels: NDArray[Any]) -> Iterator[bytes]:
    """All segments of a picture that is here whole."""
    for top in range(0, levels.shape[0], coder.rows_each):
        segment = coder.encoded(levels[top : top + coder.rows_each])
        coder.add(segment)
        yield segment.data

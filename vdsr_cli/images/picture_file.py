"""The output picture, written to its file while its rows arrive."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vdsr_cli.images.atomic import writing_to
from vdsr_cli.images.encode import fit_levels, open_coder
from vdsr_cli.images.output_spec import Frame
from vdsr_cli.images.resumable import DISCARDED, Draft, open_draft
from vdsr_cli.images.segments import Segment

_GO_ON: Final = "what is done is kept: the same command resumes from there"


@contextmanager
def open_picture_file(
    path: Path,
    frame: Frame,
    *,
    format: str,
    identity: Callable[[], str],
    replace: bool = True,
    every_s: float | None = None,
    threads: int = 1,
) -> Iterator["PictureFile"]:
    """Opens a file for a picture whose rows arrive from top to bottom.

    The file takes its name at the end of the block, whole. Where the block fails, or the process
    ends, after some seconds of work, a later run of the same identity resumes from the file's
    ``next_row`` and ends with the same bytes; until then nothing is left.

    Args:
        format: one that :func:`~vdsr_cli.images.encode.is_segmented`.
        identity: gives a hash of all that the rows depend on.
        every_s: seconds between two journals; see :mod:`~vdsr_cli.images.resumable`.
        threads: how many encode; the bytes do not depend on it. One is the caller's, more go ahead.

    Raises:
        OutputError: the file cannot be written, or another process is writing it.
    """
    with (
        writing_to(str(path)),
        open_draft(path, identity, replace=replace, every_s=every_s) as draft,
        ThreadPoolExecutor(threads) as encoders,
    ):
        try:
            file = PictureFile(draft, frame, format, encoders, ahead=2 * (threads - 1))
            yield file
            file.finish()
        except OSError:
            with writing_to(str(path), hint=_GO_ON if draft.is_kept else None):
                raise


class PictureFile:
    """A picture on its way into its file; rows are held until they fill a segment.

    Rows may be put from another thread than the one that opened it, from one at a time.

    Args:
        ahead: how many segments may be with them when :meth:`put_rows` returns: it bounds memory.
            0 encodes where rows are put.

    Attributes:
        next_row: the row that :meth:`put_rows` takes next; not 0 where an earlier run is gone on
            with.
    """

    def __init__(
        self, draft: Draft, frame: Frame, format: str, encoders: Executor, *, ahead: int
    ) -> None:
        self.frame, self._format, self._draft = frame, format, draft
        self._encoders, self._ahead = encoders, ahead
        self._given: deque[Future[Segment]] = deque()
        self._coder, self.notes = open_coder(format, frame)
        self._waiting: NDArray[Any] | None = None
        if draft.is_discarded:
            self.notes += (DISCARDED,)
        if draft.state is None:
            draft.leave_head(len(self._coder.head()))
        else:
            self._coder.restore(draft.state)
            done = self._coder.rows_done
            self.notes += (f"continued an earlier run from row {done} of {frame.height}",)
        self.next_row = self._coder.rows_done

    def put_rows(self, top: int, rgb: Tensor, alpha: Tensor | None = None) -> None:
        """Takes the next rows; those before them that are there already are left out.

        Args:
            top, rgb, alpha: as :meth:`~vdsr_cli.images.output_spec.Frame.levels` takes them.

        Raises:
            ValueError: rows before them are missing, they do not fit, or are not finite.
            OSError: the disk fails.

        What fails while segments are encoded ahead is raised by a later call, or :meth:`finish`.
        """
        if top > self.next_row:
            raise ValueError(f"row {top} was put where row {self.next_row} is next")
        levels = self.frame.levels(top, rgb, alpha)[self.next_row - top :]
        levels = fit_levels(levels, self._format)
        self.next_row += len(levels)
        if self._waiting is not None:
            levels = np.concatenate([self._waiting, levels])
        rows = self._coder.rows_each
        whole = len(levels) // rows * rows
        self._encode(levels[:whole])
        self._waiting = levels[whole:].copy()
        if whole:
            self._draft.checkpoint(self._coder.state)

    def _encode(self, levels: NDArray[Any]) -> None:
        rows = self._coder.rows_each
        for top in range(0, len(levels), rows):
            segment = levels[top : top + rows]
            if self._ahead:
                self._given.append(self._encoders.submit(self._coder.encoded, segment))
                self._append_all_but(self._ahead)
            else:
                self._append(self._coder.encoded(segment))

    def _append_all_but(self, ahead: int) -> None:
        """Writes the segments given, in order, until so many are left."""
        while len(self._given) > ahead:
            self._append(self._given.popleft().result())

    def _append(self, segment: Segment) -> None:
        self._coder.add(segment)
        self._draft.append(segment.data)

    def finish(self) -> None:
        """Completes the file once all rows are put."""
        if self.next_row != self.frame.height:
            raise ValueError(f"rows from {self.next_row} on were never put")
        if self._waiting is not None:
            self._encode(self._waiting)
        self._append_all_but(0)
        self._draft.append(self._coder.tail())
        self._draft.commit(self._coder.head())

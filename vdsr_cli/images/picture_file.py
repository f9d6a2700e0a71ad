"""The output picture, written to its file while its rows arrive."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vdsr_cli.images.atomic import writing_to
from vdsr_cli.images.draft import Draft, open_draft
from vdsr_cli.images.encode import fit_levels, open_coder
from vdsr_cli.images.frame import Frame
from vdsr_cli.images.segments import encoded_segments

_GO_ON: Final = "what is done is kept: the same command goes on from there"


@contextmanager
def open_picture_file(
    path: Path,
    frame: Frame,
    *,
    format: str,
    identity: Callable[[], str],
    every_s: float | None = None,
) -> Iterator["PictureFile"]:
    """Opens a file for a picture whose rows arrive from top to bottom.

    The file takes its name at the end of the block, whole. Where the block fails, or the process
    ends, after some seconds of work, a later run of the same identity goes on from the file's
    ``next_row`` and ends with the same bytes; until then nothing is left.

    Args:
        path: the file; missing folders are made.
        frame: size and samples of the picture.
        format: one that :func:`~vdsr_cli.images.encode.is_segmented`.
        identity: gives a hash of all that the rows depend on.
        every_s: seconds between two journals; see :mod:`~vdsr_cli.images.draft`.

    Raises:
        OutputError: the file cannot be written, or another process is writing it.
    """
    with writing_to(str(path)), open_draft(path, identity, every_s=every_s) as draft:
        try:
            file = PictureFile(draft, frame, format)
            yield file
            file.finish()
        except OSError:
            with writing_to(str(path), hint=_GO_ON if draft.is_kept else None):
                raise


class PictureFile:
    """A picture on its way into its file; rows are held until they fill a segment.

    Rows may be put from another thread than the one that opened it, from one at a time.

    Attributes:
        next_row: the row that :meth:`put_rows` takes next; not 0 where an earlier run is gone on
            with.
        notes: for the user, one line each.
    """

    def __init__(self, draft: Draft, frame: Frame, format: str) -> None:
        self.frame, self._format, self._draft = frame, format, draft
        self._coder, self.notes = open_coder(format, frame)
        self._waiting: NDArray[Any] | None = None
        if draft.is_discarded:
            self.notes += ("an unfinished output of other settings or another input was discarded",)
        if draft.state is None:
            draft.append(self._coder.head())
        else:
            self._coder.restore(draft.state)
            done = self._coder.rows_done
            self.notes += (f"continued an earlier run from row {done} of {frame.height}",)
        self.next_row = self._coder.rows_done

    def put_rows(self, top: int, rgb: Tensor, alpha: Tensor | None = None) -> None:
        """Takes the next rows.

        Args:
            top, rgb, alpha: as :meth:`~vdsr_cli.images.frame.Frame.levels` takes them.

        Raises:
            ValueError: they are not the next rows, do not fit, or are not finite.
            OSError: the disk fails.
        """
        if top != self.next_row:
            raise ValueError(f"row {top} was put where row {self.next_row} is next")
        levels = fit_levels(self.frame.levels(top, rgb, alpha), self._format)
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
        for segment in encoded_segments(self._coder, levels):
            self._draft.append(segment)

    def finish(self) -> None:
        """Completes the file once all rows are put."""
        if self.next_row != self.frame.height:
            raise ValueError(f"rows from {self.next_row} on were never put")
        if self._waiting is not None:
            self._encode(self._waiting)
        self._draft.append(self._coder.tail())
        self._draft.commit(self._coder.head())

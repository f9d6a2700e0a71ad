"""The file of an animation or a document, written while its pictures arrive.

Series ─► pictures, enlarged one at a time ─► SeriesFile: two in memory ─► file
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Final

import numpy as np
import torch
from numpy.typing import NDArray

from vdsr_cli.files import is_special
from vdsr_cli.images.animated_webp import LONGEST_MS, WebpCoder
from vdsr_cli.images.apng import LONGEST_S, ApngCoder
from vdsr_cli.images.atomic import writing_to
from vdsr_cli.images.encode import coding_options, fit, fit_frame
from vdsr_cli.images.frames import SeriesCoder, Turn, whole_units
from vdsr_cli.images.gif import LONGEST, GifCoder, palette_of
from vdsr_cli.images.levels import to_levels
from vdsr_cli.images.output_spec import Frame
from vdsr_cli.images.resumable import DISCARDED, Draft, open_draft
from vdsr_cli.images.series import Series
from vdsr_cli.images.tiff import TiffPages

_PALETTE_PIXELS: Final = 1 << 20
"""Pixels of all frames together that a palette is made for."""
_HUNDREDTH_MS: Final = 10
_UNITS_MS: Final = {"gif": _HUNDREDTH_MS, "webp": 1}
"""Units of durations by format, where they are not fractions."""
_LONGEST_MS: Final = {
    "gif": LONGEST * _HUNDREDTH_MS,
    "webp": LONGEST_MS,
    "png": LONGEST_S * 1000,
}


@contextmanager
def open_series_file(
    output: Path | BinaryIO,
    series: Series,
    frames: list[Frame],
    *,
    format: str,
    quality: int,
    identity: Callable[[], str],
    replace: bool = True,
    every_s: float | None = None,
) -> Iterator["SeriesFile"]:
    """Opens a file for the enlarged pictures of a series.

    It takes its name at the end of the block, whole; where that ends early, a later run of the same
    identity goes on from the file's ``first``, and ends with the same bytes. Streams, pipes and
    devices get theirs at once, at the end.

    Args:
        output: the file, or a stream open for writing.
        series: what is enlarged; its timing is kept.
        format: one that :func:`~vdsr_cli.images.encode.refuse_several` lets pass.
        identity: gives a hash of all that the pictures depend on.

    Raises:
        OutputError: the file cannot be written, or another process is writing it.
    """
    if isinstance(output, Path) and not is_special(output):
        coder, notes = _coder_of(series, frames, format, quality)
        with (
            writing_to(str(output)),
            open_draft(output, identity, replace=replace, every_s=every_s) as draft,
        ):
            file = SeriesFile(draft, coder, format, notes)
            yield file
            file.finish()
        return
    with TemporaryDirectory(prefix="vdsr-") as folder:
        path = Path(folder, f"series.{format}")
        inner = open_series_file(
            path, series, frames, format=format, quality=quality, identity=identity
        )
        with inner as file:
            yield file
        is_pipe = isinstance(output, Path)
        with (
            writing_to(str(output) if is_pipe else "standard output"),
            path.open("rb") as made,
            output.open("wb") if isinstance(output, Path) else nullcontext(output) as stream,
        ):
            shutil.copyfileobj(made, stream)
            stream.flush()


class SeriesFile:
    """Pictures on their way into one file; :func:`open_series_file` makes it.

    Attributes:
        first: the index of the picture that :meth:`put` takes first: not 0 where an earlier run is
            gone on with.
    """

    def __init__(
        self, draft: Draft, coder: SeriesCoder, format: str, notes: tuple[str, ...]
    ) -> None:
        self._draft, self._coder, self._format = draft, coder, format
        self.notes = notes + (DISCARDED,) * draft.is_discarded
        self._done: int = 0 if draft.state is None else draft.state["pictures"]
        # A frame is written as what is not as in the one before it.
        self.first = self._index = max(0, self._done - (format != "tiff"))
        self._before: NDArray[Any] | None = None
        if draft.state is None:
            draft.leave_head(len(coder.head(0)))
        else:
            self.notes += (f"continued an earlier run from picture {self._done + 1}",)

    def put(self, levels: NDArray[Any], frame: Frame) -> None:
        """Takes the next picture: levels (H, W, c), not premultiplied, of a frame.

        Raises:
            OSError: the disk fails.
        """
        fitted, metadata, notes = fit(levels, frame.like, self._format)
        self.notes += tuple(note for note in notes if note not in self.notes)
        if self._index >= self._done:
            turn = Turn(
                index=self._index,
                levels=fitted,
                metadata=metadata,
                before=self._before,
                at=self._draft.file.tell(),
            )
            self._draft.append(self._coder.encoded(turn))
            self._done = self._index + 1
            self._draft.checkpoint(lambda: {"pictures": self._done})
        self._before = fitted
        self._index += 1

    def finish(self) -> None:
        """Completes the file once all pictures are put."""
        self._draft.append(self._coder.tail())
        self._draft.commit(self._coder.head(self._draft.file.tell()))


def _coder_of(
    series: Series, frames: list[Frame], format: str, quality: int
) -> tuple[SeriesCoder, tuple[str, ...]]:
    if series.plays is None:
        samples = sum(int(np.prod(f.shape)) * f.dtype.itemsize for f in frames)
        return TiffPages(len(series), samples), ()
    shape, dtype, metadata, _ = fit_frame(frames[0], format)
    plays, durations = series.plays, series.durations
    notes = _timing_notes(durations, format)
    if format == "png":
        png = ApngCoder(shape, dtype, metadata, plays=plays, durations=durations)
        return png, notes
    if format == "webp":
        options = coding_options("WebP", quality)
        webp = WebpCoder(shape, metadata, plays=plays, durations=durations, options=options)
        return webp, notes
    hundredths = whole_units(durations, _HUNDREDTH_MS)
    palette = palette_of(_colours_of(series))
    return GifCoder(shape, palette, metadata, plays=plays, durations=hundredths), notes


def _timing_notes(durations: tuple[Fraction, ...], format: str) -> tuple[str, ...]:
    unit, longest = _UNITS_MS.get(format), _LONGEST_MS[format]
    notes: tuple[str, ...] = ()
    if unit is not None and any(duration % unit for duration in durations):
        notes += (f"{format.upper()} counts in {unit} ms: frames come up to {unit / 2:g} ms off",)
    if max(durations) > longest:
        seconds = f"{longest / 1000:g} s"
        notes += (f"{format.upper()} shows a frame for at most {seconds}: longer ones are cut",)
    return notes


def _colours_of(series: Series) -> NDArray[np.uint8]:
    """Pixels (n, 3) of all frames, as they are before they are enlarged, in the same share of each;
    those that are more than half transparent are left out."""
    shape = series.shapes[0]
    step = max(1, len(series) * shape.height * shape.width // _PALETTE_PIXELS)
    found = []
    for picture in series:
        rgb = picture.rgb[0].flatten(1)[:, ::step]
        if picture.alpha is not None:
            cover = picture.alpha[0].flatten(1)[:, ::step]
            rgb = torch.where(cover > 0, rgb / cover, 0)[:, cover[0] >= 0.5]
        found.append(to_levels(rgb))
    return torch.cat(found, dim=1).T.contiguous().numpy()

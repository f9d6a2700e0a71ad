"""Two pictures on one page, one laid over the other."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vdsr_cli.config import MAX_PIXELS
from vdsr_cli.errors import InputError
from vdsr_cli.figures.contact_sheet import Entry
from vdsr_cli.figures.html_report import Report, write_report
from vdsr_cli.images import Canvas, read_picture
from vdsr_cli.metrics.fidelity import psnr_of

_BLOCK_ROWS: Final = 256


def compare_pictures(
    left: Path, right: Path, page: Path, *, replace: bool = False, max_pixels: int = MAX_PIXELS
) -> None:
    """Writes the page: see :func:`~vdsr_cli.figures.html_report.write_report`.

    Raises:
        InputError: a picture cannot be read, or their sizes differ.
        OutputError: the page cannot be written.
    """
    first, second = (
        Canvas.of(read_picture(path, max_pixels=max_pixels)).rgb8() for path in (left, right)
    )
    (height, width), (other_height, other_width) = first.shape[:2], second.shape[:2]
    if first.shape != second.shape:
        raise InputError(
            f"{left} is {width}x{height}, {right} is {other_width}x{other_height}",
            hint="only pictures of one size can be laid over each other",
        )
    report = Report(
        title=f"{left.name}, {right.name}",
        facts=(("size", f"{width} x {height}"), ("PSNR", f"{_psnr(first, second):.2f} dB")),
        input=None,
        results=(Entry(label=left.name, rgb=first), Entry(label=right.name, rgb=second)),
        deviations=(),
        figures=(),
    )
    write_report(page, report, replace=replace)


def _psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """PSNR in dB of two pictures of one shape, in the memory of some of their rows."""
    squares = 0
    for top in range(0, len(first), _BLOCK_ROWS):
        rows = slice(top, top + _BLOCK_ROWS)
        squares += int(np.square(np.subtract(first[rows], second[rows], dtype=np.int64)).sum())
    return psnr_of(squares / first.size)

"""Contact sheets: small labelled pictures in rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vdsr_cli.paths import printable

LONGEST_PX = 320
"""Longest side of a picture on a sheet."""

_MARGIN, _LABEL = 12, 26
_ZOOM, _GAP, _NAME = 2, 8, 16
_PAPER, _INK = (250, 250, 250), (40, 40, 40)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """A picture of a sheet or a page, (H, W, 3) uint8, and its label."""

    label: str
    rgb: NDArray[np.uint8]


def small(rgb: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """(H, W, 3) reduced so that no side is longer than ``longest``; small ones as they are."""
    height, width = rgb.shape[:2]
    if max(height, width) <= longest:
        return rgb
    factor = longest / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def enlarged(rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(h, w, 3) brought to ``height`` by ``width`` with its pixels visible."""
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.NEAREST))


def contact_sheet(rows: Sequence[Sequence[Entry]], *, title: str) -> NDArray[np.uint8]:
    """Rows of labelled pictures under a title: (H, W, 3) uint8.

    All pictures get cells of one size: that of the largest after reduction to ``LONGEST_PX``.
    """
    reduced = [[small(entry.rgb, LONGEST_PX) for entry in row] for row in rows]
    cell_h = max(rgb.shape[0] for row in reduced for rgb in row)
    cell_w = max(max(rgb.shape[1] for row in reduced for rgb in row), 96)
    columns = max(len(row) for row in rows)
    size = (
        _MARGIN + columns * (cell_w + _MARGIN),
        2 * _MARGIN + _LABEL + len(rows) * (cell_h + _LABEL + _MARGIN),
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, _MARGIN, _MARGIN, title, size[0] - 2 * _MARGIN, 16)
    for y, (row, pictures) in enumerate(zip(rows, reduced, strict=True)):
        top = 2 * _MARGIN + _LABEL + y * (cell_h + _LABEL + _MARGIN)
        for x, (entry, rgb) in enumerate(zip(row, pictures, strict=True)):
            left = _MARGIN + x * (cell_w + _MARGIN)
            sheet.paste(Image.fromarray(rgb), (left, top))
            _write(draw, left, top + cell_h + 5, entry.label, cell_w, 13)
    return np.asarray(sheet)


def strip_of(entries: Sequence[Entry]) -> NDArray[np.uint8]:
    """Small pictures of one size side by side, twice as large without smoothing, named below."""
    height, width = (side * _ZOOM for side in entries[0].rgb.shape[:2])
    step = width + _GAP
    strip = Image.new("RGB", (step * len(entries) - _GAP, height + _NAME), "white")
    draw = ImageDraw.Draw(strip)
    for index, entry in enumerate(entries):
        strip.paste(Image.fromarray(enlarged(entry.rgb, height, width)), (index * step, 0))
        draw.text((index * step, height + 2), entry.label, fill="black")
    return np.asarray(strip)


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, width: int, size: int) -> None:
    """One line of Pillow's own font, cut with three dots where it is too long."""
    # The built-in font has Latin letters alone; others would be drawn as boxes or fail.
    text = printable(text).encode("latin-1", "replace").decode("latin-1")
    font = ImageFont.load_default(size)
    if draw.textlength(text, font=font) > width:
        while text and draw.textlength(text + "...", font=font) > width:
            text = text[:-1]
        text += "..."
    draw.text((x, y), text, fill=_INK, font=font)

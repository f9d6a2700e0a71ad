"""The log of a run as a picture: one panel a figure, drawn with Pillow."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from vdsr_cli.files import atomic_path
from vdsr_cli.training.config import Row

PANELS = (
    ("elbo_bits", "negative ELBO, bits/dim"),
    ("rate_bits", "rate, bits/dim"),
    ("mean_l1", "mean path, L1"),
    ("val_bits", "validation, bits/dim"),
    ("sample_l1", "samples, L1"),
    ("perceptual", "samples, LPIPS"),
    ("diversity", "distance between samples"),
    ("generator", "samples against the discriminator"),
    ("discriminator", "discriminator"),
    ("val_psnr_y", "validation PSNR-Y at 0, dB"),
    ("val_psnr_y_sample", "validation PSNR-Y at 0.8, dB"),
    ("val_lpips", "validation LPIPS at 0"),
    ("val_lpips_sample", "validation LPIPS at 0.8"),
)
_WIDTH, _HEIGHT, _MARGIN = 420, 220, 44
_INK, _GRID, _LINE = (40, 40, 40), (215, 215, 215), (31, 119, 180)

Points = list[tuple[float, float]]


def series_of(rows: Sequence[Row], key: str) -> Points:
    """(step, figure) of every row that has a finite one; the ELBO's panel waits for the ELBO to
    begin."""
    if key == "elbo_bits":
        parts = ("distortion_bits", "rate_bits")
        begun = [r for r in rows if r.get(parts[0], 0) > 0 and parts[1] in r]
        return _finite([(r["step"], sum(r[p] for p in parts)) for r in begun])
    found = _finite([(row["step"], row[key]) for row in rows if key in row])
    return found if any(value for _, value in found) else []


def _finite(points: Points) -> Points:
    return [point for point in points if math.isfinite(point[1])]


def draw_curves(rows: Sequence[Row]) -> Image.Image:
    """Every panel that the log has figures for, two abreast."""
    panels = [(title, series_of(rows, key)) for key, title in PANELS]
    panels = [(title, points) for title, points in panels if len(points) > 1]
    columns = min(2, max(1, len(panels)))
    height = max(1, -(-len(panels) // columns)) * _HEIGHT
    picture = Image.new("RGB", (columns * _WIDTH, height), "white")
    draw = ImageDraw.Draw(picture)
    for index, (title, points) in enumerate(panels):
        origin = (index % columns * _WIDTH, index // columns * _HEIGHT)
        _draw_panel(draw, origin, title, _thinned(points, _WIDTH))
    return picture


def save_curves(rows: Sequence[Row], path: Path) -> None:
    """Writes the picture; raises OSError."""
    with atomic_path(path) as temporary:
        draw_curves(rows).save(temporary)


def _thinned(points: Points, count: int) -> Points:
    """At most about ``count`` points, each the mean of its neighbours."""
    width = -(-len(points) // count)
    groups = (points[start : start + width] for start in range(0, len(points), width))
    return [(g[-1][0], sum(value for _, value in g) / len(g)) for g in groups]


def _draw_panel(
    draw: ImageDraw.ImageDraw, origin: tuple[int, int], title: str, points: Points
) -> None:
    left, top = origin[0] + _MARGIN, origin[1] + 26
    right, bottom = origin[0] + _WIDTH - 14, origin[1] + _HEIGHT - 26
    low, high = _range([value for _, value in points])
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    draw.text((left, origin[1] + 6), title, fill=_INK)
    for part in (0.0, 0.5, 1.0):
        y = bottom - part * (bottom - top)
        draw.line([(left, y), (right, y)], fill=_GRID)
        draw.text((origin[0] + 2, y - 5), f"{low + part * (high - low):.4g}", fill=_INK)
    draw.text((left, bottom + 6), f"{first:.0f}", fill=_INK)
    draw.text((right - 40, bottom + 6), f"{last:.0f}", fill=_INK)
    line = [
        (
            left + (step - first) / (last - first) * (right - left),
            bottom - (min(max(value, low), high) - low) / (high - low) * (bottom - top),
        )
        for step, value in points
    ]
    draw.line(line, fill=_LINE, width=2)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the greatest value, the wild first tenth left out where that helps."""
    settled = values[len(values) // 10 :] or values
    low, high = min(settled), max(settled)
    return (low, high) if high > low else (low - 0.5, high + 0.5)

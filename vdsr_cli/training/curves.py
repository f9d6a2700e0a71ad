"""The log of a run as a picture: one panel a figure."""

import math
from collections.abc import Sequence
from pathlib import Path

from vdsr_cli.figures.plot import Figure, Panel, draw_figure, save_figure
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
_MOST_POINTS = 300

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


def draw_curves(rows: Sequence[Row]) -> Figure:
    """Every panel that the log has figures for, two abreast."""
    found = [(title, series_of(rows, key)) for key, title in PANELS]
    panels = [
        Panel(title=title, x_title="step", curves={"": _settled(_thinned(points, _MOST_POINTS))})
        for title, points in found
        if len(points) > 1
    ]
    return draw_figure(panels, columns=2)


def save_curves(rows: Sequence[Row], path: Path) -> None:
    """Writes the picture; raises OutputError."""
    save_figure(path, draw_curves(rows))


def _thinned(points: Points, count: int) -> Points:
    """At most about ``count`` points, each the mean of its neighbours."""
    width = -(-len(points) // count)
    groups = (points[start : start + width] for start in range(0, len(points), width))
    return [(g[-1][0], sum(value for _, value in g) / len(g)) for g in groups]


def _settled(points: Points) -> Points:
    """The points, held within what they reach after the wild first tenth."""
    values = [value for _, value in points][len(points) // 10 :]
    low, high = min(values), max(values)
    return [(step, min(max(value, low), high)) for step, value in points]

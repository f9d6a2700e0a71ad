"""Scores against temperature as a figure: the VDVAE-SR paper's figure 8, with LPIPS."""

import math
from collections.abc import Sequence
from typing import Final

from vdsr_cli.bench.report import COLUMNS, Column, Report, Row
from vdsr_cli.errors import InputError
from vdsr_cli.figures.plot import Figure, Panel, Point, draw_figure

_PLOTTED: Final = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "lpips_alex", "apd_mse")


def temperature_figure(report: Report) -> Figure:
    """One panel a metric, one curve a model and dataset.

    Raises:
        InputError: nothing was scored at one temperature for all levels.
    """
    rows = [row for row in report.rows() if isinstance(row.temperature, int | float)]
    if not rows:
        raise InputError("there is no curve to plot: no model was scored at one temperature")
    names = dict.fromkeys(_curve_name(row) for row in rows)
    return draw_figure(
        [
            Panel(
                title=column.title,
                x_title="temperature",
                curves={name: _curve(rows, name, column) for name in names},
            )
            for column in _plotted_columns(rows)
        ]
    )


def _plotted_columns(rows: Sequence[Row]) -> list[Column]:
    """PSNR and SSIM of the luma where there is one, else of the colours; and the others."""
    keys = {key for row in rows for key in row.scores}
    keys -= {key.replace("_y", "_rgb") for key in keys if key.endswith("_y")}
    return [column for column in COLUMNS if column.key in _PLOTTED and column.key in keys]


def _curve_name(row: Row) -> str:
    return f"{row.method}, {row.dataset}"


def _curve(rows: Sequence[Row], name: str, column: Column) -> list[Point]:
    mine = [row for row in rows if _curve_name(row) == name and column.key in row.scores]
    points = [(float(row.temperature or 0), row.scores[column.key].mean) for row in mine]
    return sorted(point for point in points if math.isfinite(point[1]))

"""Scores against temperature as a figure, SVG or PNG: the VDVAE-SR paper's figure 8, with LPIPS.

A figure is a list of strokes and texts, which either format draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw

from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.images import atomic_write
from vdsr_cli.services.bench_report import COLUMNS, Column, Report, Row

PLOT_SUFFIXES: Final = (".svg", ".png")
_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b")
_PLOTTED: Final = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "lpips_alex", "apd_mse")
_PANEL_W, _PANEL_H, _MARGIN, _TICKS = 300, 220, 56, 5

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """A line through points, in pixels from the top left."""

    points: tuple[Point, ...]
    colour: str = "#888888"
    width: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A text whose ``anchor`` (start, middle, end) lies at ``at``."""

    at: Point
    text: str
    anchor: str = "middle"
    colour: str = "#222222"


Shape = Stroke | Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Everything to draw on white."""

    width: int
    height: int
    shapes: tuple[Shape, ...]


def check_plot_path(path: Path) -> None:
    """Raises UsageError for a name that is neither SVG nor PNG."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"--plot {path}: use one of {', '.join(PLOT_SUFFIXES)}")


def temperature_figure(report: Report) -> Figure:
    """One panel a metric, one curve a model and dataset.

    Raises:
        InputError: nothing was scored at a temperature.
    """
    rows = [row for row in report.rows() if row.temperature is not None]
    if not rows:
        raise InputError("there is no curve to plot: no model was scored at a temperature")
    columns = _plotted_columns(rows)
    names = list(dict.fromkeys(_curve_name(row) for row in rows))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    shapes: list[Shape] = []
    for index, column in enumerate(columns):
        shapes += _panel(index * _PANEL_W, column, rows, colours)
    for index, name in enumerate(names):
        y = _PANEL_H + 14.0 * (index + 1)
        shapes.append(Label(at=(_MARGIN, y), text=name, anchor="start", colour=colours[name]))
    height = _PANEL_H + 14 * len(names) + 14
    return Figure(width=_PANEL_W * len(columns), height=height, shapes=tuple(shapes))


def _plotted_columns(rows: Sequence[Row]) -> list[Column]:
    """PSNR and SSIM of the luma where there is one, else of the colours; and the others."""
    keys = {key for row in rows for key in row.scores}
    keys -= {key.replace("_y", "_rgb") for key in keys if key.endswith("_y")}
    return [column for column in COLUMNS if column.key in _PLOTTED and column.key in keys]


def _curve_name(row: Row) -> str:
    return f"{row.method}, {row.dataset}"


def _panel(left: int, column: Column, rows: Sequence[Row], colours: dict[str, str]) -> list[Shape]:
    """Axes, ticks and curves of one metric."""
    curves = {name: _curve(rows, name, column) for name in colours}
    points = [point for curve in curves.values() for point in curve]
    x_axis = _Axis.over([x for x, _ in points], left + _MARGIN, left + _PANEL_W - 16)
    y_axis = _Axis.over([y for _, y in points], _PANEL_H - 36, 28)
    shapes = [*_frame(x_axis, y_axis, column)]
    for name, curve in curves.items():
        placed = tuple((x_axis.place(x), y_axis.place(y)) for x, y in curve)
        shapes.append(Stroke(points=placed, colour=colours[name], width=2))
        dots = [((x - 2, y), (x + 2, y)) for x, y in placed]
        shapes += [Stroke(points=dot, colour=colours[name], width=4) for dot in dots]
    return shapes


def _curve(rows: Sequence[Row], name: str, column: Column) -> list[Point]:
    mine = [row for row in rows if _curve_name(row) == name and column.key in row.scores]
    points = [(row.temperature or 0.0, row.scores[column.key].mean) for row in mine]
    return sorted(point for point in points if math.isfinite(point[1]))


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values ``low`` to ``high`` on pixels ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "_Axis":
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        room = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
        return cls(low - room, high + room, start, end)

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """A few round values."""
        rough = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [round(index * step, 10) for index in range(first, last + 1)]


def _frame(x_axis: _Axis, y_axis: _Axis, column: Column) -> list[Shape]:
    (left, right), (bottom, top) = (x_axis.start, x_axis.end), (y_axis.start, y_axis.end)
    corners = ((left, top), (left, bottom), (right, bottom))
    shapes: list[Shape] = [Stroke(points=corners, colour="#222222")]
    shapes.append(Label(at=((left + right) / 2, top - 10), text=column.title))
    shapes.append(Label(at=((left + right) / 2, bottom + 30), text="temperature"))
    for value in x_axis.ticks():
        x = x_axis.place(value)
        shapes.append(Label(at=(x, bottom + 15), text=f"{value:g}"))
    for value in y_axis.ticks():
        y = y_axis.place(value)
        shapes.append(Stroke(points=((left, y), (right, y)), colour="#dddddd"))
        shapes.append(Label(at=(left - 5, y + 4), text=f"{value:g}", anchor="end"))
    return shapes


def to_svg(figure: Figure) -> bytes:
    """The figure as an SVG document."""
    size = f'width="{figure.width}" height="{figure.height}"'
    body = "\n".join(_svg_shape(shape) for shape in figure.shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">\n'
        f'<rect {size} fill="#ffffff"/>\n{body}\n</svg>\n'
    ).encode()


def _svg_shape(shape: Shape) -> str:
    if isinstance(shape, Label):
        at = f'x="{shape.at[0]:.1f}" y="{shape.at[1]:.1f}"'
        text = escape(shape.text)
        return f'<text {at} text-anchor="{shape.anchor}" fill="{shape.colour}">{text}</text>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
    style = f'fill="none" stroke="{shape.colour}" stroke-width="{shape.width}"'
    return f'<polyline points="{points}" {style}/>'


def to_png(figure: Figure, *, zoom: int = 2) -> bytes:
    """The figure as a PNG file, ``zoom`` pixels a unit."""
    image = Image.new("RGB", (figure.width * zoom, figure.height * zoom), "white")
    draw = ImageDraw.Draw(image)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for shape in figure.shapes:
        if isinstance(shape, Label):
            x, y = shape.at
            where, anchor = (x * zoom, y * zoom), anchors[shape.anchor]
            draw.text(where, shape.text, shape.colour, anchor=anchor, font_size=11 * zoom)
        else:
            points = [(x * zoom, y * zoom) for x, y in shape.points]
            draw.line(points, shape.colour, width=shape.width * zoom)
    stream = BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def save_figure(path: Path, figure: Figure) -> None:
    """Writes SVG or PNG by the name, whole or not at all; raises OutputError."""
    content = to_svg(figure) if path.suffix.lower() == ".svg" else to_png(figure)
    with atomic_write(path) as stream:
        stream.write(content)

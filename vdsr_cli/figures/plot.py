"""Curves as a figure, SVG or PNG: panels side by side, one legend below.

A figure is a list of strokes and texts, which either format draws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw

from vdsr_cli.errors import UsageError
from vdsr_cli.images import atomic_write

PLOT_SUFFIXES: Final = (".svg", ".png")
_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b")
_PANEL_W, _PANEL_H, _MARGIN, _TICKS = 300, 220, 56, 5
_TITLE_Y, _TOP, _TOP_BELOW_MARKS = 18, 28, 48

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes.

    Attributes:
        curves: points of each curve, by its name in the legend.
        is_log: whether the vertical axis is logarithmic; points at or below zero are left out.
        marks: vertical lines, the text above each by its place on the x axis.
    """

    title: str
    x_title: str
    curves: Mapping[str, Sequence[Point]]
    is_log: bool = False
    marks: Mapping[float, str] = field(default_factory=dict)


def check_plot_path(path: Path) -> None:
    """Raises UsageError for a name that is neither SVG nor PNG."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"--plot {path}: use one of {', '.join(PLOT_SUFFIXES)}")


def draw_figure(panels: Sequence[Panel], *, columns: int | None = None) -> Figure:
    """The panels from left to right, at most ``columns`` a row; a curve of one name has one colour
    in all of them, and a place in the legend unless its name is empty."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    across = max(1, min(columns or len(panels), len(panels)))
    shapes: list[Shape] = []
    for index, panel in enumerate(panels):
        shapes += _draw_panel(index % across * _PANEL_W, index // across * _PANEL_H, panel, colours)
    height = max(1, -(-len(panels) // across)) * _PANEL_H
    for name in filter(None, names):
        height += 14
        colour = colours[name]
        shapes.append(Label(at=(_MARGIN, height), text=name, anchor="start", colour=colour))
    return Figure(width=_PANEL_W * across, height=height + 14, shapes=tuple(shapes))


def _draw_panel(left: int, top: int, panel: Panel, colours: Mapping[str, str]) -> list[Shape]:
    """Axes, ticks, marks and curves of one panel."""
    curves = {name: _shown(points, panel) for name, points in panel.curves.items()}
    points = [point for curve in curves.values() for point in curve]
    x_axis = _Axis.over([x for x, _ in points], left + _MARGIN, left + _PANEL_W - 16)
    first = _TOP_BELOW_MARKS if panel.marks else _TOP
    y_axis = _Axis.over([y for _, y in points], top + _PANEL_H - 36, top + first)
    shapes = [*_frame(x_axis, y_axis, panel, top + _TITLE_Y), *_marks(x_axis, y_axis, panel)]
    for name, curve in curves.items():
        placed = tuple((x_axis.place(x), y_axis.place(y)) for x, y in curve)
        shapes.append(Stroke(points=placed, colour=colours[name], width=2))
        dots = [((x - 2, y), (x + 2, y)) for x, y in placed]
        shapes += [Stroke(points=dot, colour=colours[name], width=4) for dot in dots]
    return shapes


def _shown(points: Sequence[Point], panel: Panel) -> list[Point]:
    """The points on the panel's axes: the logarithm of y where that axis is logarithmic."""
    if not panel.is_log:
        return list(points)
    return [(x, math.log10(y)) for x, y in points if y > 0]


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

    def log_ticks(self) -> list[float]:
        """Logarithms of round values."""
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        ticks = [power + math.log10(factor) for power in powers for factor in (1, 2, 5)]
        return [tick for tick in ticks if self.low <= tick <= self.high]


def _frame(x_axis: _Axis, y_axis: _Axis, panel: Panel, title_y: float) -> list[Shape]:
    (left, right), (bottom, top) = (x_axis.start, x_axis.end), (y_axis.start, y_axis.end)
    corners = ((left, top), (left, bottom), (right, bottom))
    shapes: list[Shape] = [Stroke(points=corners, colour="#222222")]
    shapes.append(Label(at=((left + right) / 2, title_y), text=panel.title))
    shapes.append(Label(at=((left + right) / 2, bottom + 30), text=panel.x_title))
    for value in x_axis.ticks():
        x = x_axis.place(value)
        shapes.append(Label(at=(x, bottom + 15), text=f"{value:g}"))
    for value in y_axis.log_ticks() if panel.is_log else y_axis.ticks():
        y = y_axis.place(value)
        text = f"{10**value if panel.is_log else value:g}"
        shapes.append(Stroke(points=((left, y), (right, y)), colour="#dddddd"))
        shapes.append(Label(at=(left - 5, y + 4), text=text, anchor="end"))
    return shapes


def _marks(x_axis: _Axis, y_axis: _Axis, panel: Panel) -> list[Shape]:
    shapes: list[Shape] = []
    for index, (value, text) in enumerate(panel.marks.items()):
        x, y = x_axis.place(value), y_axis.end - 3 - 11 * (index % 2)
        shapes.append(Stroke(points=((x, y_axis.start), (x, y_axis.end)), colour="#bbbbbb"))
        shapes.append(Label(at=(x, y), text=text, anchor="start", colour="#888888"))
    return shapes


def to_svg(figure: Figure) -> bytes:
    """The figure as an SVG document."""
    size = f'width="{figure.width}" height="{figure.height}"'
    body = "\n".join(_svg_shape(shape) for shape in figure.shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">\n'
        f'<rect {size} fill="#ffffff"/>\n{body}\n</svg>\n'
    ).encode(errors="backslashreplace")


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


def save_figure(path: Path, figure: Figure, *, replace: bool = True) -> None:
    """Writes SVG or PNG by the name, whole or not at all; raises OutputError."""
    content = to_svg(figure) if path.suffix.lower() == ".svg" else to_png(figure)
    with atomic_write(path, replace=replace) as stream:
        stream.write(content)

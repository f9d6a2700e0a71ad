"""One self-contained HTML page of a run: pictures inside it as data, no network.

Report (pictures as arrays, figures as text) ─► pictures as WebP data addresses, fitted to a
size ─► JSON in the page's template (report.html), whose viewer (viewer.html, .css, .js) draws
everything itself
"""

import base64
import html
import json
from dataclasses import asdict, dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vdsr_cli.errors import OutputError
from vdsr_cli.figures.contact_sheet import Entry
from vdsr_cli.images import atomic_write

_MOST_OF_A_SIDE: Final = 16_383
"""Pixels of a WebP's side."""

PAGE_BYTES: Final = 4_900_000
"""The size that a page stays below where its pictures can be made small enough."""

_LADDER: Final = (
    (1_600_000, 92),
    (1_600_000, 85),
    (1_600_000, 75),
    (1_600_000, 60),
    (1_000_000, 60),
    (500_000, 60),
    (250_000, 50),
    (100_000, 50),
    (40_000, 40),
)
"""Most pixels a picture and WebP quality, tried in turn until the page is small enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A table and some named values below it; all text."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """The contents of a page.

    Attributes:
        input: as it is, small; None where there are results alone.
        results: pictures of one size.
        deviations: maps of that size in viridis colours; the label says what they reach.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    input: Entry | None
    results: tuple[Entry, ...]
    deviations: tuple[Entry, ...]
    figures: tuple[Figures, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A picture of the viewer: its label and its address."""

    label: str
    src: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Contents of the viewer; its fields are the keys of its JSON.

    Attributes:
        input, results, deviations: where the pictures of a :class:`Report` are.
        reduced: whether results are shown smaller than they are.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    width: int
    height: int
    input: Shown | None
    results: tuple[Shown, ...]
    deviations: tuple[Shown, ...]
    figures: tuple[Figures, ...]
    reduced: bool = False


def write_report(path: Path, report: Report, *, replace: bool = True) -> None:
    """Writes the page, whole or not at all.

    Raises:
        OutputError: the file cannot be written, or not without ``replace``.
    """
    page = render(report).encode(errors="backslashreplace")  # names may be no text
    with atomic_write(path, replace=replace) as stream:
        stream.write(page)


def render(report: Report, *, page_bytes: int = PAGE_BYTES) -> str:
    """The page's HTML. Pictures are reduced and compressed until it is below ``page_bytes``, or
    as small as they are ever made."""
    template = _resource("report.html")
    for mark, kind in (("@STYLE@", "css"), ("@VIEWER@", "html"), ("@SCRIPT@", "js")):
        template = template.replace(mark, viewer_part(kind))
    room = page_bytes - len(template.encode()) - 50_000
    page = template.replace("@TITLE@", html.escape(report.title))
    return page.replace("@DATA@", embedded_json(asdict(_view(report, room))))


def embedded_json(data: Any) -> str:
    """JSON for a script element."""
    # There "<" could end the script; inside JSON strings it may be written so.
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def viewer_part(kind: str) -> str:
    """The viewer's ``css``, ``html`` or ``js``, which other pages that show results use too."""
    return _resource(f"viewer.{kind}")


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _view(report: Report, room: int) -> View:
    layers = (*report.results, *report.deviations)
    source = _lossless(report.input.rgb) if report.input else ""
    for most_pixels, quality in _LADDER:
        pictures = [_webp(_reduced(layer.rgb, most_pixels), quality) for layer in layers]
        if len(source) + sum(map(len, pictures)) <= room:
            break
    split = len(report.results)
    height, width = report.results[0].rgb.shape[:2]
    shown = [Shown(label=layer.label, src=p) for layer, p in zip(layers, pictures, strict=True)]
    return View(
        title=report.title,
        facts=report.facts,
        width=width,
        height=height,
        input=Shown(label=report.input.label, src=source) if report.input else None,
        results=tuple(shown[:split]),
        deviations=tuple(shown[split:]),
        figures=report.figures,
        reduced=height * width > most_pixels,
    )


def _reduced(rgb: NDArray[np.uint8], most_pixels: int) -> Image.Image:
    """A picture of at most so many pixels, and of sides that WebP can have."""
    image = Image.fromarray(rgb)
    factor = (most_pixels / (image.width * image.height)) ** 0.5
    factor = min(factor, _MOST_OF_A_SIDE / max(image.size))
    if factor >= 1:
        return image
    size = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _webp(image: Image.Image, quality: int) -> str:
    encoded = BytesIO()
    try:
        image.save(encoded, "WEBP", quality=quality, method=4)
    except (OSError, KeyError) as error:
        raise OutputError(
            f"this Pillow cannot write WebP: {error}", hint="pip install --upgrade pillow"
        ) from error
    return "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode()


def _lossless(rgb: NDArray[np.uint8]) -> str:
    encoded = BytesIO()
    Image.fromarray(rgb).save(encoded, "PNG", optimize=True)
    if len(encoded.getvalue()) > 600_000:
        return _webp(_reduced(rgb, 1_000_000), 90)
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()

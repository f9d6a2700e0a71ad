"""The output of ``vdsr bench``: progress on stderr, tables on stdout."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from vdsr_cli.bench.published import PublishedRow, load_known_sets, published_rows
from vdsr_cli.bench.report import (
    COLUMNS,
    Column,
    DatasetFacts,
    Estimate,
    PictureScore,
    Report,
    Row,
    worst_pictures,
)
from vdsr_cli.cli.console import counting_progress, print_line
from vdsr_cli.config import BICUBIC, Edges
from vdsr_cli.metrics import mean_psnr


class BenchProgress:
    """A bar over the scores of a dataset; silent when quiet or off a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._progress = counting_progress("scores", quiet=quiet)
        self._task = self._progress.add_task("", total=None)
        self._scores = 0
        self._method = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._progress.stop()

    def start(self, dataset: str, steps: int) -> None:
        """A dataset of so many scores begins."""
        self._progress.reset(self._task, total=steps, description=dataset)
        self._scores, self._method = 0, ""

    def score(self, score: PictureScore) -> None:
        """One more is known."""
        self._scores += 1
        if self._method == BICUBIC != score.method:
            # A model takes longer than bicubic: the time left follows from its own scores.
            self._progress.reset(self._task, completed=self._scores)
        else:
            self._progress.update(self._task, completed=self._scores)
        self._method = score.method

    def download(self, received: int, total: int | None) -> None:
        """So many bytes of a metric's weights have arrived."""
        self._progress.update(
            self._task, completed=received, total=total, description="weights, bytes"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A text of a grid and its rank: 1 the best of its column, 2 the second best, else None."""

    text: str
    rank: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table before it is drawn; ``sections`` are set off from one another."""

    title: str
    header: tuple[str, ...]
    sections: tuple[tuple[tuple[Cell, ...], ...], ...]
    footnotes: tuple[str, ...] = ()


def report_grids(report: Report, *, published: bool = False, worst: int = 0) -> list[Grid]:
    """One grid a dataset, then one with its worst pictures where that is asked for.

    Published rows stand with those of their protocol; what does not state one has its own grid.
    """
    grids = []
    for facts in report.datasets:
        grids.append(_scores_grid(report, facts, published=published))
        if (
            published
            and report.scale is not None
            and report.protocol == "standard"
            and (others := _unstated_grid(facts, report.scale))
        ):
            grids.append(others)
        if worst:
            grids.append(_worst_grid(report, facts, worst))
    return grids


def _scores_grid(report: Report, facts: DatasetFacts, *, published: bool) -> Grid:
    rows, columns = report.rows(facts.name), report.columns()
    others: list[PublishedRow] = []
    if report.scale is None:
        title = f"{facts.name}, protocol {report.protocol}"
        notes = [f"{facts.pictures} pictures", *_likelihood_notes(rows)]
    else:
        edges = "" if report.edges == Edges.repeat else f", edges {report.edges}"
        title = f"{facts.name}, x{report.scale}, protocol {report.protocol}{edges}"
        notes = [caption(facts), *_exact_notes(report, facts), *_likelihood_notes(rows)]
        if published:
            name = facts.known_as or facts.name
            others = published_rows(name, report.protocol, report.scale)
    ranks = {column.key: rank(rows, column) for column in columns}
    ours = tuple(
        (
            Cell(text=_name(row, facts)),
            *(
                Cell(
                    text=cell(row.scores.get(c.key), c) or report.unscored.get(c.key, ""),
                    rank=ranks[c.key][index],
                )
                for c in columns
            ),
        )
        for index, row in enumerate(rows)
    )
    sections = (ours, _published_cells(others, columns)) if others else (ours,)
    return Grid(
        title=title,
        header=("method", *(column.title for column in columns)),
        sections=sections,
        footnotes=(*notes, *_sources(others)),
    )


def _name(row: Row, facts: DatasetFacts) -> str:
    if row.pictures == facts.pictures:
        return row.label
    return f"{row.label} ({row.pictures} of {facts.pictures} pictures)"


def caption(facts: DatasetFacts) -> str:
    """The conditions that the figures stand on."""
    verdicts = {
        True: f"bicubic verified against {facts.known_as}",
        False: f"bicubic is NOT what it is on {facts.known_as}",
        None: "bicubic not verified: no figure is known for it",
    }
    return f"{facts.pictures} pictures; {verdicts[facts.verified]}"


def _exact_notes(report: Report, facts: DatasetFacts) -> list[str]:
    """How often an error is nothing, and what it counts for in the row."""
    scores = [s for s in report.pictures if s.dataset == facts.name]
    labels = {"lr_psnr": "8-bit pictures that downscale to exactly the input"}
    labels |= {c.key: f"met exactly, left out of {c.title}" for c in COLUMNS if c.pool is mean_psnr}
    notes = []
    for key, label in labels.items():
        exact = Counter(s.label for s in scores if math.isinf(s.scores.get(key, 0.0)))
        scored = Counter(s.label for s in scores)
        counts = ", ".join(
            f"{name} {exact[name]} of {n}" for name, n in scored.items() if exact[name]
        )
        notes += [f"{label}: {counts}"] if counts else []
    return notes


def _likelihood_notes(rows: Sequence[Row]) -> list[str]:
    """Where the bits of each model go."""
    notes = []
    for row in rows:
        means = {key: estimate.mean for key, estimate in row.scores.items()}
        if "distortion_bits" in means:
            levels = ", ".join(
                f"cell {key.removeprefix('rate_bits_cell_')} {value:.4f}"
                for key, value in means.items()
                if key.startswith("rate_bits_cell_")
            )
            notes.append(
                f"{row.method}: {means['bits_per_dim']:.4f} bits per dimension = distortion "
                f"{means['distortion_bits']:.4f} + rate {means['rate_bits']:.4f} ({levels})"
                + "".join(
                    f"; lossless {codec} {means[key]:.4f}"
                    for key, codec in (("webp_bits", "WebP"), ("jxl_bits", "JPEG XL"))
                    if key in means
                )
            )
    return notes


def _published_cells(
    rows: Sequence[PublishedRow], columns: Sequence[Column]
) -> tuple[tuple[Cell, ...], ...]:
    sources = list(dict.fromkeys(row.source for row in rows))
    return tuple(
        (
            Cell(text=f"{row.label} [{sources.index(row.source) + 1}]"),
            *(
                Cell(text=f"{row.scores[c.key]:.{c.digits}f}" if c.key in row.scores else "")
                for c in columns
            ),
        )
        for row in rows
    )


def _sources(rows: Sequence[PublishedRow]) -> list[str]:
    """Where the rows stand, and which of them only quote another publication."""
    notes = []
    for index, source in enumerate(dict.fromkeys(row.source for row in rows), start=1):
        quoted = [row.label for row in rows if row.source == source and not row.is_primary]
        quotes = f"; quotes {', '.join(quoted)}" if quoted else ""
        notes.append(f"[{index}] as published: {source}{quotes}")
    return notes


def _unstated_grid(facts: DatasetFacts, scale: int) -> Grid | None:
    """Published rows whose preparation of the pictures is not stated: never beside ours."""
    rows = published_rows(facts.known_as or facts.name, "article", scale)
    if not rows:
        return None
    keys = dict.fromkeys(key for row in rows for key in row.scores)
    columns = [column for column in COLUMNS if column.key in keys]
    return Grid(
        title=f"{facts.name}, x{scale}: published without the protocol, not comparable with ours",
        header=("method", *(column.title for column in columns)),
        sections=(_published_cells(rows, columns),),
        footnotes=tuple(_sources(rows)),
    )


def _worst_grid(report: Report, facts: DatasetFacts, count: int) -> Grid:
    columns = report.columns()
    column = next(c for c in columns if c.key.startswith("psnr"))
    lines = []
    for row in report.rows(facts.name):
        mine = [s for s in report.pictures if s.key == row.key]
        lines.append(
            tuple(
                (Cell(text=f"{name}  {row.label}"), *_cells(scored, columns))
                for name, scored in worst_pictures(mine, column, count)
            )
        )
    return Grid(
        title=f"{facts.name}: worst pictures in {column.title}",
        header=("picture", *(c.title for c in columns)),
        sections=tuple(lines),
    )


def _cells(row: Row, columns: Sequence[Column]) -> tuple[Cell, ...]:
    return tuple(Cell(text=cell(row.scores.get(column.key), column)) for column in columns)


def rank(rows: Sequence[Row], column: Column) -> list[int | None]:
    """1 for the best rows of a column, 2 for the second best, as far as the digits tell."""
    shown = [_rounded(row.scores.get(column.key), column) for row in rows]
    ordered = sorted({v for v in shown if v is not None}, reverse=column.better == "higher")
    if column.better is None or len(ordered) < 2:
        return [None] * len(rows)
    places = {value: place for place, value in enumerate(ordered[:2], start=1)}
    return [None if value is None else places.get(value) for value in shown]


def _rounded(estimate: Estimate | None, column: Column) -> float | None:
    if estimate is None or math.isnan(estimate.mean):
        return None
    return round(estimate.mean, column.digits)


def cell(estimate: Estimate | None, column: Column) -> str:
    """A score as text, with its standard deviation where there is one."""
    if estimate is None:
        return ""
    text = f"{estimate.mean:.{column.digits}f}"
    return text if estimate.std is None else f"{text} ±{estimate.std:.{column.digits}f}"


_STYLES = {1: "bold", 2: "underline", None: ""}
_PLAIN_WIDTH = 400
"""Columns of text where no terminal says how many there are: nothing is cut off in a file."""


def print_grids(grids: Sequence[Grid]) -> None:
    """Tables on stdout: best in bold, second underlined. On a terminal that is too narrow for one,
    its columns stand in several tables, each with the names of the rows."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    for grid in grids:
        print_line(grid.title)
        for part in _parts(grid, console):
            console.print(_rich_table(part))
        for note in grid.footnotes:
            console.print(Text(note), soft_wrap=not console.is_terminal)
        print()


def _parts(grid: Grid, console: Console) -> Iterator[Grid]:
    """The grid's columns, as many at a time as fit beside the first."""
    shown: list[int] = []
    for column in range(1, len(grid.header)):
        table = _rich_table(_with_columns(grid, [0, *shown, column]))
        options = console.options.update(max_width=_PLAIN_WIDTH)
        if shown and Measurement.get(console, options, table).maximum > console.width:
            yield _with_columns(grid, [0, *shown])
            shown = []
        shown.append(column)
    yield _with_columns(grid, [0, *shown])


def _with_columns(grid: Grid, columns: Sequence[int]) -> Grid:
    return replace(
        grid,
        header=tuple(grid.header[c] for c in columns),
        sections=tuple(
            tuple(tuple(row[c] for c in columns) for row in rows) for rows in grid.sections
        ),
    )


def _rich_table(grid: Grid) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for index, title in enumerate(grid.header):
        # Long names are folded; figures never are.
        kind = {"justify": "right", "no_wrap": True} if index else {"overflow": "fold"}
        table.add_column(Text(title), **kind)
    for section in grid.sections:
        for row in section:
            table.add_row(*(Text(c.text, _STYLES[c.rank]) for c in row))
        table.add_section()
    return table


_MARKS = {1: "**", 2: "_", None: ""}


def to_markdown(grids: Sequence[Grid]) -> str:
    """The tables as Markdown: best in bold, second in italics."""
    parts = []
    for grid in grids:
        lines = [
            _markdown_row(grid.header),
            _markdown_row(["---", *["---:"] * (len(grid.header) - 1)]),
        ]
        for section in grid.sections:
            for row in section:
                lines.append(_markdown_row([_MARKS[c.rank] + c.text + _MARKS[c.rank] for c in row]))
        notes = [f"- {note}" for note in grid.footnotes]
        parts.append("\n".join([f"**{grid.title}**", "", *lines, "", *notes]).rstrip())
    return "\n\n".join(parts) + "\n"


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def print_known_sets(*, as_json: bool) -> None:
    """The usual sets: where to get them and on what terms."""
    sets = load_known_sets()
    if as_json:
        keys = ("name", "title", "pictures", "url", "terms")
        facts = [{key: getattr(known, key) for key in keys} for known in sets]
        print(json.dumps(facts, indent=2))
        return
    for known in sets:
        print(f"{known.name}: {known.title}")
        print(f"  from   {known.url}\n  terms  {known.terms}")

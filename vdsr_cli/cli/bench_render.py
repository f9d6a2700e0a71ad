"""What ``vdsr bench`` shows: progress on stderr, tables on stdout."""

import math
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vdsr_cli.services.bench_report import Column, DatasetFacts, Estimate, PictureScore, Report, Row


class BenchProgress:
    """A bar over the scores of a dataset; silent when quiet or off a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._progress.stop()

    def start(self, dataset: str, steps: int) -> None:
        """A dataset of so many scores begins."""
        self._progress.reset(self._task, total=steps, description=dataset)

    def score(self, score: PictureScore) -> None:
        """One more is known."""
        self._progress.advance(self._task)


def print_table(report: Report) -> None:
    """One table a dataset on stdout: best in bold, second underlined."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    for facts in report.datasets:
        console.print(_table(report, facts))


def caption(facts: DatasetFacts) -> str:
    """What the figures stand on."""
    verified = {
        True: f"bicubic verified ({facts.known_as})",
        False: f"bicubic NOT as known ({facts.known_as})",
        None: "bicubic not verified: the set is not known",
    }
    return f"{facts.pictures} pictures; {verified[facts.verified]}"


def _table(report: Report, facts: DatasetFacts) -> Table:
    rows, columns = report.rows(facts.name), report.columns()
    table = Table(
        title=f"{facts.name} x{report.scale}, protocol {report.protocol}", caption=caption(facts)
    )
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    ranks = {column.key: rank(rows, column) for column in columns}
    for index, row in enumerate(rows):
        name = row.label if row.pictures == facts.pictures else f"{row.label} ({row.pictures})"
        cells = [
            Text(cell(row.scores.get(column.key), column), _STYLES[ranks[column.key][index]])
            for column in columns
        ]
        table.add_row(Text(name), *cells)
    return table


_PLAIN_WIDTH = 240
"""Columns of text where no terminal says how many there are: nothing is cut off in a file."""
_STYLES = {1: "bold", 2: "underline", None: ""}


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

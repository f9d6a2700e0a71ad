"""The console while pictures are made: progress on stderr, and nothing off a terminal.

Results go to stdout also while progress is shown: see :func:`make_progress`.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

from vdsr_cli.paths import printable


def print_note(message: str) -> None:
    """One line on stderr."""
    print(f"vdsr: {one_line(message)}", file=sys.stderr)


def print_error(message: str, hint: str | None = None) -> None:
    """One line on stderr, and the hint as a second."""
    print_note(message)
    if hint:
        print(f"  hint: {one_line(hint)}", file=sys.stderr)


def print_choice(input: str, model: str | None, reason: str | None) -> None:
    """One line on stderr on the model that was chosen for a picture, where one was."""
    if model is not None and reason is not None:
        print_note(f"{input}: {model}, because of {reason}")


def print_line(text: object, *, file: TextIO | None = None) -> None:
    """One line on stdout, or where else results go, whatever is in the names of files."""
    print(printable(str(text)), file=file or sys.stdout)


def print_figures(figures: Mapping[str, Any]) -> None:
    """Scores as JSON on stdout, their numbers as ``vdsr bench --json`` writes them."""

    def told(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: told(inner) for name, inner in value.items()}
        return json_number(value) if isinstance(value, float) else value

    from vdsr_cli.bench.report import json_number

    print(json.dumps(told(figures), indent=2, allow_nan=False))


def one_line(text: str) -> str:
    """File names may hold line breaks and bytes that are no text; a message does not."""
    return printable(text.encode("utf-8", "backslashreplace").decode())


def make_progress(*columns: ProgressColumn, quiet: bool, transient: bool = True) -> Progress:
    """Bars on stderr: disabled when quiet and off a terminal, whatever FORCE_COLOR says.

    Left to itself, Rich would have what is printed to stdout meanwhile go to stderr too.
    """
    console = Console(stderr=True)
    is_seen = console.is_interactive and sys.stderr.isatty()
    return Progress(
        *columns,
        console=console,
        disable=quiet or not is_seen,
        transient=transient,
        redirect_stdout=False,
    )


def counting_progress(unit: str, *, quiet: bool) -> Progress:
    """A bar a task, with its name, how many are done of how many, and the time left."""
    return make_progress(
        name_column(),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeLeft(),
        quiet=quiet,
    )


class TimeLeft(TimeRemainingColumn):
    """How long the rest of a task takes, never what was true of the one before it."""

    max_refresh = 0.0

    def render(self, task: Task) -> Text:
        """As ``0:01:30 left``."""
        return super().render(task).append(" left")


def name_column() -> TextColumn:
    """The description of a task in so many columns that the rest of its line fits into 80."""
    narrow = Column(max_width=28, no_wrap=True, overflow="ellipsis")
    return TextColumn("{task.description}", markup=False, table_column=narrow)


@dataclass(slots=True)
class TileProgress:
    """A bar over the tiles of one picture, below one over the pictures when there are several.

    Attributes:
        ended: how many pictures are done, failed and skipped.
    """

    progress: Progress
    pictures: TaskID
    tiles: TaskID
    ended: Counter[str] = field(default_factory=Counter)

    def expect(self, totals: Iterable[int]) -> None:
        """Takes the number of pictures from what counts them, while they are worked on."""
        if self.progress.disable:
            return

        def count() -> None:
            for total in totals:
                self.progress.update(self.pictures, total=total)

        Thread(target=count, daemon=True).start()

    def start(self, name: str, tiles: int) -> None:
        """A picture of so many tiles begins."""
        self.progress.reset(self.tiles, total=tiles, description=one_line(name), visible=True)

    def advance(self, tiles: int) -> None:
        """So many tiles are done."""
        self.progress.advance(self.tiles, tiles)

    def finish(self, status: str, name: str | None = None) -> None:
        """A picture has become done, failed or skipped; its name is shown where one is given."""
        self.ended[status] += 1
        told = None if name is None else one_line(name)
        self.progress.update(self.pictures, advance=1, description=told)

    def summary(self, unknown: int) -> str:
        """The tally of all, as in ``148 done, 2 failed, 3 skipped (unknown format)``."""
        parts = [f"{self.ended['done']} done"]
        parts += [f"{self.ended['failed']} failed"] if self.ended["failed"] else []
        parts += [f"{self.ended['skipped']} skipped (exist)"] if self.ended["skipped"] else []
        parts += [f"{unknown} skipped (unknown format)"] if unknown else []
        return ", ".join(parts)

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Takes the bars away while results are printed to what may be the same terminal."""
        if self.progress.disable or not sys.stdout.isatty():
            yield
            return
        # Rich's next start goes up by as many lines as its last stop has left: by none.
        shown = [task.id for task in self.progress.tasks if task.visible]
        self._show(shown, False)
        self.progress.stop()
        yield
        self._show(shown, True)
        self.progress.start()

    def _show(self, tasks: Iterable[TaskID], is_visible: bool) -> None:
        for task in tasks:
            self.progress.update(task, visible=is_visible)


@contextmanager
def tile_progress(
    pictures: int | None, *, quiet: bool, unit: str = "tiles"
) -> Iterator[TileProgress]:
    """Progress for a run over ``pictures`` pictures, None for no one knows how many.

    Silent when quiet or off a terminal; ``unit`` is what each of them is counted in.
    """
    with counting_progress("{task.fields[unit]}", quiet=quiet) as progress:
        overall = progress.add_task(
            "pictures", total=pictures, visible=pictures != 1, unit="pictures"
        )
        tiles = progress.add_task("", total=None, visible=False, unit=unit)
        yield TileProgress(progress, overall, tiles)


@contextmanager
def download_progress(
    title: str, *, quiet: bool
) -> Iterator[Callable[[int, int | None], None] | None]:
    """Shows bytes arriving, on stderr, where that is a terminal and once there are any."""
    bar = make_progress(
        name_column(),
        BarColumn(bar_width=12),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeLeft(),
        quiet=quiet,
    )
    if bar.disable:
        yield None
        return
    with bar:
        title = title.partition("#")[0].rpartition("/")[2]
        task = bar.add_task(one_line(title), total=None, visible=False)

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield progress


def bring(*models: str | None, quiet: bool) -> None:
    """Downloads models that are elsewhere, so that what loads them finds them on this disk; only
    where that can be watched.

    Raises:
        WeightsError: it cannot be had, or is not what it should be.
    """
    from vdsr_cli.weights import load_records, locate, resolve
    from vdsr_cli.weights.sources import is_address

    records = load_records()
    for model in filter(None, models):
        record = records.get(model)
        is_elsewhere = locate(record) is None if record else is_address(model)
        if is_elsewhere:
            with download_progress(model, quiet=quiet) as progress:
                if progress is not None:
                    resolve(model, progress=progress)

"""What a person sees while pictures are made: progress on stderr, and nothing off a terminal.

Results go to stdout also while progress is shown: see :func:`make_progress`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from vdsr_cli.errors import VdsrError
from vdsr_cli.paths import printable


def print_note(message: str) -> None:
    """One line on stderr."""
    print(f"vdsr: {_one_line(message)}", file=sys.stderr)


def print_error(message: str, hint: str | None = None) -> None:
    """One line on stderr, and the hint as a second."""
    print_note(message)
    if hint:
        print(f"  hint: {_one_line(hint)}", file=sys.stderr)


def print_vdsr_error(error: VdsrError) -> None:
    """An error of the tree, as the boundary shows it."""
    print_error(str(error), error.hint)


def print_choice(input: str, model: str | None, reason: str | None) -> None:
    """One line on stderr on the model that was chosen for a picture, where one was."""
    if model is not None and reason is not None:
        print_note(f"{input}: {model}, because of {reason}")


def print_line(text: object, *, file: TextIO | None = None) -> None:
    """One line on stdout, or where else results go, whatever is in the names of files."""
    print(printable(str(text)), file=file or sys.stdout)


def _one_line(text: str) -> str:
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


@dataclass(slots=True)
class TileProgress:
    """A bar over the tiles of one picture, above one over the pictures when there are several."""

    progress: Progress
    pictures: TaskID
    tiles: TaskID

    def start(self, name: str, tiles: int) -> None:
        """A picture of so many tiles begins."""
        self.progress.reset(self.tiles, total=tiles, description=_one_line(name), visible=True)

    def advance(self, tiles: int) -> None:
        """So many tiles are done."""
        self.progress.advance(self.tiles, tiles)

    def finish(self) -> None:
        """The picture is done."""
        self.progress.advance(self.pictures)

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Takes the bars away while results are printed to what may be the same terminal."""
        is_between = not self.progress.disable and sys.stdout.isatty()
        if is_between:
            self.progress.stop()
        yield
        if is_between:
            self.progress.start()


@contextmanager
def tile_progress(
    pictures: int | None, *, quiet: bool, unit: str = "tiles"
) -> Iterator[TileProgress]:
    """Progress for a run over ``pictures`` pictures, None for no one knows how many.

    Silent when quiet or off a terminal; ``unit`` is what each of them is counted in.
    """
    progress = make_progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
        quiet=quiet,
    )
    with progress:
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
    name = TextColumn("{task.description}", markup=False)
    bar = make_progress(name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), quiet=quiet)
    if bar.disable:
        yield None
        return
    with bar:
        title = title.partition("#")[0].rpartition("/")[2]
        task = bar.add_task(_one_line(title), total=None, visible=False)

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield progress

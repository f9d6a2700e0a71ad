"""The console of a training run: one bar on a terminal, a line a row elsewhere."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from vdsr_cli.cli.console import make_progress, one_line, print_line, print_note
from vdsr_cli.cli.options import INTERRUPTED

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, float]

_STOPPING: Final[Mapping[int, int]] = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: 128 + signal.SIGTERM,
}
"""The signals that a run is saved at -> their exit codes."""


def describe(row: Row) -> str:
    """The figures of a row of the log, briefly."""
    if "loss" not in row:
        return "validation: " + ", ".join(_validation_parts(row))
    distortion, rate = (row.get(name, 0.0) for name in ("distortion_bits", "rate_bits"))
    parts = []
    if distortion + rate:
        parts.append(f"-ELBO {distortion + rate:.3f} = {distortion:.3f} + {rate:.3f} bits/dim")
    if row["mean_l1"]:
        parts.append(f"L1 {row['mean_l1']:.4f}")
    if "sample_l1" in row:
        parts.append(f"samples: L1 {row['sample_l1']:.4f}, LPIPS {row['perceptual']:.4f}")
    if "discriminator" in row:
        parts.append(f"G {row['generator']:.3f}, D {row['discriminator']:.3f}")
    if row["skipped"]:
        parts.append(f"{row['skipped']:.0f} skipped")
    return ", ".join([*parts, f"{row['seconds_per_step']:.3g} s/step"])


def _validation_parts(row: Row) -> Iterator[str]:
    names = {"val_psnr_y": "PSNR-Y {:.2f} dB", "val_lpips": "LPIPS {:.4f}"}
    for suffix, where in (("", ""), ("_sample", " at 0.8")):
        yield from (
            f.format(row[k + suffix]) + where for k, f in names.items() if k + suffix in row
        )
    if "val_bits" in row:
        yield f"{row['val_bits']:.3f} bits/dim"


def brief(row: Row) -> str:
    """The same in the half of a line that a bar leaves."""
    elbo = row.get("distortion_bits", 0.0) + row.get("rate_bits", 0.0)
    parts = [f"PSNR-Y {row['val_psnr_y']:.2f} dB"] if "val_psnr_y" in row else []
    if "perceptual" in row:
        parts.append(f"LPIPS {row['perceptual']:.4f}")
    elif elbo:
        parts.append(f"-ELBO {elbo:.3f}")
    elif row.get("mean_l1"):
        parts.append(f"L1 {row['mean_l1']:.4f}")
    return ", ".join([*parts, f"{row['seconds_per_step']:.3g} s/step"])


def _hours(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


@dataclass(slots=True)
class TrainingProgress:
    """Shows a run: a bar at each step on a terminal, a line a row elsewhere.

    Attributes:
        deadline: time of the monotonic clock at which the leg ends, or None.
    """

    steps: int
    deadline: float | None
    describe: Callable[[Row], str]
    bar: Progress
    is_told: bool
    task: TaskID
    exit_code: Callable[[], int] = lambda: 0
    step: int = 0
    _began: tuple[int, float] | None = None
    _row: Row = field(default_factory=dict)

    def on_read(self, done: int, pictures: int) -> None:
        """So many of so many pictures are decoded. A signal ends a run of one process here, where
        there is nothing to save yet; several leave it together, later."""
        if (code := self.exit_code()) and os.environ.get("WORLD_SIZE", "1") == "1":
            raise typer.Exit(code)
        told = "reading pictures" if done < pictures else "preparing"
        self.bar.update(self.task, completed=done, total=pictures, description=told)

    def on_left_out(self, reason: str) -> None:
        """Pictures are not trained on, for a reason: told also where progress is not."""
        self._print(f"vdsr: left out: {one_line(reason)}")

    def _print(self, line: str) -> None:
        """Prints a line on stderr, above the bar if there is one."""
        if self.bar.disable:
            typer.echo(line, err=True)
        else:
            self.bar.console.print(line, highlight=False, markup=False)

    def on_step(self, step: int, figures: "Mapping[str, Tensor]") -> None:
        """A leg begins at this step, or the step is done. Before the first row of the log, its
        own figures are shown."""
        self.step, now = step, time.monotonic()
        if self.bar.disable:
            self._began = self._began or (step, now)
            return
        if self._began is None:
            self._began = step, now
            self.bar.update(
                self.task, completed=step, description="the first step", total=self.steps
            )
            return
        since, started = self._began
        pace = (now - started) / (step - since)
        left = (self.steps - step) * pace
        if self.deadline is not None:
            left = min(left, self.deadline - now)
        own = {} if "loss" in self._row else {key: float(value) for key, value in figures.items()}
        told = brief({**own, **self._row, "seconds_per_step": pace})
        self.bar.update(self.task, completed=step, description=told, left=f"{_hours(left)} left")

    def is_stopped(self) -> bool:
        """Whether a signal came."""
        return self.exit_code() > 0

    @property
    def has_begun(self) -> bool:
        """Whether this process, the first of those of the run, has come to the steps."""
        return self._began is not None

    def on_log(self, row: Row) -> None:
        """A row of the log is there: losses, or scores of the validation."""
        self._row |= row
        if self.is_told if self.bar.disable else "loss" not in row:
            self._print(f"step {row['step']:.0f} {self.describe(row)}")


@contextmanager
def training_progress(
    steps: int,
    *,
    quiet: bool,
    minutes: float | None = None,
    describe: Callable[[Row], str] = describe,
) -> Iterator[TrainingProgress]:
    """Yields what to call with each step and each row of the log; everything goes to stderr."""
    rest = Column(no_wrap=True, overflow="ellipsis")
    bar = make_progress(
        MofNCompleteColumn(),
        BarColumn(bar_width=8),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}", markup=False, table_column=rest),
        quiet=quiet,
        transient=False,
    )
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    with bar:
        task = bar.add_task("reading pictures", total=None, left="")
        yield TrainingProgress(steps, deadline, describe, bar, not quiet, task)


@contextmanager
def training_run(
    out: Path,
    steps: int,
    *,
    quiet: bool,
    minutes: float | None = None,
    describe: Callable[[Row], str] = describe,
) -> Iterator[TrainingProgress]:
    """Yields the progress of a run that a signal ends after its step; then tells what there is now,
    and prints its folder."""
    with (
        _stop_on_signals() as exit_code,
        training_progress(steps, quiet=quiet, minutes=minutes, describe=describe) as progress,
    ):
        progress.exit_code = exit_code
        yield progress
    if not quiet:
        _tell_end(out, progress)
    if code := exit_code():
        raise typer.Exit(code)
    print_line(out)


def _tell_end(out: Path, progress: TrainingProgress) -> None:
    """Tells on stderr what there is now, how to resume, and how to make a model of it."""
    if not progress.has_begun:
        return
    print_note(f"{out} is at step {progress.step} of {progress.steps}")
    rest = "with more --steps" if progress.step >= progress.steps else "again"
    print_note(f"the same command {rest} resumes from there")
    print_note(f"vdsr train export {shlex.quote(str(out))} -o FILE.safetensors makes a model")


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], int]]:
    """Yields the exit code of the Ctrl-C or SIGTERM that came, 0 of none: the step is finished and
    saved first.

    A second Ctrl-C ends the process at once; the last checkpoint stays. Signals that the process is
    to ignore stay ignored.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)
        print("vdsr: saving, then stopping", file=sys.stderr)

    heard = [n for n in _STOPPING if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield lambda: _STOPPING[came[0]] if came else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

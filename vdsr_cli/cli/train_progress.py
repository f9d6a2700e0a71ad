"""What a person sees of a training run: one bar on a terminal, a line a row elsewhere."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from vdsr_cli.cli.console import make_progress

Row = dict[str, float]


def describe(row: Row) -> str:
    """The figures of a row of the log, briefly."""
    if "loss" not in row:
        return "validation: " + ", ".join(_validation_parts(row))
    elbo = row["distortion_bits"] + row["rate_bits"]
    parts = []
    if elbo:
        split = f"{row['distortion_bits']:.3f} + {row['rate_bits']:.3f}"
        parts.append(f"-ELBO {elbo:.3f} = {split} bits/dim")
    if row["mean_l1"]:
        parts.append(f"L1 {row['mean_l1']:.4f}")
    if "discriminator" in row:
        parts.append(f"samples: L1 {row['sample_l1']:.4f}, LPIPS {row['perceptual']:.4f}")
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


def time_left(row: Row, steps: int) -> str:
    """How long the rest takes at the row's pace, as h:mm:ss."""
    seconds = round((steps - row["step"]) * row["seconds_per_step"])
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


@contextmanager
def training_progress(
    steps: int, *, quiet: bool, describe: Callable[[Row], str] = describe
) -> Iterator[Callable[[Row], None]]:
    """Yields what to call with each row of the log; everything goes to stderr."""

    def print_row(row: Row) -> None:
        typer.echo(f"step {row['step']:.0f} {describe(row)}", err=True)

    progress = make_progress(
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}"),
        quiet=quiet,
        transient=False,
    )
    if progress.disable:
        yield (lambda row: None) if quiet else print_row
        return
    with progress:
        task = progress.add_task("reading pictures", total=steps, left="")

        def show(row: Row) -> None:
            if "loss" not in row:
                progress.console.print(f"step {row['step']:.0f} {describe(row)}", highlight=False)
                return
            left = time_left(row, steps)
            progress.update(task, completed=row["step"], description=describe(row), left=left)

        yield show


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C or SIGTERM came: the step is finished and saved first.

    A second Ctrl-C ends the process at once; the last checkpoint stays.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)
        print("vdsr: saving, then stopping", file=sys.stderr)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

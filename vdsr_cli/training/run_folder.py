"""The files of a run: its checkpoints and its log, which survive whatever ends the process.

    last.pt       the newest checkpoint, always whole
    previous.pt   the one before it
    mean.pt       the averaged weights where the mean path alone ends and the ELBO begins
    log.jsonl     one JSON object a line: figures of the training, of the validation
    run.lock      while a process trains here

A checkpoint is written beside its place, brought to the disk and then renamed. Killed at any
moment, the folder holds the old one or the new one.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch

from vdsr_cli.errors import OutputError
from vdsr_cli.files import (
    atomic_path,
    foreign_error,
    hold,
    is_special,
    open_ordinary,
    remove_leftovers,
    write_text_atomic,
)
from vdsr_cli.weights.runs import LAST, PREVIOUS, find_checkpoint

MEAN, LOG = "mean.pt", "log.jsonl"
CURVES = "curves.png"
_LOCK = "run.lock"


def run_files(folder: Path) -> list[Path]:
    """The files that a training writes into its folder."""
    return [folder / name for name in (LAST, PREVIOUS, MEAN, LOG, CURVES)]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds a run folder, made where there is none, against other trainings.

    Raises:
        OutputError: another process trains in it, files of others have the names of a run's, or it
            cannot be written.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(folder)
        held = _open_alone(folder / _LOCK)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}") from error
    if held is None:
        raise OutputError(
            f"{folder}: another training is at work in it",
            hint="wait for that one, or give --out another folder",
        )
    with held:
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / _LOCK).unlink()
                if is_new:  # and nothing came of it
                    folder.rmdir()


def _refuse_foreign(folder: Path) -> None:
    """Raises OutputError where a run would replace what none has made: pipes and devices, and in a
    folder without a checkpoint, or the lock of a killed run, whatever lies beside a log that is
    not a run's, or none."""
    for path in run_files(folder):
        if is_special(path):
            raise foreign_error(path)
    has_begun = (folder / _LOCK).exists() or _is_begun(folder / LOG)
    is_run = find_checkpoint(folder) is not None or has_begun
    for path in [] if is_run else run_files(folder):
        if path.exists() and path.stat().st_size:
            raise foreign_error(path)


def _is_begun(log: Path) -> bool:
    """Whether a log starts as that of a run that was killed before its first checkpoint."""
    row = _row_of(_read_text(log).partition("\n")[0])
    return row is not None and any(
        key == "seconds_per_step" or key.startswith("val_") for key in row
    )


def _open_alone(path: Path) -> IO[bytes] | None:
    """The file, made where there is none and locked; None where another process has it.

    Raises:
        OSError: the disk fails.
        OutputError: it is a link, no file, or has content, and so is none of ours.
    """
    while True:
        file = open(path, "ab", opener=open_ordinary)  # noqa: SIM115 - it is held open
        if os.fstat(file.fileno()).st_size:
            file.close()
            raise foreign_error(path)
        # Who had it may have removed it between the opening and the locking.
        held = hold(file, path)
        if held is not False:
            return file if held else None


def write_checkpoint(
    folder: Path, state: dict[str, Any], *, name: str = LAST, keep_previous: bool = False
) -> None:
    """Writes ``last.pt``, or another, whole or not at all; the old one can stay as ``previous.pt``.

    Raises:
        OutputError: the disk is full, or the folder is gone; the old checkpoint is as it was.
    """
    path = folder / name
    try:
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(state, file)
            if keep_previous and path.exists():
                _replace_by_copy(folder / PREVIOUS, path)
    except (OSError, RuntimeError) as error:
        # torch.save reports a failed write as a RuntimeError whose cause is the system's.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
        kept = "the last checkpoint is intact; " if path.exists() else ""
        raise OutputError(
            f"cannot write {path}: {reason}",
            hint=f"{kept}make room and run the same command again",
        ) from error


def _replace_by_copy(target: Path, source: Path) -> None:
    """Makes ``target`` a second name of ``source``, or its copy where there are no hard links."""
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)


def prepare_folder(folder: Path, step: int) -> None:
    """Makes the folder ready for a run that resumes from ``step``.

    Log rows of steps that were lost with the process are taken out, as they will come again, and
    so are lines that are no rows and the unfinished files of a killed process.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in run_files(folder):
            remove_leftovers(path)
        text = _read_text(folder / LOG)
        lines = [
            line for line in text.splitlines() if (row := _row_of(line)) and row["step"] <= step
        ]
        kept = "".join(f"{line}\n" for line in lines)
        if kept != text:
            write_text_atomic(folder / LOG, kept)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}") from error


def append_log(folder: Path, row: dict[str, float]) -> None:
    """Adds a row to the log; raises OutputError."""
    try:
        with (folder / LOG).open("a") as log:
            log.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OutputError(
            f"cannot write {folder / LOG}: {error.strerror}",
            hint="the last checkpoint is intact" if find_checkpoint(folder) else None,
        ) from error


def read_log(folder: Path) -> list[dict[str, float]]:
    """The rows of the log; what is no row, such as a line cut short by a kill, is left out."""
    lines = _read_text(folder / LOG).splitlines()
    return [row for line in lines if (row := _row_of(line)) is not None]


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _row_of(line: str) -> dict[str, float] | None:
    """The row that a line is, or None: numbers by name, that of the step among them."""
    try:
        row = json.loads(line)
        is_row = (
            isinstance(row, dict)
            and math.isfinite(row["step"])
            and all(map(_is_figure, row.values()))
        )
    except (ValueError, RecursionError, LookupError, TypeError, OverflowError):
        return None
    return row if is_row else None


def _is_figure(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63)

"""The rule for outputs of every command: nothing is replaced unasked, and no input ever.

A command looks before it works, by what is here; that nothing appears meanwhile is seen to where
files get their names, by :func:`vdsr_cli.files.publish`.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from enum import StrEnum
from pathlib import Path

from vdsr_cli.errors import OutputError, OutputExistsError, UsageError
from vdsr_cli.files import exists_error, is_special


class Existing(StrEnum):
    """The rule for an output that is there already: the run is refused, or it is kept as the
    result, or replaced."""

    refuse = "refuse"
    skip = "skip"
    overwrite = "overwrite"

    @property
    def is_replaced(self) -> bool:
        """Whether it may be replaced."""
        return self is Existing.overwrite

    def kept(self) -> AbstractContextManager[None]:
        """Ends the writing of an output that turns out to be there quietly, where it is skipped."""
        return suppress(OutputExistsError) if self is Existing.skip else nullcontext()


def check_outputs(
    outputs: Iterable[Path | None], existing: Existing, *, inputs: Iterable[Path] = ()
) -> None:
    """Refuses, before any work is done, outputs that may not be written.

    Args:
        outputs: of a run; None is none.

    Raises:
        UsageError: an output is an input, given twice, or ``-``, where nothing goes to standard
            output.
        OutputExistsError: one is there, and that is to be refused.
        OutputError: a name is too long.
    """
    paths = [path for path in outputs if path is not None]
    if Path("-") in paths:
        raise UsageError("- is no name of a file, and this one does not go to standard output")
    refuse_inputs(paths, inputs)
    files = [os.path.realpath(path) for path in paths if not is_special(path)]
    if len(set(files)) < len(files):
        raise UsageError("two outputs of this run have the same name")
    refuse_taken(paths, existing)
    for path in paths:
        refuse_too_long(path)


def is_taken(path: Path | str) -> bool:
    """Whether there is a file of an output's name; a pipe or a device is not replaced but fed."""
    # os.path answers no, where Path raises, for what may not be looked at: writing will tell.
    return os.path.exists(path) and not is_special(Path(path))


def refuse_taken(outputs: Iterable[Path], existing: Existing) -> None:
    """Raises OutputExistsError for the first output that is there, where that is to be refused."""
    if existing is Existing.refuse:
        for path in outputs:
            if is_taken(path):
                raise exists_error(path)


def refuse_too_long(path: Path) -> None:
    """Raises OutputError for a name that is longer than the disk takes."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise OutputError(f"{path}: cannot be written: its name is too long") from error


def refuse_inputs(outputs: Iterable[Path | None], inputs: Iterable[Path]) -> None:
    """Refuses an output that is one of the inputs, whatever it is called: by a link, through the
    link of a folder, as another name of the same file. None is standard output.

    Raises:
        UsageError: there is one.
    """
    read = {mark for path in inputs for mark in _marks(path)}
    for output in outputs:
        if output is not None and not is_special(output) and not read.isdisjoint(_marks(output)):
            raise input_error(output)


def input_error(output: Path) -> UsageError:
    """The error for an output that is an input."""
    return UsageError(
        f"{output} is an input of this run and would be replaced",
        hint="give -o another name or folder",
    )


def _marks(path: Path) -> list[object]:
    """The marks that two paths share where they are the same file, or would be if they existed."""
    marks: list[object] = [os.path.realpath(path)]
    try:
        found = os.stat(path)
    except OSError:
        return marks
    return [*marks, (found.st_dev, found.st_ino)] if stat.S_ISREG(found.st_mode) else marks

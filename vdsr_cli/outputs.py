"""The rule for outputs of every command: nothing is replaced unasked, and no input ever.

A command looks before it works, by what is here; that nothing appears meanwhile is seen to where
files get their names, by :func:`vdsr_cli.files.publish`.
"""

import os
import stat
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from vdsr_cli.errors import UsageError
from vdsr_cli.files import exists_error, is_special


class Existing(StrEnum):
    """What becomes of an output that is there already: the run is refused, or it is kept as the
    result, or replaced."""

    refuse = "refuse"
    skip = "skip"
    overwrite = "overwrite"


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
    """What is said of an output that is an input."""
    return UsageError(
        f"{output} is an input of this run and would be replaced",
        hint="give -o another name or folder",
    )


def _marks(path: Path) -> list[object]:
    """What two paths have in common where they are the same file, or would be if they existed."""
    marks: list[object] = [os.path.realpath(path)]
    try:
        found = os.stat(path)
    except OSError:
        return marks
    return [*marks, (found.st_dev, found.st_ino)] if stat.S_ISREG(found.st_mode) else marks

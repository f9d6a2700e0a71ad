"""The exception tree. Every error that a user can cause or cure is one of these.

VdsrError                  exit code 1
├── UnexpectedError        1   vdsr itself failed on one picture; the others go on
├── UsageError             2   the command line asks for something impossible
├── InputError             3   an input picture cannot be read or used
├── WeightsError           4   weights are missing, damaged, hostile or of another model
├── DeviceError            5   the device or its memory cannot do what was asked
└── OutputError            6   a result cannot be written
    └── OutputExistsError      ... since another file has its name and keeps it

The command line turns each into one line on stderr, ``hint`` behind it, and the exit code.
Ctrl-C ends with 130.
"""

import copyreg
import traceback
from typing import Any, ClassVar


class VdsrError(Exception):
    """Base of the tree.

    Args:
        message: one line that says what is wrong, naming the file or option.
        hint: one line that says what to try, or None.
    """

    exit_code: ClassVar[int] = 1
    details: str | None = None
    """The traceback of what nobody expected."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UnexpectedError(VdsrError):
    """An error of vdsr itself ended the work on one picture.

    Args:
        name: what messages call the picture.
        cause: the error, whose traceback ``details`` is.
    """

    def __init__(self, name: str, cause: Exception) -> None:
        what = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
        super().__init__(
            f"{name}: an error of vdsr itself: {what}",
            hint="please report it, with the picture; --debug shows where it happened",
        )
        self.details = "".join(traceback.format_exception(cause))

    def __reduce__(self) -> tuple[Any, ...]:
        """As a worker process hands it on, which has no cause to give."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class UsageError(VdsrError):
    """The command line asks for something impossible."""

    exit_code = 2


class InputError(VdsrError):
    """An input picture cannot be read or used."""

    exit_code = 3


class WeightsError(VdsrError):
    """Weights are missing, damaged, hostile or of another model."""

    exit_code = 4


class DeviceError(VdsrError):
    """The device or its memory cannot do what was asked."""

    exit_code = 5


class OutputError(VdsrError):
    """A result cannot be written."""

    exit_code = 6


class OutputExistsError(OutputError):
    """Another file has the name of a result, and is not to be replaced."""

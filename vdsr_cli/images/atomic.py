"""Files that appear whole or not at all, with one line when they cannot."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from vdsr_cli.errors import OutputError
from vdsr_cli.files import is_special, new_file

_REASONS: Final = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too big for the disk",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the disk is read-only",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EEXIST: "a part of its path is a file, not a folder",
    errno.ENAMETOOLONG: "its name is too long",
    errno.EPIPE: "the reader has closed the pipe",
}


@contextmanager
def atomic_write(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only once it is complete.

    What the body writes goes to a file beside the target, is synced and then renamed. If
    anything fails, Ctrl-C included, that file is removed and an existing target is left as it
    was; what a killed process has left, the next one removes. Missing folders are made; links are
    followed; the mode is that of the file replaced, or follows the umask. A target that is no
    ordinary file, such as a pipe or ``/dev/null``, is written to directly.

    Args:
        replace: whether it takes the place of a file that has its name by then.

    Raises:
        OutputError: an ``OSError`` while making, writing or renaming; the body's own count too;
            another process is writing the same file; it may not be replaced.
    """
    with writing_to(str(path)):
        if is_special(path):
            with path.open("wb") as stream:
                yield stream
        else:
            with new_file(path, replace=replace) as stream:
                yield stream


@contextmanager
def writing_to(name: str, *, hint: str | None = None) -> Iterator[None]:
    """Turn an ``OSError`` of the body into one line about the output called ``name``.

    Raises:
        OutputError: in place of the body's ``OSError``.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise OutputError(f"{name}: cannot be written: {reason}", hint=hint) from error

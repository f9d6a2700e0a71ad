"""Files that appear whole or not at all, with one line when they cannot."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from vdsr_cli.errors import OutputError
from vdsr_cli.files import is_special
from vdsr_cli.images.draft import open_draft

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
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only once it is complete.

    What the body writes goes to a file beside the target, is synced and then renamed. If
    anything fails, Ctrl-C included, that file is removed and an existing target is left as it
    was; what a killed process has left, the next one takes over. Missing folders are made; links
    are followed; the mode follows the umask. A target that is no ordinary file, such as a pipe or
    ``/dev/null``, is written to directly.

    Raises:
        OutputError: an ``OSError`` while making, writing or renaming; the body's own count too;
            another process is writing the same file.
    """
    with writing_to(str(path)):
        if is_special(path):
            with path.open("wb") as stream:
                yield stream
        else:
            with open_draft(path, identity=lambda: "") as draft:
                yield draft.file
                draft.finish()


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

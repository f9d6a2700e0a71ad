"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import pickle
import secrets
import shutil
import stat
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

if sys.platform != "win32":
    import fcntl

PICKLE_ERRORS: Final = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What torch.load raises on damaged files, next to OSError."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a new, empty file beside ``path``; when the block succeeds, it takes ``path``'s place.

    The bytes are on the disk before the name changes, so a crash leaves the old file or the new
    one. When the block fails, Ctrl-C included, the new file is removed and ``path`` is as it was;
    what a killed process has left is removed by the next that writes ``path``. The yielded name
    keeps the suffix of ``path``, for writers that choose a format by it; where ``path`` is a link,
    the file that it points to is replaced; a pipe or a device gets the bytes. Raises OSError.
    """
    if is_special(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder, path.name)
            yield temporary
            with temporary.open("rb") as source, path.open("wb") as stream:
                shutil.copyfileobj(source, stream)
        return
    target = Path(os.path.realpath(path))
    remove_leftovers(target)
    held = _open_temporary(target)
    temporary, mode = Path(held.name), stat.S_IMODE(os.fstat(held.fileno()).st_mode)
    with contextlib.closing(held):
        try:
            yield temporary
            # Some writers put a file of their own in its place, private and unlocked.
            temporary.chmod(mode)
            with temporary.open("r+b") as written:
                lock(written)
                os.fsync(written.fileno())
                if sys.platform == "win32":
                    held.close()  # which both must be for a new name there
                    written.close()
                temporary.replace(target)
            sync_folder(target.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def is_special(path: Path) -> bool:
    """Whether a path is that of a pipe or a device, which is written to and never replaced."""
    # os.path answers no, where Path raises, for what may not be looked at.
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of ``path`` have left beside it, not what others are writing."""
    target = Path(os.path.realpath(path))
    for leftover in target.parent.glob(f"{_mark(target)}*"):
        with contextlib.suppress(OSError), leftover.open("r+b") as file:
            if sys.platform == "win32":
                file.close()  # what another process has open cannot be removed there
            elif not lock(file):
                continue
            leftover.unlink()


def lock(file: IO[bytes]) -> bool | None:
    """Lock a file until it is closed: whether that was done, False where another has it open and
    locked, None where the system or its disk offers no locks. Raises OSError."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            return None
        raise
    return True


def is_still(file: IO[bytes], path: Path) -> bool:
    """Whether ``path`` names an open file, which another process may have moved or removed."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def _open_temporary(target: Path) -> IO[bytes]:
    """A new file beside ``target``, empty and locked. Raises OSError."""
    while True:
        path = target.with_name(f"{_mark(target)}{secrets.token_hex(4)}{target.suffix}")
        file = path.open("xb")
        lock(file)
        # Before it was locked it may have been taken for a leftover.
        if is_still(file, path):
            return file
        file.close()


def _mark(target: Path) -> str:
    """How the temporary names of a file begin; short, as its own name may be the longest."""
    return f".vdsr-{zlib.crc32(os.fsencode(target.name)):08x}-"


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all. Raises OSError."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def sync_file(path: Path) -> None:
    """Have the bytes of ``path`` reach the disk. Raises OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have a change of names in ``folder`` reach the disk, where the system offers that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

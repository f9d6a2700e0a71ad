"""Files that appear whole or not at all."""

import contextlib
import os
import pickle
import secrets
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

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
    """Yield a new name beside ``path``; when the block succeeds, move what it wrote to ``path``.

    The bytes are on the disk before the name changes, so a crash leaves the old file or the new
    one. When the block fails, Ctrl-C included, the new file is removed and ``path`` is as it was.
    The yielded name keeps the suffix of ``path``, for writers that choose a format by it; where
    ``path`` is a link, the file that it points to is replaced. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{_mark(target)}{secrets.token_hex(4)}{target.suffix}")
    mode = _default_mode(temporary)
    try:
        yield temporary
        temporary.chmod(mode)
        sync_file(temporary)
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of ``path`` have left beside it.

    For one who holds the lock against other writers: theirs would go too. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    for leftover in target.parent.glob(f"{_mark(target)}*"):
        leftover.unlink(missing_ok=True)


def _mark(target: Path) -> str:
    """How the temporary names of a file begin; short, as its own name may be the longest."""
    return f".vdsr-{zlib.crc32(os.fsencode(target.name)):08x}-"


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all. Raises OSError."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync_file(path: Path) -> None:
    """Have the bytes of ``path`` reach the disk. Raises OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _default_mode(path: Path) -> int:
    """The permissions that a new file gets here; some writers make theirs private."""
    path.touch(exist_ok=False)
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def sync_folder(folder: Path) -> None:
    """Have a change of names in ``folder`` reach the disk, where the system offers that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

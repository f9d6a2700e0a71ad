"""Files that appear whole or not at all.

atomic_path   a new file of a name of its own, for writers that want a path
new_file      a new file, open, that one process has at a time; its folder is never listed
publish       gives either its name: in place of another file, or only where there is none
"""

import contextlib
import errno
import hashlib
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
from typing import IO, BinaryIO, Final

from vdsr_cli.errors import OutputError, OutputExistsError

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
"""Errors that torch.load raises on damaged files, next to OSError."""

_IS_NO_FILE: Final = (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO)
"""How the opening of a link, a folder or a socket fails."""
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h


@contextlib.contextmanager
def atomic_path(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a new, empty file beside ``path``; when the block succeeds, it takes ``path``'s place.

    Without ``replace`` it does so only where there is no file of that name by then. The bytes are
    on the disk before the name changes, so a crash leaves the old file or the new one. When the
    block fails, Ctrl-C included, the new file is removed and ``path`` is as it was; what a killed
    process has left is removed by the next that writes ``path``. The yielded name keeps the suffix
    of ``path``, for writers that choose a format by it; where ``path`` is a link, the file that it
    points to is replaced; a pipe or a device gets the bytes. Raises OSError, OutputExistsError.
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
    temporary = target.with_name(f"{_mark(target)}{secrets.token_hex(8)}{target.suffix}")
    try:
        with _open_new(temporary, target) as held:
            mode = stat.S_IMODE(os.fstat(held.fileno()).st_mode)
            yield temporary
            # Some writers put a file of their own in its place, private and unlocked.
            if not _has_several_names(temporary):
                temporary.chmod(mode)
            with temporary.open("r+b") as written:
                lock(written)
                os.fsync(written.fileno())
                if sys.platform == "win32":
                    held.close()  # which both must be for a new name there
                    written.close()
                publish(temporary, target, replace=replace)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def new_file(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """Yields a new file, open for writing; when the block succeeds, it takes ``path``'s place.

    As :func:`atomic_path`, but missing folders are made, and one process at a time may have it.

    Raises:
        OSError: the disk fails, or ``path`` is a folder.
        OutputError: another process is writing it, or it may not be replaced.
    """
    target = made_target(path)
    temporary = finished_name(target)
    with (
        removed_on_failure(temporary, target),
        _open_new(temporary, target) as file,
        closed_on_failure(file),
    ):
        yield file
        file.flush()
        os.fsync(file.fileno())
        if sys.platform == "win32":
            file.close()  # which must be for a new name there, and holds no lock
        publish(temporary, target, replace=replace)


@contextlib.contextmanager
def removed_on_failure(path: Path, target: Path) -> Iterator[None]:
    """Removes what the block has made at ``path`` to write ``target``, where it fails.

    The file is looked for by its name, and not before it is closed: a signal may come before the
    block has heard of it. One that another process has is left alone.
    """
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, OutputError):
            remove_leftover(path, target)
        raise


@contextlib.contextmanager
def closed_on_failure(file: BinaryIO) -> Iterator[None]:
    """Closes a file without a word where the block fails: a full disk has no room for what is held
    back either, but has said so already."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        raise


def made_target(path: Path) -> Path:
    """The file of an output's path, links followed, in a folder that exists. Raises OSError."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def finished_name(target: Path) -> Path:
    """The name of a complete output until it has its own; no other output's is the same."""
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:24]
    return target.with_name(f".vdsr-{name}")


def publish(file: Path, target: Path, *, replace: bool) -> None:
    """Gives a complete file its name, and the permissions of the file that it replaces.

    Raises:
        OSError: the disk fails.
        OutputExistsError: there is a file of that name and no ``replace``.
    """
    if replace:
        _take_mode(file, target)
        file.replace(target)
    else:
        try:
            _rename_to_new(file, target)
        except FileExistsError:
            raise exists_error(target, APPEARED) from None
    sync_folder(target.parent)


APPEARED: Final = "has appeared meanwhile and is kept; the result of this run is not"


def exists_error(target: Path | str, how: str = "exists already") -> OutputExistsError:
    """The error for an output that is there and may neither be replaced nor skipped."""
    return OutputExistsError(f"{target} {how}", hint="add --overwrite to replace it")


def _take_mode(file: Path, target: Path) -> None:
    # Where there is none, or a disk knows no permissions, it keeps its own.
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(target.stat().st_mode) & 0o777
        if mode != stat.S_IMODE(file.stat().st_mode) and not _has_several_names(file):
            file.chmod(mode)


def _has_several_names(file: Path) -> bool:
    """Whether it is another file too, whose permissions are its own."""
    return file.stat().st_nlink > 1


def _rename_to_new(file: Path, target: Path) -> None:
    """Raises FileExistsError where there is a file of the new name, other OSErrors."""
    if sys.platform == "win32":
        file.rename(target)  # which never replaces there
    elif not _is_renamed_by_linux(file, target):
        try:
            os.link(file, target)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            file.rename(target)
        else:
            file.unlink()


def _is_renamed_by_linux(file: Path, target: Path) -> bool:
    """False where the kernel or the disk cannot rename without replacing. Raises OSError."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    sys.audit("os.rename", file, target, -1, -1)
    names = os.fsencode(file), os.fsencode(target)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number))


def open_alone(path: Path, target: Path) -> BinaryIO:
    """Opens a file beside ``target`` to read and write it, made where there is none.

    Raises:
        OSError: the disk fails.
        OutputError: another process has it, to write ``target``; or it is a link, has several
            names, or is no file, and so is none of ours.
    """
    while True:
        file = open(path, "r+b", opener=_make_ordinary)  # noqa: SIM115 - the caller closes it
        held = hold(file, path)
        if held is None:
            raise OutputError(f"{target}: another run is writing it", hint="wait for that one")
        if held:
            return file


def _open_new(path: Path, target: Path) -> BinaryIO:
    """As :func:`open_alone`, in place of what a killed process has left."""
    while True:
        try:
            file = path.open("xb")
        except FileExistsError:
            remove_leftover(path, target)
            continue
        # Before it was locked it may have been taken for a leftover.
        if hold(file, path):
            return file


def remove_leftover(path: Path, target: Path) -> None:
    """Removes what a killed process has left at ``path`` while it wrote ``target``.

    Raises as :func:`open_alone` does, where it is none of ours.
    """
    with contextlib.suppress(OSError):  # as where either is not there
        if os.path.samestat(path.lstat(), target.lstat()):
            path.unlink()  # It was killed between giving the new name and taking the old one.
    if os.path.lexists(path):
        with open_alone(path, target) as file:
            if sys.platform == "win32":
                file.close()
            path.unlink()


def open_ordinary(path: str, flags: int) -> int:
    """For ``open``: a descriptor of an ordinary file that has this name alone.

    Raises:
        OSError: there is none, or it cannot be opened.
        OutputError: it is a link, has several names, or is no file.
    """
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | careful, 0o666)
    except OSError as error:
        if error.errno in _IS_NO_FILE:
            raise foreign_error(path) from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise foreign_error(path)
    return descriptor


def _make_ordinary(path: str, flags: int) -> int:
    return open_ordinary(path, flags | os.O_CREAT)


def foreign_error(path: Path | str) -> OutputError:
    """The error for a file that is where one of ours would be, and is left alone."""
    return OutputError(
        f"{path} is in the way, and not of this program's making",
        hint="move it, or give the output another name",
    )


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


def hold(file: IO[bytes], path: Path) -> bool | None:
    """Lock a file just opened at ``path``: whether it has that name still, which another process
    may have taken from it before; None where one has it locked. Closed unless True. Raises OSError.
    """
    try:
        held = None if lock(file) is False else _is_still(file, path)
    except BaseException:
        file.close()
        raise
    if not held:
        file.close()
    return held


def _is_still(file: IO[bytes], path: Path) -> bool:
    """Whether ``path`` names an open file, which another process may have moved or removed."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _mark(target: Path) -> str:
    """How the temporary names of a file begin; short, as its own name may be the longest."""
    return f".vdsr-{zlib.crc32(os.fsencode(target.name)):08x}-"


def write_text_atomic(path: Path, text: str, *, replace: bool = True) -> None:
    """Write ``text`` as UTF-8 to ``path``, names that are no text escaped; see
    :func:`atomic_path`."""
    with atomic_path(path, replace=replace) as temporary:
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

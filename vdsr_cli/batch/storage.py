"""Objects in a store, by fsspec's URLs (``s3://bucket/photo.png``): in and out, whole.

An object store shows an upload only when it is complete, so one upload is atomic. Elsewhere the
upload gets its name by a move, as a file does.
"""

import errno
import os
import posixpath
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vdsr_cli.errors import InputError, OutputError, OutputExistsError, UsageError, VdsrError
from vdsr_cli.files import APPEARED, exists_error

S3: Final = frozenset({"s3", "s3a"})
_OBJECT_STORES: Final = S3 | {"gs", "gcs", "az", "abfs", "abfss", "oss", "r2"}


def fetch(address: str, folder: Path) -> Path:
    """Brings an object into a folder, under its own name. Raises InputError."""
    path = folder / posixpath.basename(address)
    with failing_as(InputError, f"{address}: cannot be read"):
        files, place = open_store(address)
        files.get_file(place, str(path))
    return path


def put(path: Path, address: str, *, replace: bool = True) -> None:
    """Stores a file, whole or not at all.

    Without ``replace``, S3 itself refuses the upload where it has such an object by then; other
    stores are asked right before.

    Raises:
        OutputError: the store fails.
        OutputExistsError: there is such an object and no ``replace``.
    """
    with failing_as(OutputError, f"{address}: cannot be written"):
        files, place = open_store(address)
        if protocol_of(address) in S3:
            _put_to_s3(files, path, place, address, replace=replace)
        elif protocol_of(address) in _OBJECT_STORES:
            _refuse_replacing(files, place, address, replace=replace)
            files.put_file(str(path), place)
        else:
            above = posixpath.dirname(place)
            temporary = posixpath.join(above, f".vdsr-{secrets.token_hex(8)}")
            files.makedirs(above, exist_ok=True)
            files.put_file(str(path), temporary)
            try:
                _refuse_replacing(files, place, address, replace=replace)
                files.mv(temporary, place)
            except OutputExistsError:
                files.rm_file(temporary)
                raise


def _put_to_s3(files: Any, path: Path, place: str, address: str, *, replace: bool) -> None:
    try:
        files.put_file(str(path), place, mode="overwrite" if replace else "create")
    except OSError as error:
        if replace:
            raise
        # What it says of a condition that is not met depends on the release.
        _refuse_replacing(files, place, address, replace=replace)
        if error.errno != errno.ENOSYS:
            raise
        files.put_file(str(path), place)  # a server that speaks S3 without conditions


def _refuse_replacing(files: Any, place: str, address: str, *, replace: bool) -> None:
    files.invalidate_cache()
    if not replace and files.exists(place):
        raise exists_error(address, APPEARED)


def exists(address: str) -> bool:
    """Whether there is such an object. Raises OutputError."""
    with failing_as(OutputError, f"{address}: cannot be looked for"):
        files, place = open_store(address)
        return bool(files.exists(place))


def protocol_of(address: str) -> str:
    """The protocol of a URL: ``s3`` of ``s3://bucket``."""
    return address.partition("://")[0].lower()


def open_store(address: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. Raises UsageError."""
    from fsspec.core import url_to_fs

    try:
        files, place = url_to_fs(address)
    except ImportError as error:
        raise UsageError(
            f"{address}: {error}", hint="for S3: pip install 'vdsr-cli[s3]'"
        ) from error
    except ValueError as error:
        raise UsageError(f"{address}: {error}") from error
    return files, str(place)


@contextmanager
def failing_as(kind: type[VdsrError], message: str) -> Iterator[None]:
    """Turns the errors of a store into one line: of any class, as file systems let those of their
    clients through."""
    try:
        yield
    except VdsrError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number).lower() if number else str(error) or type(error).__name__
        raise kind(f"{message}: {reason}") from error

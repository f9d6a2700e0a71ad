"""Objects in a store, by fsspec's URLs (``s3://bucket/photo.png``): in and out, whole.

An object store shows an upload only when it is complete, so one upload is atomic. Elsewhere the
upload gets its name by a move, as a file does.
"""

import os
import posixpath
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vdsr_cli.errors import InputError, OutputError, UsageError, VdsrError

_OBJECT_STORES: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "r2"})


def fetch(address: str, folder: Path) -> Path:
    """Brings an object into a folder, under its own name. Raises InputError."""
    path = folder / posixpath.basename(address)
    with failing_as(InputError, f"{address}: cannot be read"):
        files, place = open_store(address)
        files.get_file(place, str(path))
    return path


def put(path: Path, address: str) -> None:
    """Stores a file, whole or not at all. Raises OutputError."""
    with failing_as(OutputError, f"{address}: cannot be written"):
        files, place = open_store(address)
        if protocol_of(address) in _OBJECT_STORES:
            files.put_file(str(path), place)
            return
        temporary = posixpath.join(posixpath.dirname(place), f".vdsr-{secrets.token_hex(8)}")
        files.makedirs(posixpath.dirname(place), exist_ok=True)
        files.put_file(str(path), temporary)
        files.mv(temporary, place)


def exists(address: str) -> bool:
    """Whether there is such an object. Raises OutputError."""
    with failing_as(OutputError, f"{address}: cannot be looked for"):
        files, place = open_store(address)
        return bool(files.exists(place))


def protocol_of(address: str) -> str:
    """Of a URL: ``s3`` of ``s3://bucket``."""
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
    """Turns the errors of a store into one line."""
    try:
        yield
    except _store_errors() as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number).lower() if number else str(error)
        raise kind(f"{message}: {reason}") from error


def _store_errors() -> tuple[type[Exception], ...]:
    """What file systems raise; s3fs lets some of its client's own errors through."""
    try:
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return (OSError,)
    return (OSError, BotoCoreError)

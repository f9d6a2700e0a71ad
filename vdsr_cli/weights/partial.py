"""The file of a download under way: its bytes, their running hash, the version they are of."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from vdsr_cli.errors import WeightsError
from vdsr_cli.files import write_text_atomic
from vdsr_cli.weights.cache import cache_errors

CHUNK_BYTES = 1 << 20


class PartialFile:
    """A ``.part`` file, and the notes beside it that say which version its bytes are of.

    Use it in a with block. Where that fails and the bytes are of no use to a later run, they are
    removed. Every method turns a failure of the disk into a WeightsError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes = path.with_name(path.name + ".json")
        self.etag: str | None = None
        self.total: int | None = None
        self.size = 0
        self.digest = hashlib.sha256()
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        with cache_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._read_notes()
            self._read_bytes()
            self._file = self.path.open("ab" if self.etag else "wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if error is not None and not (self.etag and self._size_on_disk()):
            discard(self.path)  # nothing that could be resumed

    def close(self) -> None:
        """Let go of the file; what is in it stays."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    @property
    def is_complete(self) -> bool:
        """Whether every byte that was announced is here."""
        return self.total is not None and self.size == self.total

    def restart(self, *, etag: str | None, total: int | None) -> None:
        """Forget what is here: the bytes of another version follow."""
        with cache_errors(self.path):
            self._open_file.seek(0)
            self._open_file.truncate()
            self.size, self.etag, self.total = 0, etag, total
            self.digest = hashlib.sha256()
            write_text_atomic(self.notes, json.dumps({"etag": etag, "total": total}))
        self._check_room()

    def append(self, chunk: bytes) -> None:
        """Add the bytes that came next."""
        with cache_errors(self.path):
            self._open_file.write(chunk)
            self._open_file.flush()
        self.digest.update(chunk)
        self.size += len(chunk)

    @property
    def _open_file(self) -> BinaryIO:
        assert self._file is not None, "used outside its with block"
        return self._file

    def _size_on_disk(self) -> int:
        """Bytes in the file: more than ``size`` where a full disk cut a chunk."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def _read_notes(self) -> None:
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
            etag, total = notes["etag"], notes["total"]
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return
        if isinstance(etag, str) and isinstance(total, int):
            self.etag, self.total = etag, total

    def _read_bytes(self) -> None:
        """Hash the bytes that are here, if their notes say what they are of."""
        if self.etag is None or not self.path.is_file():
            self.etag = self.total = None
            return
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                self.digest.update(chunk)
                self.size += len(chunk)
        if self.total is not None and self.size > self.total:
            self.etag = self.total = None

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if self.total is not None and self.total > free:
            raise WeightsError(
                f"the download takes {self.total} bytes, the disk of {self.path.parent} has {free}",
                hint="free some space, or set VDSR_HOME to a folder that has it",
            )


def discard(part: Path) -> None:
    """Remove a ``.part`` file and its notes, so that the next run starts anew."""
    with cache_errors(part):
        part.unlink(missing_ok=True)
        part.with_name(part.name + ".json").unlink(missing_ok=True)

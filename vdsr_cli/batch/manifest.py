"""The manifest of a run: one JSON object a line, what became of each picture.

    {"input": "/in/a.png", "output": "/out/a_x4.png", "status": "done", "seconds": 0.412,
     "sha256": "9f86...", "error": null, "exit_code": 0, "model": "vdvae-sr-x4"}

A picture's last line counts. A line is appended by one write, after the output has its name:
whatever ends the process, an output is whole, and at most the last line is torn, which the next
run cuts off. The output without a line that this leaves gets one when it is skipped, and so does
one that was made after its line said failed. A file whose first or last line is none of these is
somebody else's, and left as it is.
"""

import errno
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from vdsr_cli.errors import InputError, OutputError
from vdsr_cli.files import is_special
from vdsr_cli.images import writing_to

_LONGEST: Final = 2**20
"""Bytes of a line, beyond which a file is no manifest."""
_START: Final = b'{"input": "'
_HINT: Final = "give --manifest another name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line.

    Attributes:
        input, output: absolute paths; the output that was planned, whether it came to be or not.
        status: "done", "failed", or "skipped" where an output was there without a line that says
            so, or the file is none that can be read.
        seconds: from reading to writing, of what is done.
        sha256: of the output's bytes; None where there is none.
        model: that made the output; None where none was made.
    """

    input: str
    output: str | None
    status: str
    seconds: float | None = None
    sha256: str | None = None
    error: str | None = None
    exit_code: int = 0
    model: str | None = None


class Manifest:
    """A manifest file, made when its first line is; a pipe or a device only takes lines.

    Raises:
        OutputError: on entering, the file is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._index: sqlite3.Connection | None = None

    def append(self, record: Record) -> None:
        """Adds a line. Raises OutputError."""
        line = json.dumps(asdict(record)).encode() + b"\n"
        with writing_to(str(self.path)):
            if self._file is None:
                self._file = _open_at_line_end(self.path)
            start = os.fstat(self._file).st_size
            try:
                _write_whole(self._file, line)
            except OSError:
                with suppress(OSError):  # as of a device
                    os.ftruncate(self._file, start)
                raise
        if self._index is not None:
            _add(self._index, record)

    def has(self, input: str) -> bool:
        """Whether an input has a line. Raises InputError."""
        return self._last(input) is not None

    def has_failed(self, input: str) -> bool:
        """Whether an input's last line says failed. Raises InputError."""
        return self._last(input) == (1,)

    def _last(self, input: str) -> tuple[int] | None:
        """The index's row of an input: whether its last line says failed; None without a line."""
        if self._index is None:
            self._index = _build_index(self)
        found = self._index.execute("SELECT failed FROM inputs WHERE key = ?", (_key(input),))
        row: tuple[int] | None = found.fetchone()
        return row

    def failed(self) -> set[str]:
        """The inputs whose last line says failed. Raises InputError."""
        inputs: set[str] = set()
        for record in self:
            (inputs.add if record.status == "failed" else inputs.discard)(record.input)
        return inputs

    def __iter__(self) -> Iterator[Record]:
        """Yields the lines so far, without a torn last one. Raises InputError."""
        if is_special(self.path):
            return
        try:
            with self.path.open("rb") as lines:
                for number, line in enumerate(iter(lambda: lines.readline(_LONGEST), b""), 1):
                    if line.endswith(b"\n") or len(line) == _LONGEST:
                        yield self._parse(line, number)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _parse(self, line: bytes, number: int) -> Record:
        record = _record_in(line)
        if record is None:
            raise InputError(f"{self.path}: line {number} is none of a manifest", hint=_HINT)
        return record

    def close(self) -> None:
        """Has the lines reach the disk. Raises OutputError."""
        if self._file is not None:
            file, self._file = self._file, None
            with writing_to(str(self.path)):
                try:
                    _sync(file)
                finally:
                    os.close(file)
        if self._index is not None:
            self._index.close()
            self._index = None

    def __enter__(self) -> "Manifest":
        with writing_to(str(self.path)), suppress(FileNotFoundError, NotADirectoryError):
            if not is_special(self.path):
                with self.path.open("rb") as file:
                    _torn_line(file, self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _record_in(line: bytes) -> Record | None:
    """The record that a line is; None where it is none."""
    try:
        record = Record(**json.loads(line))
        os.fsencode(record.input)
    except (ValueError, TypeError, RecursionError):
        return None
    return record


def _open_at_line_end(path: Path) -> int:
    """Opens for appending, after cutting off what a killed run left of a line.

    Raises:
        OSError: the disk fails.
        OutputError: the file is no manifest.
    """
    if is_special(path):
        return os.open(path, os.O_WRONLY | os.O_APPEND)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if torn := _torn_line(file, path):
            file.truncate(file.tell() - len(torn))
    return os.open(path, os.O_WRONLY | os.O_APPEND)


def _torn_line(file: BinaryIO, path: Path) -> bytes:
    """Reads a manifest to its end; returns the beginning of a line that stands there, if any.

    Raises:
        OutputError: its first or its last whole line is none of a manifest, or what stands behind
            that is no beginning of one.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    first = file.readline(_LONGEST)
    file.seek(max(0, size - 2 * _LONGEST))
    *lines, torn = file.read().split(b"\n")
    whole = [first] if first.endswith(b"\n") else []
    if not (_is_torn_line(torn) and all(map(_record_in, [*whole, *lines[-1:]]))):
        raise OutputError(f"{path} is no manifest, and is left as it is", hint=_HINT)
    return torn


def _is_torn_line(text: bytes) -> bool:
    """Whether a line of ours may begin so, or lacks no more than its end."""
    if _record_in(text) is not None or _START.startswith(text):
        return True
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text.startswith(_START)
    return False


def _write_whole(file: int, content: bytes) -> None:
    """One write, unless the disk is full, which only the next one says. Raises OSError."""
    while content:
        content = content[os.write(file, content) :]


def _sync(file: int) -> None:
    """As ``os.fsync``; what has no disk, as a device, needs none. Raises OSError."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


# The index lives in a file that sqlite deletes: memory stays flat at any number of lines.


def _build_index(manifest: Manifest) -> sqlite3.Connection:
    index = sqlite3.connect("")
    index.execute("CREATE TABLE inputs (key BLOB PRIMARY KEY, failed INTEGER) WITHOUT ROWID")
    for record in manifest:
        _add(index, record)
    return index


def _add(index: sqlite3.Connection, record: Record) -> None:
    row = _key(record.input), record.status == "failed"
    index.execute("INSERT OR REPLACE INTO inputs VALUES (?, ?)", row)


def _key(input: str) -> bytes:
    return hashlib.blake2b(os.fsencode(input), digest_size=16).digest()

"""The manifest of a run: one JSON object a line, what became of each picture.

    {"input": "/in/a.png", "output": "/out/a_x4.png", "status": "done", "seconds": 0.412,
     "sha256": "9f86...", "error": null, "exit_code": 0, "model": "vdvae-sr-x4"}

A picture's last line counts. A line is appended by one write, after the output has its name:
whatever ends the process, an output is whole, and at most the last line is torn, which the next
run cuts off. The output without a line that this leaves gets one when it is skipped.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from vdsr_cli.errors import InputError
from vdsr_cli.images import writing_to

_LONGEST: Final = 2**20
"""Bytes of a line, beyond which a file is no manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line.

    Attributes:
        input, output: absolute paths; the output that was planned, whether it came to be or not.
        status: "done", "failed", or "skipped" where an earlier run left an output without a line.
        seconds: from reading to writing, of what is done.
        sha256: of the output's bytes; None where there is none.
        error: what went wrong.
        exit_code: as of the command line.
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
    """A manifest file, made when its first line is."""

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
                os.ftruncate(self._file, start)
                raise
        if self._index is not None:
            _add(self._index, record.input)

    def has(self, input: str) -> bool:
        """Whether an input has a line. Raises InputError."""
        if self._index is None:
            self._index = _build_index(self)
        found = self._index.execute("SELECT 1 FROM inputs WHERE key = ?", (_key(input),))
        return found.fetchone() is not None

    def failed(self) -> set[str]:
        """The inputs whose last line says failed. Raises InputError."""
        inputs: set[str] = set()
        for record in self:
            (inputs.add if record.status == "failed" else inputs.discard)(record.input)
        return inputs

    def __iter__(self) -> Iterator[Record]:
        """Yields the lines so far, without a torn last one. Raises InputError."""
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
        try:
            record = Record(**json.loads(line))
            os.fsencode(record.input)
            return record
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(
                f"{self.path}: line {number} is none of a manifest",
                hint="give --manifest another name",
            ) from error

    def close(self) -> None:
        """Has the lines reach the disk."""
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)
            self._file = None
        if self._index is not None:
            self._index.close()
            self._index = None

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_at_line_end(path: Path) -> int:
    """Opens for appending, after cutting off what a killed run left of a line. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end and _byte_at(file, end - 1) != b"\n":
            end -= 1
        if end < size:
            file.truncate(end)
    return os.open(path, os.O_WRONLY | os.O_APPEND)


def _write_whole(file: int, content: bytes) -> None:
    """One write, unless the disk is full, which only the next one says. Raises OSError."""
    while content:
        content = content[os.write(file, content) :]


def _byte_at(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(1)


# The index lives in a file that sqlite deletes: memory stays flat at any number of lines.


def _build_index(manifest: Manifest) -> sqlite3.Connection:
    index = sqlite3.connect("")
    index.execute("CREATE TABLE inputs (key BLOB PRIMARY KEY) WITHOUT ROWID")
    for record in manifest:
        _add(index, record.input)
    return index


def _add(index: sqlite3.Connection, input: str) -> None:
    index.execute("INSERT OR IGNORE INTO inputs VALUES (?)", (_key(input),))


def _key(input: str) -> bytes:
    return hashlib.blake2b(os.fsencode(input), digest_size=16).digest()

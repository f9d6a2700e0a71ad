"""An output that is not complete yet, and the journal by which a later run goes on with it.

    photo_x4.png.part         the bytes so far, in place of the first of which stands a mark
    photo_x4.png.part.json    of what they are, how many are on the disk, what goes on behind them

A name that is too long for that is replaced by its hash.

The journal is written once in a while, always behind the bytes that it vouches for, so that it is
true whenever the process or the machine ends. What took less than that while leaves nothing. Both
are read back only with the hash that the journal gives. What is called so and lacks the mark is
somebody else's: it is left alone, and the output refused.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final

from vdsr_cli.errors import OutputError
from vdsr_cli.files import (
    APPEARED,
    closed_on_failure,
    exists_error,
    finished_name,
    foreign_error,
    made_target,
    open_alone,
    open_ordinary,
    publish,
    remove_leftover,
    remove_leftovers,
    removed_on_failure,
    write_text_atomic,
)
from vdsr_cli.outputs import is_taken

JOURNAL_EVERY_S: Final = 10.0
"""Seconds of work that may be lost; what is done sooner is not journaled."""
DISCARDED: Final = (
    "an unfinished output was discarded: damaged, or of other settings or another input"
)
"""The note on :attr:`Draft.is_discarded`."""

_MAX_NAME_BYTES: Final = 255
_MARK: Final = b"an unfinished output of vdsr\n"
_JOURNAL_MARK: Final = '{"vdsr": "journal"'
_LONGEST_JOURNAL: Final = 1 << 26
_CHUNK_BYTES: Final = 1 << 20


@contextmanager
def open_draft(
    path: Path,
    identity: Callable[[], str],
    *,
    replace: bool = True,
    every_s: float | None = None,
) -> Iterator["Draft"]:
    """Opens the draft of an output for writing.

    Where the block fails, what the journal vouches for is kept and the rest removed.

    Args:
        path: of the output; where it is a link, of what it points to. Missing folders are made.
        identity: gives a hash of all that the bytes depend on; asked when a journal is read or
            written.

    Raises:
        OSError: the disk fails.
        OutputError: another process is writing the same output; what is not ours is in its way;
            or it may not be replaced.
    """
    target = made_target(path)
    part = _part_of(target)
    with (
        removed_on_failure(finished_name(target), target),
        _kept_with_journal_alone(part, target),
        open_alone(part, target) as file,
        closed_on_failure(file),
    ):
        _refuse_foreign(file, part)
        draft = Draft(
            file,
            part,
            target,
            identity,
            is_replacing=replace,
            every_s=JOURNAL_EVERY_S if every_s is None else every_s,
        )
        draft.recover()
        yield draft


@contextmanager
def _kept_with_journal_alone(part: Path, target: Path) -> Iterator[None]:
    """Removes an unfinished output where the block fails and no journal vouches for it.

    It goes by what is on the disk: a signal may come before the block has heard of its file.
    """
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, OutputError):
            with open(part, "rb", opener=open_ordinary) as file:
                _refuse_foreign(file, part)
                is_empty = file.tell() == 0
            if is_empty or _read_journal(_journal_of(part)) is None:
                remove_leftover(part, target)
        raise


def _part_of(target: Path) -> Path:
    name = os.fsencode(target.name)
    if len(name) + len(".part.json") > _MAX_NAME_BYTES:
        return target.with_name(f".{hashlib.sha256(name).hexdigest()[:32]}.part")
    return target.with_name(f"{target.name}.part")


def _journal_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


class Draft:
    """The bytes of an output, which takes its name when they are complete.

    Attributes:
        file: they themselves, open for writing.
        state: what :meth:`checkpoint` was last given by an earlier run of the same identity,
            whose bytes are here; None to start anew.
        is_kept: whether a later run can go on.
        is_discarded: whether there was an earlier run of another identity.
    """

    def __init__(
        self,
        file: BinaryIO,
        part: Path,
        target: Path,
        identity: Callable[[], str],
        *,
        is_replacing: bool,
        every_s: float,
    ) -> None:
        self.state: dict[str, Any] | None = None
        self.is_kept = self.is_discarded = False
        self.file, self._part, self._target = file, part, target
        self._journal = _journal_of(part)
        self._identity, self._is_replacing = cache(identity), is_replacing
        self._digest = hashlib.sha256()
        self._every_s, self._saved_at = every_s, time.monotonic()

    def recover(self) -> None:
        """Takes over what an earlier run left, or clears it away."""
        remove_leftover(finished_name(self._target), self._target)
        if os.fstat(self.file.fileno()).st_size:
            remove_leftovers(self._journal)
        facts = _read_journal(self._journal)
        if facts is not None and self._is_good(facts):
            self.state, self.is_kept = facts["state"], True
            self.file.truncate(facts["bytes"])
            self.file.seek(facts["bytes"])
            return
        if facts is not None:
            self._journal.unlink()
            self.is_discarded = True
        self._digest = hashlib.sha256()
        self.file.seek(0)
        self.file.truncate()
        self.append(_MARK)
        self.file.flush()

    def leave_head(self, size: int) -> None:
        """Leaves room for the first ``size`` bytes, which :meth:`commit` writes."""
        assert size >= len(_MARK), "the mark stands there until then"
        self.append(bytes(size - len(_MARK)))

    def append(self, data: bytes) -> None:
        """Adds the bytes that come next."""
        self.file.write(data)
        self._digest.update(data)

    def checkpoint(self, state: Callable[[], dict[str, Any]]) -> None:
        """Journals the bytes so far, and what is needed to go on behind them, if it is time to."""
        if time.monotonic() - self._saved_at < self._every_s:
            return
        self._sync()
        facts = {
            "vdsr": "journal",
            "of": self._identity(),
            "bytes": self.file.tell(),
            "state": state(),
        }
        sealed = {**facts, "sha256": _seal(self._digest, facts)}
        write_text_atomic(self._journal, json.dumps(sealed), replace=self.is_kept)
        self.is_kept = True
        self._saved_at = time.monotonic()

    def commit(self, head: bytes) -> None:
        """Writes the head and gives the file its name.

        Raises:
            OSError: the disk fails.
            OutputExistsError: another file has the name by now, and keeps it.
        """
        if not self._is_replacing and is_taken(self._target):
            raise exists_error(self._target, APPEARED)
        self._sync()
        if sys.platform == "win32":
            self.file.close()  # which must be for a new name there, and holds no lock
        # A run that skips the finished output would never come by a journal left beside it.
        self.is_kept = False
        self._journal.unlink(missing_ok=True)
        # Without the mark, only its name tells whose it is.
        complete = finished_name(self._target)
        self._part.replace(complete)
        with complete.open("r+b") as file:
            file.write(head)
            file.flush()
            os.fsync(file.fileno())
        publish(complete, self._target, replace=self._is_replacing)

    def discard(self) -> None:
        """Removes the draft: the output was made of it elsewhere."""
        self.is_kept = False
        self._journal.unlink(missing_ok=True)
        if sys.platform == "win32":
            self.file.close()
        self._part.unlink()

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def _is_good(self, facts: dict[str, Any]) -> bool:
        """Whether the journal is of this identity, and vouches for itself and the bytes here."""
        size, seal = facts.get("bytes"), facts.pop("sha256", None)
        if type(size) is not int or facts.get("of") != self._identity():
            return False
        self.file.seek(0)
        while size > 0 and (chunk := self.file.read(min(size, _CHUNK_BYTES))):
            self._digest.update(chunk)
            size -= len(chunk)
        return size == 0 and seal == _seal(self._digest, facts)


def _read_journal(journal: Path) -> dict[str, Any] | None:
    """The entries of the journal, empty where it makes no sense; None where there is none.

    Raises:
        OutputError: it is not ours.
    """
    try:
        with open(journal, "rb", opener=open_ordinary) as file:
            text = file.read(_LONGEST_JOURNAL).decode(errors="replace")
    except FileNotFoundError:
        return None
    if not text.startswith(_JOURNAL_MARK):
        raise foreign_error(journal)
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _seal(digest: "hashlib._Hash", facts: dict[str, Any]) -> str:
    """The hash of the bytes that went into ``digest``, and of what a journal says of them."""
    sealed = digest.copy()
    sealed.update(json.dumps(facts, sort_keys=True).encode())
    return sealed.hexdigest()


def _refuse_foreign(file: BinaryIO, path: Path) -> None:
    """Refuses a file that is not empty and does not begin as ours do."""
    if not _MARK.startswith(file.read(len(_MARK))):
        raise foreign_error(path)

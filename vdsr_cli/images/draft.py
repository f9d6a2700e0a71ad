"""An output that is not complete yet, and the journal by which a later run goes on with it.

    photo_x4.png.part         the bytes so far
    photo_x4.png.part.json    of what they are, how many are on the disk, what goes on behind them

A name that is too long for that is replaced by its hash.

The journal is written once in a while, always behind the bytes that it vouches for, so that it is
true whenever the process or the machine ends. What took less than that while leaves nothing.
"""

import contextlib
import errno
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
from vdsr_cli.files import is_still, lock, remove_leftovers, sync_folder, write_text_atomic

JOURNAL_EVERY_S: Final = 10.0
"""Seconds of work that may be lost; what is done sooner is not journaled."""

_MAX_NAME_BYTES: Final = 255


@contextmanager
def open_draft(
    path: Path, identity: Callable[[], str], *, every_s: float | None = None
) -> Iterator["Draft"]:
    """Opens the draft of an output for writing.

    Where the block fails, what the journal vouches for is kept and the rest removed.

    Args:
        path: of the output; where it is a link, of what it points to. Missing folders are made.
        identity: gives a hash of all that the bytes depend on; asked when a journal is read or
            written.
        every_s: seconds between two journals.

    Raises:
        OSError: the disk fails.
        OutputError: another process is writing the same output.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(target)
    with _open_alone(part, target) as file:
        draft = Draft(file, part, target, identity, JOURNAL_EVERY_S if every_s is None else every_s)
        try:
            draft.recover()
            yield draft
        except BaseException:
            with contextlib.suppress(OSError):
                if not draft.is_kept:
                    part.unlink()
            # A full disk has no room for what is held back either, but has said so already.
            with contextlib.suppress(OSError):
                file.close()
            raise


def _part_of(target: Path) -> Path:
    name = os.fsencode(target.name)
    if len(name) + len(".part.json") > _MAX_NAME_BYTES:
        return target.with_name(f".{hashlib.sha256(name).hexdigest()[:32]}.part")
    return target.with_name(f"{target.name}.part")


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
        every_s: float,
    ) -> None:
        self.state: dict[str, Any] | None = None
        self.is_kept = self.is_discarded = False
        self.file, self._part, self._target = file, part, target
        self._journal = part.with_name(f"{part.name}.json")
        self._identity = cache(identity)
        self._every_s, self._saved_at = every_s, time.monotonic()

    def recover(self) -> None:
        """Takes over what an earlier run left, or clears it away."""
        size = 0
        if os.fstat(self.file.fileno()).st_size:
            remove_leftovers(self._journal)
        facts = self._read_journal()
        if facts is not None and self._is_good(facts):
            size, self.state, self.is_kept = facts["bytes"], facts["state"], True
        elif facts is not None:
            self._journal.unlink()
            self.is_discarded = True
        self.file.truncate(size)
        self.file.seek(size)

    def append(self, data: bytes) -> None:
        """Adds the bytes that come next."""
        self.file.write(data)

    def checkpoint(self, state: Callable[[], dict[str, Any]]) -> None:
        """Journals the bytes so far, and what is needed to go on behind them, if it is time to."""
        if time.monotonic() - self._saved_at < self._every_s:
            return
        self._sync()
        facts = {"of": self._identity(), "bytes": self.file.tell(), "state": state()}
        write_text_atomic(self._journal, json.dumps(facts))
        self.is_kept = True
        self._saved_at = time.monotonic()

    def commit(self, head: bytes) -> None:
        """Writes the final head over the first one and gives the file its name."""
        self.file.seek(0)
        self.file.write(head)
        self.finish()

    def finish(self) -> None:
        """Gives the file its name."""
        self._sync()
        if sys.platform == "win32":
            self.file.close()  # which must be for a new name there, and holds no lock
        # A run that skips the finished output would never come by a journal left beside it.
        self._journal.unlink(missing_ok=True)
        self._part.replace(self._target)
        sync_folder(self._target.parent)

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def _read_journal(self) -> dict[str, Any] | None:
        """What the journal says, empty where it makes no sense; None where there is none."""
        try:
            facts = json.loads(self._journal.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def _is_good(self, facts: dict[str, Any]) -> bool:
        """Whether the journal is of this identity, and the bytes that it vouches for are here."""
        size = os.fstat(self.file.fileno()).st_size
        return facts.get("of") == self._identity() and facts["bytes"] <= size


def _open_alone(path: Path, target: Path) -> BinaryIO:
    """Opens a file to read and write it, made where there is none, that no other process has.

    Raises:
        OutputError: another process has it, to write ``target``.
    """
    while True:
        with contextlib.ExitStack() as closing:
            file = closing.enter_context(open(path, "r+b", opener=_making_it))
            if lock(file) is False:
                raise OutputError(f"{target}: another run is writing it", hint="wait for that one")
            # The other process may have given it its name between the opening and the locking.
            if is_still(file, path):
                closing.pop_all()
                return file


def _making_it(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)

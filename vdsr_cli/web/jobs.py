"""A bounded queue before the one thread that owns the models, and the files it has finished.

All of it belongs to the event loop's thread, but for :class:`Job`, which the models' thread writes.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from typing import TypeVar
from zipfile import ZIP_STORED, ZipFile

from vdsr_cli.errors import DeviceError

T = TypeVar("T")


class QueueFullError(DeviceError):
    """There is no place in the queue. ``seconds``: when to ask again."""

    def __init__(self, seconds: int, message: str = "the queue is full") -> None:
        super().__init__(message, hint=f"try again in {seconds} s")
        self.seconds = seconds


class Cancelled(Exception):  # noqa: N818  # no error: nobody waits for the result any more
    """The visitor has left, or the server ends."""


class Job:
    """One picture's way through the queue: an address that cannot be guessed, and progress.

    Args:
        client: the machine that it is drawn for; None for this one.
    """

    def __init__(self, client: str | None = None) -> None:
        self.id, self.client = secrets.token_urlsafe(16), client
        self.tiles = self.done = 0
        self._is_cancelled = False

    def start(self, tiles: int) -> None:
        """Work of so many tiles begins. Raises Cancelled."""
        self.tiles = tiles
        self.advance(0)

    def advance(self, tiles: int) -> None:
        """So many more are done. Raises Cancelled, which ends the work between two batches."""
        self.done += tiles
        if self._is_cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """Has the work end at its next step."""
        self._is_cancelled = True


class JobQueue:
    """First come, first served, by one thread; another machine holds half of the places at most.

    Args:
        most: jobs at a time, waiting or running.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: list[Job] = []
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "vdsr-model")
        self._last_seconds = 1.0

    def refuse_if_full(self, client: str | None = None) -> None:
        """Raises QueueFullError where there is no place, or none for this client."""
        seconds = max(1, round(self._last_seconds))
        if len(self._jobs) >= self._most:
            raise QueueFullError(seconds)
        held = sum(job.client == client for job in self._jobs)
        if client is not None and held >= (self._most + 1) // 2:
            raise QueueFullError(seconds, f"{held} pictures of yours are in work already")

    @contextmanager
    def place(self, client: str | None = None) -> Iterator[Job]:
        """A job's place in the queue while the block lasts; what is then unfinished is cancelled.

        Raises:
            QueueFullError: there is none.
        """
        self.refuse_if_full(client)
        job = Job(client)
        self._jobs.append(job)
        try:
            yield job
        finally:
            job.cancel()
            self._jobs.remove(job)

    def ahead(self, job: Job) -> int:
        """How many are before this one."""
        return self._jobs.index(job)

    async def run(self, work: Callable[[], T]) -> T:
        """Does the work in its turn, and returns or raises what it does."""
        async with self._turn:
            started = time.monotonic()
            result = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            self._last_seconds = time.monotonic() - started
            return result

    def cancel_all(self) -> None:
        """Has all work end at its next step."""
        for job in self._jobs:
            job.cancel()

    def close(self) -> None:
        """Ends the work and waits for the thread."""
        self.cancel_all()
        self._thread.shutdown(wait=True, cancel_futures=True)


class KeptFiles:
    """Finished files in memory.

    Args:
        most_bytes: beyond them the oldest results are dropped, though never the newest.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._results: dict[str, dict[str, bytes]] = {}

    def keep(self, result: str, files: dict[str, bytes]) -> None:
        """Takes in a result's files by name."""
        self._results[result] = files
        while len(self._results) > 1 and self._size() > self._most_bytes:
            del self._results[next(iter(self._results))]

    def find(self, result: str, name: str) -> bytes | None:
        """One file, or None where there is no such file any more."""
        return self._results.get(result, {}).get(name)

    def archive(self, result: str) -> bytes | None:
        """A ZIP of a result's files, which are compressed as they are; None where it is gone."""
        files = self._results.get(result)
        if files is None:
            return None
        stream = BytesIO()
        with ZipFile(stream, "w", ZIP_STORED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return stream.getvalue()

    def _size(self) -> int:
        return sum(len(data) for files in self._results.values() for data in files.values())

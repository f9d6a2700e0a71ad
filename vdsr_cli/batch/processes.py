"""Engines of one machine: this process, or worker processes that may die without harm.

works ─► an idle worker, over its pipe ─► outcome, over its pipe ─►
                 └─ died: a new one; its picture once more, then failed
"""

import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import FrameType
from typing import BinaryIO, Final

import torch

from vdsr_cli.batch.listing import Work
from vdsr_cli.batch.run import Outcome, as_asked, failure, output_sha256, settled, taken
from vdsr_cli.batch.storage import exists, fetch, put
from vdsr_cli.config import AUTO_MODEL
from vdsr_cli.errors import DeviceError, OutputExistsError, VdsrError
from vdsr_cli.loading import LoadedModel, ModelSource, load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.outputs import Existing
from vdsr_cli.paths import Source, is_url
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.services.auto import AutoBySize, auto_upscaler
from vdsr_cli.services.upscale import UpscaleRequest, check_request, upscale_file

_ATTEMPTS: Final = 2
"""How often a picture is tried whose worker dies."""
_STARTS: Final = 3
"""How many workers may die in a row before any is ready."""
_PATIENCE_S: Final = 10
"""How long a worker that is told to end may take to remove what it was writing."""
_MEMORY_HINT: Final = "if memory ran out, use fewer --jobs or a smaller --batch-size"
_CRASH_HINT: Final = "it crashed: please report it, with the picture"
_ENDING: Final = (signal.SIGTERM, *([] if sys.platform == "win32" else [signal.SIGHUP]))
_CONTEXT: Final = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job that every worker of a run does with its pictures.

    Attributes:
        model: name, address or file, or ``AUTO_MODEL``.
        is_hashed: whether outcomes carry the sha256 of what was written.
    """

    model: str
    request: UpscaleRequest
    device: str = "auto"
    dtype: str = "auto"
    is_hashed: bool = False


class Upscaler:
    """A model, or those to choose from, and what to do with it.

    Raises:
        VdsrError: the model, the device or the request cannot be used.
    """

    def __init__(self, job: Job) -> None:
        self._runtime = choose_runtime(job.device, job.dtype)
        self._job = job
        self._models: ModelSource
        if job.model != AUTO_MODEL:
            self._models = self._load(job.model)
        elif job.request.size is not None:
            self._models = AutoBySize(job.request.size, self._load)
        else:
            self._models = auto_upscaler(job.request.scale, self._load)

    def _load(self, name: str) -> LoadedModel:
        loaded = load(name, self._runtime, expects=Sampler)
        check_request(self._job.request, loaded)
        return loaded

    def __call__(
        self,
        work: Work,
        *,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        on_start: Callable[[int], None] = lambda tiles: None,
        on_tiles: Callable[[int], None] = lambda tiles: None,
    ) -> Outcome:
        """Makes one picture; its failure is an outcome."""
        request = self._job.request
        if work.is_retry:
            request = replace(request, existing=Existing.overwrite)

        def by_files(work: Work) -> Outcome:
            output = None if work.output is None else Path(work.output)
            result = upscale_file(
                Source(path=Path(work.input), is_stdin=work.is_stdin),
                output,
                self._models,
                request,
                self._runtime,
                stdin=stdin or io.BytesIO(),
                stdout=stdout or io.BytesIO(),
                on_start=on_start,
                on_tiles=on_tiles,
            )
            is_hashed = self._job.is_hashed and result.status == "done" and output is not None
            return Outcome(
                work=work, result=result, sha256=output_sha256(str(output)) if is_hashed else None
            )

        if is_url(work.input) or is_url(work.output or ""):
            return _by_way_of_files(work, request, by_files)
        return by_files(work)


def _by_way_of_files(
    work: Work, request: UpscaleRequest, by_files: Callable[[Work], Outcome]
) -> Outcome:
    """Makes a picture whose input or output is in a store."""
    is_stored = is_url(work.output or "")
    try:
        known = settled(work, request, exists) if is_stored else None
        if known is not None:
            return known
        with TemporaryDirectory(prefix="vdsr-") as folder:
            local = work
            if is_url(work.input):
                local = replace(local, input=str(fetch(work.input, Path(folder))))
            if is_stored:
                name = PurePosixPath(str(work.output)).name
                local = replace(local, output=str(Path(folder, "out", name)))
            outcome = by_files(local)
            if is_stored and outcome.result.status == "done":
                may_replace = work.is_retry or request.existing.is_replaced
                put(Path(str(local.output)), str(work.output), replace=may_replace)
    except OutputExistsError as error:
        return taken(work, request, error)
    except VdsrError as error:
        return failure(work, error)
    return as_asked(outcome, work)


@dataclass(slots=True, kw_only=True)
class InProcess:
    """The engine that is this process: one picture at a time, tile by tile.

    Attributes:
        stdin, stdout: for works that name no files.
    """

    upscaler: Upscaler
    stdin: BinaryIO
    stdout: BinaryIO
    on_start: Callable[[Work, int], None]
    on_tiles: Callable[[int], None]

    def run(self, works: Iterable[Work]) -> Generator[Outcome, None, None]:
        """As :class:`~vdsr_cli.batch.run.Engine` says."""
        for work in works:
            yield self.upscaler(
                work,
                stdin=self.stdin,
                stdout=self.stdout,
                on_start=lambda tiles, work=work: self.on_start(work, tiles),  # type: ignore[misc]
                on_tiles=self.on_tiles,
            )


@dataclass(slots=True, kw_only=True)
class WorkerProcesses:
    """The engine of several processes, each with its own model and its share of the cores.

    On CUDA the workers take the cards in turn. A worker that dies is replaced and its picture
    tried once more; when that ends the same, the picture has failed.
    """

    job: Job
    count: int
    _failed_starts: int = field(default=0, init=False)

    def run(self, works: Iterable[Work]) -> Generator[Outcome, None, None]:
        """As :class:`~vdsr_cli.batch.run.Engine` says.

        Raises:
            DeviceError: workers die before they have loaded the model.
            VdsrError: the model, the device or the request cannot be used.
        """
        workers: list[_Worker] = []
        try:
            for work in works:
                while len(workers) == self.count and all(worker.work for worker in workers):
                    yield from self._collect(workers)
                idle = next((worker for worker in workers if worker.work is None), None)
                if idle is None:
                    idle = _Worker(self.job, len(workers), self.count)
                    workers.append(idle)
                idle.take(work)
            while any(worker.work for worker in workers):
                yield from self._collect(workers)
        finally:
            for worker in workers:
                worker.stop()
            for worker in workers:
                worker.join()

    def _collect(self, workers: list["_Worker"]) -> Iterator[Outcome]:
        """Waits until something happens, and yields what has been finished."""
        busy = {worker.connection: worker for worker in workers if worker.work}
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)
            outcome = self._heard(busy[connection])
            if outcome is not None:
                yield outcome

    def _heard(self, worker: "_Worker") -> Outcome | None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._died(worker)
        if isinstance(message, VdsrError):
            raise message
        if message is None:
            worker.is_ready = True
            self._failed_starts = 0
            return None
        worker.work = None
        assert isinstance(message, Outcome)
        return message

    def _died(self, worker: "_Worker") -> Outcome | None:
        work, was_ready = worker.work, worker.is_ready
        assert work is not None
        reason = worker.restart()
        if not was_ready:
            self._failed_starts += 1
            if self._failed_starts == _STARTS:
                raise reason.error("worker processes end before they are ready")
        elif worker.attempts == _ATTEMPTS:
            worker.work = None
            what = f"{work.input}: its worker process ended {_ATTEMPTS} times"
            return failure(work, reason.error(what))
        retried = replace(work, is_retry=work.is_retry or was_ready)
        worker.take(retried, attempts=worker.attempts + was_ready)
        return None


@dataclass(frozen=True, slots=True)
class _End:
    """How a process ended: its exit code, or a signal's number below zero."""

    code: int

    def error(self, what: str) -> VdsrError:
        """Who ends without being asked to has crashed, unless the system wanted its memory."""
        if self.code == -getattr(signal, "SIGKILL", 9):
            return DeviceError(f"{what}: {self}", hint=_MEMORY_HINT)
        return VdsrError(f"{what}: {self}", hint=_CRASH_HINT)

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit code {self.code}"
        known = {number.value: number.name for number in signal.Signals}
        return f"killed by {known.get(-self.code, f'signal {-self.code}')}"


class _Worker:
    """One process, its pipe, and the picture that it has."""

    def __init__(self, job: Job, place: int, count: int) -> None:
        self._job = replace(job, device=_device_of(job.device, place))
        self._threads = _threads_of(count)
        self.work: Work | None = None
        self.attempts = 0
        self._start()

    def _start(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_serve, args=(theirs, self._job, self._threads), daemon=True
        )
        self.is_ready = False
        with _interrupts_held():
            self._process.start()
        theirs.close()

    def take(self, work: Work, *, attempts: int = 1) -> None:
        """Gives the worker a picture."""
        self.work, self.attempts = work, attempts
        # One that has died is found when it is waited for.
        with suppress(OSError):
            self.connection.send(work)

    def restart(self) -> _End:
        """Replaces a process that has died; says what ended it."""
        self._process.join()
        end = _End(self._process.exitcode or 0)
        self.connection.close()
        self._start()
        return end

    def stop(self) -> None:
        """Tells the process to end: at once when it has work, which then leaves nothing."""
        if self.work is not None:
            self._process.terminate()
        self.connection.close()

    def join(self) -> None:
        """Waits for its end, and makes it."""
        self._process.join(_PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keeps what starts inside from Ctrl-C, which a terminal sends to workers too; this process
    sees it afterwards."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # which would take the mask off
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _device_of(device: str, place: int) -> str:
    """The card of the worker in this place, or the device as given where there are no cards."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{place % torch.cuda.device_count()}"
    return device


def _threads_of(count: int) -> int:
    """One worker's share of the cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, cores // count)


# What runs in a worker process.


def _serve(connection: Connection, job: Job, threads: int) -> None:
    """Says when it is ready, or why it cannot be; then answers each work with its outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _ENDING:
        signal.signal(number, _end)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    try:
        upscaler = Upscaler(job)
    except VdsrError as error:
        _send(connection, error)
        return
    _send(connection, None)
    while (work := _receive(connection)) is not None:
        _send(connection, upscaler(work))


def _end(number: int, frame: FrameType | None) -> None:
    """Ends by an exception, so that files in the making are removed; once is enough."""
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _send(connection: Connection, message: Outcome | VdsrError | None) -> None:
    with suppress(BrokenPipeError):  # The run has ended; so will this process.
        connection.send(message)


def _receive(connection: Connection) -> Work | None:
    try:
        work = connection.recv()
    except (EOFError, ConnectionResetError):
        return None
    assert isinstance(work, Work)
    return work

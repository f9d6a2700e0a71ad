"""The engine that is a Ray cluster: each picture is a task, wherever there is room.

A node or a worker that dies takes its pictures with it; they are given to others. Nodes that join
get work, nodes that leave are not missed. Each process of the cluster keeps one loaded model.
"""

import logging
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from vdsr_cli.batch.listing import Work, absolute
from vdsr_cli.batch.processes import Job, Upscaler
from vdsr_cli.batch.run import Outcome, as_asked, failure
from vdsr_cli.config import AUTO_MODEL
from vdsr_cli.errors import DeviceError, UsageError, VdsrError

_ATTEMPTS: Final = 3
"""How often a picture is tried whose worker or node dies."""
_PATIENCE_S: Final = 10
"""How long tasks that are cancelled may take to remove what they were writing."""


@dataclass(slots=True, kw_only=True)
class RayCluster:
    """The engine of a running Ray cluster, one CPU or one card a picture.

    Paths have to mean the same on every node: a shared disk, or URLs of a store.

    Attributes:
        address: of the cluster's head; None for RAY_ADDRESS, or the cluster of this machine.
        limit: pictures in work at once; None for as many as there is room for.
    """

    job: Job
    address: str | None = None
    limit: int | None = None

    def run(self, works: Iterable[Work]) -> Generator[Outcome, None, None]:
        """As :class:`~vdsr_cli.batch.run.Engine` says.

        Raises:
            DeviceError: there is no such cluster, or its nodes lack this package.
            UsageError: Ray is not installed.
            VdsrError: the model, the device or the request cannot be used there.
        """
        ray = _connected(self.address)
        flying: dict[Any, _Flight] = {}
        try:
            launch = _Launcher(ray, self.job)
            for work in works:
                while len(flying) >= (self.limit or launch.room()):
                    yield from self._landed(ray, launch, flying)
                flying[launch(work)] = _Flight(work=work)
            while flying:
                yield from self._landed(ray, launch, flying)
        finally:
            _cancel(ray, list(flying))
            ray.shutdown()

    def _landed(
        self, ray: Any, launch: "_Launcher", flying: dict[Any, "_Flight"]
    ) -> Iterator[Outcome]:
        """Waits for a picture, and yields its outcome unless it is tried again."""
        done, _ = ray.wait(list(flying), num_returns=1)
        for task in done:
            flight = flying.pop(task)
            try:
                outcome = ray.get(task)
            except ray.exceptions.RayError as error:
                if flight.attempts < _ATTEMPTS:
                    again = launch(replace(flight.work, is_retry=True))
                    flying[again] = replace(flight, attempts=flight.attempts + 1)
                else:
                    yield failure(flight.work, _died(flight.work, error))
                continue
            if isinstance(outcome, VdsrError):
                raise outcome
            yield as_asked(outcome, flight.work)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flight:
    """A picture in work, and how often it has been given out."""

    work: Work
    attempts: int = 1


class _Launcher:
    """Gives out pictures, once a first task has shown that the cluster can do them."""

    def __init__(self, ray: Any, job: Job) -> None:
        self._ray = ray
        has_cards = ray.cluster_resources().get("GPU", 0) >= 1
        self._resource = "GPU" if job.device != "cpu" and has_cards else "CPU"
        asked = {"num_gpus": 1, "num_cpus": 0} if self._resource == "GPU" else {"num_cpus": 1}
        # A picture is given out again by us, since it then may replace what was left of it.
        self._task = ray.remote(max_retries=0, **asked)(_upscale)
        is_file = job.model != AUTO_MODEL and os.path.exists(job.model)
        model = os.path.abspath(job.model) if is_file else job.model
        self._job = ray.put(replace(job, model=model))
        self._check()

    def _check(self) -> None:
        exceptions = self._ray.exceptions
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                error = self._ray.get(self._task.remote(self._job, None))
            except exceptions.RayError as error:
                # What a task raises it raises again; a worker or a node that is lost is replaced.
                if attempt < _ATTEMPTS and not isinstance(error, exceptions.RayTaskError):
                    continue
                reason = str(error).strip().splitlines()[-1]
                raise DeviceError(
                    f"the cluster cannot run vdsr: {reason}",
                    hint="install the same vdsr-cli on every node",
                ) from error
            break
        if error is not None:
            raise error

    def room(self) -> int:
        """How many pictures keep all nodes busy: those in work, and as many that wait."""
        return max(1, 2 * int(self._ray.cluster_resources().get(self._resource, 0)))

    def __call__(self, work: Work) -> Any:
        """Gives a picture out; what comes back stands for its outcome."""
        output = None if work.output is None else absolute(work.output)
        return self._task.remote(
            self._job, replace(work, input=absolute(work.input), output=output)
        )


def _connected(address: str | None) -> Any:
    """The ray module, in a running cluster; one is never started."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("Ray is not installed", hint="pip install 'vdsr-cli[ray]'") from error
    found = address or os.environ.get("RAY_ADDRESS", "auto")
    try:
        ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise DeviceError(
            f"no Ray cluster at {found}",
            hint="start one with: ray start --head; or give --ray-address HOST:PORT",
        ) from error
    return ray


def _cancel(ray: Any, tasks: list[Any]) -> None:
    for task in tasks:
        ray.cancel(task)
    if tasks:
        with suppress(ray.exceptions.RayError):
            ray.wait(tasks, num_returns=len(tasks), timeout=_PATIENCE_S)


def _died(work: Work, error: Exception) -> DeviceError:
    kind = type(error).__name__
    is_for_memory = kind == "OutOfMemoryError"
    return DeviceError(
        f"{work.input}: its worker ended {_ATTEMPTS} times: {kind}",
        hint="use fewer --jobs or a smaller --batch-size" if is_for_memory else None,
    )


# What runs on a node.


def _upscale(job: Job, work: Work | None) -> Outcome | VdsrError | None:
    """The outcome of a picture, or why none can be made here; without work, just the latter."""
    try:
        upscaler = _upscaler(job)
    except VdsrError as error:
        return error
    return None if work is None else upscaler(work)


@lru_cache(maxsize=1)
def _upscaler(job: Job) -> Upscaler:
    return Upscaler(job)

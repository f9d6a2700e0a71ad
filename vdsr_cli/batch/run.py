"""A run over many pictures: a stream of work, an engine that does it, a manifest that records it.

works ─► what exists is settled at once ─► Engine.run ─► outcomes, as they come ─► manifest
"""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from vdsr_cli.batch.listing import Work, absolute
from vdsr_cli.batch.manifest import Manifest, Record
from vdsr_cli.errors import OutputExistsError, VdsrError
from vdsr_cli.files import exists_error, is_special
from vdsr_cli.formats import unnoticed
from vdsr_cli.outputs import Existing, is_taken
from vdsr_cli.paths import is_url
from vdsr_cli.services.upscale import (
    UpscaleRequest,
    UpscaleResult,
    failed_result,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The fate of a picture.

    Attributes:
        sha256: of the output's bytes, where the run keeps a manifest and the picture is done.
        is_refused: whether it failed because its output is there, and nothing was tried.
    """

    work: Work
    result: UpscaleResult
    sha256: str | None = None
    is_refused: bool = False


class Engine(Protocol):
    """Who does the work: this process, others of this machine, or a cluster."""

    def run(self, works: Iterable[Work]) -> Generator[Outcome, None, None]:
        """Yields an outcome for each picture, in any order, taking works only as it needs them.

        Closed early, it ends what is in work and leaves nothing partial. Raises VdsrError where
        no picture can be made: no such model, no such device.
        """


def run_works(
    works: Iterable[Work],
    engine: Engine,
    request: UpscaleRequest,
    *,
    manifest: Manifest | None = None,
    on_outcome: Callable[[Outcome], None],
) -> None:
    """Makes the pictures; each outcome is recorded, then told.

    An output that exists on this machine is skipped or refused here, before any engine hears of
    it. What is refused is not recorded: nothing was tried.

    Raises:
        VdsrError: of the engine or the manifest, or of the works, when those before are finished;
            what is done stays done.
    """
    ended_by: list[VdsrError] = []

    def finish(outcome: Outcome) -> None:
        if manifest is not None and not outcome.is_refused:
            _record(outcome, manifest)
        on_outcome(outcome)

    def pending() -> Iterator[Work]:
        for work in listed():
            known = settled(work, request, is_taken)
            if known is None:
                yield work
            else:
                finish(known)

    def listed() -> Iterator[Work]:
        try:
            yield from works
        except VdsrError as error:  # raised here, it would end what the engine has in work
            ended_by.append(error)

    with closing(engine.run(pending())) as outcomes:
        for outcome in outcomes:
            finish(outcome)
    if ended_by:
        raise ended_by[0]


def only_failed(works: Iterable[Work], manifest: Manifest) -> Iterator[Work]:
    """Yields the works whose last line in the manifest says failed. Raises InputError."""
    failed = manifest.failed()
    return (work for work in works if absolute(work.input) in failed)


def record_unknown(manifest: Manifest, path: str) -> None:
    """Adds a line, once, on a file of a folder that is no picture, or none that can be read."""
    input = absolute(path)
    if not manifest.has(input):
        reason = "it is of no format that can be read"
        manifest.append(Record(input=input, output=None, status="skipped", error=reason))


def failure(work: Work, error: VdsrError) -> Outcome:
    """The outcome of a picture that an error ended."""
    return Outcome(work=work, result=failed_result(UpscaleResult(input=work.input), error))


def as_asked(outcome: Outcome, work: Work) -> Outcome:
    """The outcome of work that was done under other addresses, in those that were asked for."""
    result = outcome.result
    error = result.error and result.error.replace(outcome.work.input, work.input)
    if error and outcome.work.output and work.output:
        error = error.replace(outcome.work.output, work.output)
    output = result.output and work.output
    return replace(
        outcome, work=work, result=replace(result, input=work.input, output=output, error=error)
    )


def output_sha256(path: str) -> str | None:
    """SHA-256 of an output's bytes, in hexadecimal; None of a pipe or a device, which keep none,
    and of a file that has vanished meanwhile."""
    if is_special(Path(path)):
        return None
    try:
        with open(path, "rb", opener=unnoticed) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def settled(work: Work, request: UpscaleRequest, exists: Callable[[str], bool]) -> Outcome | None:
    """The outcome that is known without any work: the output exists, and is skipped or refused."""
    is_free = work.is_retry or request.existing is Existing.overwrite
    if work.output is None or is_free or not exists(work.output):
        return None
    return taken(work, request, exists_error(work.output))


def taken(work: Work, request: UpscaleRequest, error: OutputExistsError) -> Outcome:
    """The outcome where the output is there: skipped or refused."""
    if request.existing is Existing.skip:
        result = UpscaleResult(input=work.input, output=work.output, status="skipped")
        return Outcome(work=work, result=result)
    return replace(failure(work, error), is_refused=True)


def _record(outcome: Outcome, manifest: Manifest) -> None:
    """Adds a line; for a skipped output only where it has none, as one of a killed run, or one
    that says that it failed."""
    work, result, sha256 = outcome.work, outcome.result, outcome.sha256
    input, output = absolute(work.input), work.output and absolute(work.output)
    if result.status == "skipped":
        if manifest.has(input) and not manifest.has_failed(input):
            return
        sha256 = None if output is None or is_url(output) else output_sha256(output)
    manifest.append(
        Record(
            input=input,
            output=output,
            status=result.status,
            seconds=result.seconds,
            sha256=sha256,
            error=result.error,
            exit_code=result.exit_code,
            model=result.model,
        )
    )

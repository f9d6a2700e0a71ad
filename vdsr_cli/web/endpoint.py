"""The endpoint that draws: one request a picture, from its upload to its result.

    POST draw?model=&n=&temperature=&seed=&name=     the body is the picture's file, as it is
      ─► {"status": "waiting", "ahead": 1}           a line several times a second
         {"status": "running", "done": 8, "tiles": 35}
         {"status": "done", "result": ...}           what viewer.js shows; or "failed" and an error
      ─► 4xx, 503: {"error": ..., "hint": ..., "exit_code": ...}

The upload is the body and no form, because parsers of forms put what is large into files. While
the answer runs the visitor is there; a visitor who leaves has cancelled.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from vdsr_cli.errors import DeviceError, InputError, UsageError, VdsrError
from vdsr_cli.images import read_picture
from vdsr_cli.runtime import Runtime
from vdsr_cli.services.loading import ModelSource
from vdsr_cli.services.serve import Drawn, DrawRequest, draw
from vdsr_cli.web.jobs import Cancelled, Job, JobQueue, KeptFiles, QueueFullError

_TICK_SECONDS: Final = 0.25
_UPLOAD_SECONDS: Final = 120
_LONGEST_NAME: Final = 200

_NUMBERS: Final = (
    ("n", "samples", int),
    ("temperature", "temperature", float),
    ("seed", "seed", int),
)


class UploadTooLargeError(InputError):
    """The upload has more bytes than are taken."""


class ForeignOriginError(UsageError):
    """Another site's page sent the request."""


_STATUS: Final[Mapping[type[VdsrError], int]] = {
    UsageError: 400,
    ForeignOriginError: 403,
    UploadTooLargeError: 413,
    InputError: 422,
    QueueFullError: 503,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server takes on.

    Attributes:
        upload_bytes: of one picture's file.
        pixels: of one picture.
        jobs: pictures at a time, waiting or being drawn.
        kept_bytes: of finished files in memory.
        batch_size: most tiles a batch.
    """

    upload_bytes: int = 20_000_000
    pixels: int = 1_200_000
    jobs: int = 8
    kept_bytes: int = 1_000_000_000
    batch_size: int | None = 4


class Draw:
    """``POST /draw``. An ASGI application and no function, so that the place in the queue is held
    exactly as long as the answer runs."""

    def __init__(
        self,
        models: Sequence[ModelSource],
        runtime: Runtime,
        limits: Limits,
        queue: JobQueue,
        kept: KeptFiles,
    ) -> None:
        self.models = {model.name: model for model in models}
        self.default = models[0].name
        self.runtime, self.limits, self.queue, self.kept = runtime, limits, queue, kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            _refuse_foreign(request)
            with self.queue.place() as job:
                work = await self._prepare(job, request)
                answer = StreamingResponse(
                    self._lines(job, work), media_type="application/x-ndjson"
                )
                await answer(scope, receive, send)
        except VdsrError as error:
            await _refusal(error)(scope, receive, send)
        except ClientDisconnect:
            pass

    async def _prepare(self, job: Job, request: Request) -> Callable[[], Drawn]:
        """Everything that can be refused, before the answer begins."""
        query = request.query_params
        wanted = DrawRequest(
            title=query.get("name", "")[:_LONGEST_NAME] or "upload",
            batch_size=self.limits.batch_size,
            **_numbers(query),
        )
        name = query.get("model", self.default)
        if name not in self.models:
            raise UsageError(
                f"this server has no model {name!r}", hint=f"it has {', '.join(self.models)}"
            )
        body = await _receive(request, self.limits.upload_bytes)
        picture = await asyncio.to_thread(
            read_picture, BytesIO(body), max_pixels=self.limits.pixels, name=wanted.title
        )
        return partial(
            draw,
            picture,
            self.models[name],
            wanted,
            self.runtime,
            address=f"results/{job.id}/",
            on_start=job.start,
            on_tiles=job.advance,
        )

    async def _lines(self, job: Job, work: Callable[[], Drawn]) -> AsyncIterator[bytes]:
        """Progress until the work is done, then what came of it; closing it cancels the work."""
        task = asyncio.create_task(self.queue.run(work))
        try:
            while not (await asyncio.wait([task], timeout=_TICK_SECONDS))[0]:
                yield _line(self._progress(job))
            yield _line(self._outcome(job, task))
        finally:
            task.cancel()

    def _progress(self, job: Job) -> dict[str, Any]:
        if job.tiles == 0:
            return {"status": "waiting", "ahead": self.queue.ahead(job)}
        return {"status": "running", "done": job.done, "tiles": job.tiles}

    def _outcome(self, job: Job, task: "asyncio.Task[Drawn]") -> dict[str, Any]:
        try:
            drawn = task.result()
        except VdsrError as error:
            return _failed(error)
        except Cancelled:
            return _failed(DeviceError("the server was stopped"))
        except MemoryError:
            return _failed(DeviceError("there is not enough memory for a picture that large"))
        self.kept.keep(job.id, drawn.files)
        return {"status": "done", "result": drawn.view}


def _refuse_foreign(request: Request) -> None:
    """Browsers name the page that sends; other programs, which have no visitor's trust, do not."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise ForeignOriginError("the request comes from another site's page")


def _numbers(query: QueryParams) -> dict[str, Any]:
    """The numbers of a :class:`DrawRequest` that a query has. Raises UsageError."""
    numbers: dict[str, Any] = {}
    for name, field, kind in _NUMBERS:
        try:
            numbers |= {field: kind(query[name])} if name in query else {}
        except ValueError:
            raise UsageError(f"{name} is no such number: {query[name][:40]!r}") from None
    return numbers


async def _receive(request: Request, most_bytes: int) -> bytes:
    """The body, refused as soon as it is known to be too large.

    Raises:
        InputError: too large, or too slow.
    """
    too_large = UploadTooLargeError(
        f"the upload has more than {most_bytes:,} bytes", hint="--max-upload allows more"
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_UPLOAD_SECONDS):
            async for chunk in request.stream():
                if len(body) + len(chunk) > most_bytes:
                    raise too_large
                body += chunk
    except TimeoutError:
        raise InputError(f"the upload took more than {_UPLOAD_SECONDS} s") from None
    return bytes(body)


def _as_json(error: VdsrError) -> dict[str, Any]:
    return {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}


def _failed(error: VdsrError) -> dict[str, Any]:
    return {"status": "failed", **_as_json(error)}


def _refusal(error: VdsrError) -> JSONResponse:
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, QueueFullError) else None
    return JSONResponse(_as_json(error), _STATUS.get(type(error), 500), headers)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"

"""The endpoint that draws: one request a picture, from its upload to its result.

    POST draw?model=&n=&temperature=&seed=&name=     the body is the picture's file, as it is
      ─► {"status": "waiting", "ahead": 1}           a line several times a second
         {"status": "running", "done": 8, "tiles": 35}
         {"status": "done", "result": ...}           what viewer.js shows; or "failed" and an error
      ─► 4xx, 503: {"error": ..., "hint": ..., "exit_code": ...}

The upload is the body and no form, because parsers of forms put what is large into files. A place
in the queue is taken once it is here, so that a slow one holds up nobody. While the answer runs the
visitor is there; a visitor who leaves has cancelled.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, Final

import torch
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from vdsr_cli.config import parse_temperature
from vdsr_cli.errors import DeviceError, InputError, UnexpectedError, UsageError, VdsrError
from vdsr_cli.images import Picture, read_picture
from vdsr_cli.loading import ModelSource
from vdsr_cli.runtime import Runtime
from vdsr_cli.services.serve import Drawn, DrawRequest, draw, reduced_to
from vdsr_cli.web.connections import client_of
from vdsr_cli.web.jobs import Cancelled, Job, JobQueue, KeptFiles, QueueFullError

_LOG: Final = logging.getLogger("uvicorn.error")
_TICK_SECONDS: Final = 0.25
_UPLOAD_SECONDS: Final = 120
_SILENT_SECONDS: Final = 15
_DECODED_PIXELS: Final = 50_000_000
"""The largest picture that is decoded to be reduced, one at a time: 1.5 GB for a moment."""
_LONGEST_NAME: Final = 200

_NUMBERS: Final = (
    ("n", "samples", int),
    ("temperature", "temperature", parse_temperature),
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
    """Bounds of what one server takes on.

    Attributes:
        upload_bytes: of one picture's file.
        pixels: of one picture as it is drawn; a larger one is reduced to them.
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
        self._decoding = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            _refuse_foreign(request)
            models, wanted = self._wanted(request.query_params)
            client = client_of(request.client)
            self.queue.refuse_if_full(client)
            body = await _receive(request, self.limits.upload_bytes)
            with self.queue.place(client) as job:
                picture = await self._decode(body, wanted.title)
                work = partial(
                    draw,
                    picture,
                    models,
                    wanted,
                    self.runtime,
                    address=f"results/{job.id}/",
                    on_start=job.start,
                    on_tiles=job.advance,
                )
                answer = StreamingResponse(
                    self._lines(job, work), media_type="application/x-ndjson"
                )
                await answer(scope, receive, send)
        except VdsrError as error:
            await _refusal(error)(scope, receive, send)
        except ClientDisconnect:
            pass

    def _wanted(self, query: QueryParams) -> tuple[ModelSource, DrawRequest]:
        """The source of the picture's model, and the settings asked for. Raises UsageError."""
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
        return self.models[name], wanted

    async def _decode(self, body: BytesIO, title: str) -> Picture:
        """The picture, no larger than is drawn; large ones take turns. Raises InputError."""
        most = max(_DECODED_PIXELS, self.limits.pixels)

        def decode() -> Picture:
            picture = read_picture(body, max_pixels=most, name=title)
            return reduced_to(picture, self.limits.pixels)

        async with self._decoding:
            return await asyncio.to_thread(decode)

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
        except (MemoryError, torch.OutOfMemoryError):
            return _failed(DeviceError("there is not enough memory for a picture that large"))
        except Exception as error:  # without a last line, the page takes the server for gone
            _LOG.error("an error of vdsr itself", exc_info=error)
            return _failed(UnexpectedError("the picture", error))
        self.kept.keep(job.id, drawn.files)
        return {"status": "done", "result": drawn.view}


def _refuse_foreign(request: Request) -> None:
    """Browsers name the page that sends; other programs, which have no visitor's trust, do not."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    is_foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host")
    if is_foreign or site not in (None, "same-origin", "none"):
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


async def _receive(request: Request, most_bytes: int) -> BytesIO:
    """The body, refused as soon as it is known to be too large.

    Raises:
        InputError: too large, or too slow.
    """
    too_large = UploadTooLargeError(f"the upload has more than {most_bytes:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most_bytes:
        raise too_large
    body, now = BytesIO(), asyncio.get_running_loop().time
    end = now() + _UPLOAD_SECONDS
    try:
        async with asyncio.timeout(_SILENT_SECONDS) as patience:
            async for chunk in request.stream():
                patience.reschedule(min(end, now() + _SILENT_SECONDS))
                if body.tell() + len(chunk) > most_bytes:
                    raise too_large
                body.write(chunk)
    except TimeoutError:
        raise InputError(
            f"the upload stood still for {_SILENT_SECONDS} s, or took more than {_UPLOAD_SECONDS} s"
        ) from None
    body.seek(0)
    return body


def _as_json(error: VdsrError) -> dict[str, Any]:
    """An error as a visitor sees it, who has no options to give: no word of them."""
    hint = None if error.hint and " --" in f" {error.hint}" else error.hint
    message = str(error).removeprefix("--")
    return {"error": message, "hint": hint, "exit_code": error.exit_code}


def _failed(error: VdsrError) -> dict[str, Any]:
    return {"status": "failed", **_as_json(error)}


def _refusal(error: VdsrError) -> JSONResponse:
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, QueueFullError) else None
    return JSONResponse(_as_json(error), _STATUS.get(type(error), 500), headers)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"

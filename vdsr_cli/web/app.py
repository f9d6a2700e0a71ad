"""The application: the page, the endpoint that draws, the files it has drawn, and who may ask."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vdsr_cli.config import AUTO_MODEL
from vdsr_cli.figures.html_report import embedded_json, viewer_part
from vdsr_cli.loading import ModelSource
from vdsr_cli.runtime import Runtime
from vdsr_cli.services.serve import ARCHIVE, MOST_SAMPLES
from vdsr_cli.web.endpoint import Draw, Limits
from vdsr_cli.web.jobs import JobQueue, KeptFiles
from vdsr_cli.weights import load_records

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def create_app(
    models: Sequence[ModelSource],
    runtime: Runtime,
    limits: Limits,
    *,
    hosts: Sequence[str] = ("*",),
    token: str = "",
    log: Callable[[str], None] = lambda line: None,
) -> Starlette:
    """The application; its ``state.queue`` is the :class:`JobQueue`.

    Args:
        models: to choose from, the first by default.
        hosts: what requests may call this server, so that no other site's name can be pointed at
            it (DNS rebinding); "*" is any.
        token: first part of every path, which who is to be answered has to know; "" for none.
        log: told a line of each request, without its query, which has the picture's name.
    """
    queue, kept = JobQueue(limits.jobs), KeptFiles(limits.kept_bytes)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        queue.close()

    async def result(request: Request) -> Response:
        id, name = request.path_params["result"], request.path_params["name"]
        data = kept.archive(id) if name == ARCHIVE else kept.find(id, name)
        if data is None:
            return Response("this result is gone\n", 404)
        kind = "application/zip" if name == ARCHIVE else "image/png"
        return Response(data, media_type=kind)

    routes = [
        *_page_routes(models, limits),
        Route("/draw", Draw(models, runtime, limits, queue, kept), methods=["POST"]),
        Route("/results/{result}/{name}", result),
    ]
    app = Starlette(
        routes=[Mount(f"/{token}", routes=routes)] if token else routes,
        middleware=[
            Middleware(_RequestLog, log=log),
            Middleware(_SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        ],
        lifespan=lifespan,
    )
    app.state.queue = queue
    return app


def _purpose(model: ModelSource) -> str:
    """The purpose of a model, in a line."""
    if model.name == AUTO_MODEL:
        return "looks at the picture: one model for clean ones, another for noise and compression"
    record = load_records().get(model.name)
    return record.summary if record else ""


def _page_routes(models: Sequence[ModelSource], limits: Limits) -> Iterator[Route]:
    """The page and what it loads, all from memory."""
    own = resources.files(__package__)
    settings = {
        "models": [{"name": m.name, "scale": m.scale, "purpose": _purpose(m)} for m in models],
        "upload_bytes": limits.upload_bytes,
        "most_samples": MOST_SAMPLES,
    }
    page = own.joinpath("page.html").read_text(encoding="utf-8")
    page = page.replace("@VIEWER@", viewer_part("html"))
    page = page.replace("@SETTINGS@", embedded_json(settings))
    yield Route("/", Response(page, media_type="text/html"), methods=["GET"])
    for kind, media_type in (("css", "text/css"), ("js", "text/javascript")):
        for name, text in (
            (f"viewer.{kind}", viewer_part(kind)),
            (f"page.{kind}", own.joinpath(f"page.{kind}").read_text(encoding="utf-8")),
        ):
            yield Route(f"/{name}", Response(text, media_type=media_type), methods=["GET"])


class _SecurityHeaders:
    """Adds ``_HEADERS`` to every response, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, send_more)


class _RequestLog:
    """Tells one line of each request when its answer ends: who, what, status, seconds."""

    def __init__(self, app: ASGIApp, log: Callable[[str], None]) -> None:
        self.app, self.log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def send_more(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, send_more)
        finally:
            client = (scope.get("client") or ["-"])[0]
            what = f"{scope['method']} /{scope['path'].rpartition('/')[2][:40]}"
            self.log(f"{client} {what} {status or '-'} {time.monotonic() - started:.1f} s")

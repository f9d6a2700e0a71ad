"""A web server on this machine that speaks enough of the hub's language for hf_hub_download.

    GET, HEAD  /OWNER/REPO/resolve/REVISION/FILE    a file of the hub: ETag, X-Repo-Commit, and for
                                                    large files a redirect to the second server, as
                                                    the hub redirects to its CDN
    GET, HEAD  /plain/FILE                          a file of any web server: ETag, Range, If-Range

Each path may be given faults, which are used up one by one; every request is kept in ``requests``.
"""

import contextlib
import hashlib
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way in which a server fails at answering one GET.

    Args:
        kind: ``cut`` announces everything and closes after ``at`` bytes; ``short`` announces and
            sends ``at`` bytes only; ``flip`` sends other bytes; ``status`` answers ``at``;
            ``hang`` sends ``at`` bytes and then nothing.
    """

    kind: Literal["cut", "short", "flip", "status", "hang"]
    at: int = 0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request that arrived."""

    method: str
    path: str
    range: str | None
    token: str | None


@dataclass(kw_only=True)
class HubServer:
    """Files that are served, faults to come, and requests so far."""

    url: str = ""
    cdn_url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    faults: defaultdict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    requests: list[Seen] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def publish(self, repo: str, filename: str, data: bytes, *, is_large: bool = True) -> str:
        """Put a file on the hub, at COMMIT and on main; return its hf:// address."""
        for revision in (COMMIT, "main"):
            self.files[f"/{repo}/resolve/{revision}/{filename}"] = data
        if is_large:
            self.files[self.cdn_path(data)] = data
        return f"hf://{repo}@{COMMIT}/{filename}"

    def cdn_path(self, data: bytes) -> str:
        """Where a large file of the hub is really served."""
        return f"/cdn/{hashlib.sha256(data).hexdigest()}"

    def put(self, filename: str, data: bytes) -> str:
        """Put a file on the plain web server; return its address."""
        self.files[f"/plain/{filename}"] = data
        return f"{self.url}/plain/{filename}"

    def fail(self, path: str, *faults: Fault) -> None:
        """Have the next GETs of ``path`` fail, one fault each."""
        self.faults[path].extend(faults)

    @property
    def downloads(self) -> list[Seen]:
        """The requests for the bytes of a file that have arrived, without those redirected."""
        return [
            seen
            for seen in self.requests
            if seen.method == "GET" and seen.path.startswith(("/plain/", "/cdn/"))
        ]


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, by the facts of ``hub``."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None: ...

    def end_headers(self) -> None:
        self.send_header("Connection", "close")
        super().end_headers()

    def _answer(self, *, with_body: bool) -> None:
        self._note()
        queue = self.hub.faults[self.path]
        fault = queue.popleft() if with_body and queue else None
        if self.path in self.hub.errors:
            self._refuse(404, self.hub.errors[self.path])
        elif self.path in self.hub.redirects:
            self._redirect(self.hub.redirects[self.path])
        elif self.path not in self.hub.files:
            self._refuse(404, "EntryNotFound" if "/resolve/" in self.path else "")
        elif fault is not None and fault.kind == "status":
            self._refuse(fault.at, "")
        else:
            self._serve(self.hub.files[self.path], fault, with_body=with_body)

    def _note(self) -> None:
        range_ = self.headers.get("Range")
        token = self.headers.get("Authorization")
        seen = Seen(method=self.command, path=self.path, range=range_, token=token)
        self.hub.requests.append(seen)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _redirect(self, target: str, **headers: str) -> None:
        self.send_response(302)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _serve(self, data: bytes, fault: Fault | None, *, with_body: bool) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        is_large = self.hub.cdn_path(data) in self.hub.files
        if is_large and "/resolve/" in self.path:
            self._redirect(
                self.hub.cdn_url + self.hub.cdn_path(data),
                X_Repo_Commit=COMMIT,
                X_Linked_ETag=f'"{sha256}"',
                X_Linked_Size=str(len(data)),
            )
            return
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        start = self._start(etag, len(data))
        self._send(data[start:], start, len(data), etag, fault, with_body=with_body)

    def _start(self, etag: str, size: int) -> int:
        """The first byte that is asked for: of Range, unless If-Range names another version."""
        condition = self.headers.get("If-Range", etag)
        text = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=")
        start = int(text.partition("-")[0])
        return start if condition == etag and start < size else 0

    def _send(
        self,
        body: bytes,
        start: int,
        total: int,
        etag: str,
        fault: Fault | None,
        *,
        with_body: bool,
    ) -> None:
        kind, at = (fault.kind, fault.at) if fault else (None, 0)
        if kind == "short":
            body, total = body[:at], at
        if kind == "flip":
            body = bytes([body[0] ^ 0xFF]) + body[1:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", etag)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        if with_body:
            self.wfile.write(body[:at] if kind in {"cut", "hang"} else body)
            self.wfile.flush()
        if kind == "hang":
            self.hub.closing.wait(30)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


@contextlib.contextmanager
def serve_hub() -> Iterator[HubServer]:
    """Run the hub and its CDN on two free ports of 127.0.0.1."""
    hub = HubServer()
    with contextlib.ExitStack() as stack:
        hub.url = stack.enter_context(_running(hub))
        hub.cdn_url = stack.enter_context(_running(hub))
        try:
            yield hub
        finally:
            hub.closing.set()


@contextlib.contextmanager
def _running(hub: HubServer) -> Iterator[str]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()

"""Downloads over https that resume: GET with Range into a ``.part`` file, hashed on the way.

    .part       .part.json                       request                     answer
    -----       ----------                       -------                     ------
    none        none                             GET                         200  write from 0
    n bytes     etag and total of those bytes    GET, Range n-, If-Range     206  append
                                                                             200  changed: from 0
    total       the same                         none                             hash and return

A connection that breaks or stalls is taken up again after a pause, a few times; what has arrived
stays in the ``.part`` file for the next run. Whether the whole is the right file is for the caller
to judge, by the hash that :func:`fetch` returns.
"""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from vdsr_cli import __version__
from vdsr_cli.errors import WeightsError
from vdsr_cli.files import write_text_atomic
from vdsr_cli.weights.cache import cache_errors
from vdsr_cli.weights.sources import check_url

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and the bytes to come in all, None if unknown."""

CHUNK_BYTES = 1 << 20
MAX_BYTES = 1 << 36
MAX_TRIES = 50
MAX_PAUSE_S = 8.0
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for a server.

    Args:
        timeout_s: for a connection, and for each next byte.
        tries: how many times in a row may bring nothing before the download is given up.
        backoff_s: the first pause between two tries; each next one is twice as long.
    """

    timeout_s: float = 10.0
    tries: int = 4
    backoff_s: float = 0.5

    @classmethod
    def from_environment(cls) -> "Patience":
        """The defaults, with the timeout of HF_HUB_DOWNLOAD_TIMEOUT where that is set."""
        seconds = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "")
        return cls(timeout_s=float(seconds)) if seconds.isdecimal() and int(seconds) else cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A complete download: the hash and the size of the ``.part`` file."""

    sha256: str
    size_bytes: int


class _TransientError(Exception):
    """The download broke off in a way that another try may mend."""


class _Partial:
    """The ``.part`` file: its bytes, their running hash, and the version they belong to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes = path.with_name(path.name + ".json")
        self.etag: str | None = None
        self.total: int | None = None
        self.size = 0
        self.digest = hashlib.sha256()
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        with cache_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._read_notes()
            self._read_bytes()
            self._file = self.path.open("ab" if self.etag else "wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if error is not None and not (self.etag and self.size):
            discard(self.path)  # nothing that could be gone on with

    def close(self) -> None:
        """Let go of the file; what is in it stays."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    @property
    def is_complete(self) -> bool:
        """Whether every byte that was announced is here."""
        return self.total is not None and self.size == self.total

    def restart(self, *, etag: str | None, total: int | None) -> None:
        """Forget what is here: the bytes of another version follow."""
        with cache_errors(self.path):
            self._open_file.seek(0)
            self._open_file.truncate()
            self.size, self.etag, self.total = 0, etag, total
            self.digest = hashlib.sha256()
            write_text_atomic(self.notes, json.dumps({"etag": etag, "total": total}))
        self._check_room()

    def append(self, chunk: bytes) -> None:
        """Add the bytes that came next."""
        with cache_errors(self.path):
            self._open_file.write(chunk)
            self._open_file.flush()
        self.digest.update(chunk)
        self.size += len(chunk)

    @property
    def _open_file(self) -> BinaryIO:
        assert self._file is not None, "used outside its with block"
        return self._file

    def _read_notes(self) -> None:
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
            etag, total = notes["etag"], notes["total"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return
        if isinstance(etag, str) and isinstance(total, int):
            self.etag, self.total = etag, total

    def _read_bytes(self) -> None:
        """Hash the bytes that are here, if their notes say what they are of."""
        if self.etag is None or not self.path.is_file():
            self.etag = self.total = None
            return
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                self.digest.update(chunk)
                self.size += len(chunk)
        if self.total is not None and self.size > self.total:
            self.etag = self.total = None

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if self.total is not None and self.total > free:
            raise WeightsError(
                f"the download takes {self.total} bytes, the disk of {self.path.parent} has {free}",
                hint="free some space, or set VDSR_HOME to a folder that has it",
            )


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a download could have started."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: object,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def fetch(
    url: str,
    part: Path,
    *,
    expected_bytes: int | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Fetched:
    """Download ``url`` to the file ``part``, going on from where an earlier run broke off.

    On failure ``part`` stays for the next run, unless the server offers another size than
    ``expected_bytes``. Raises WeightsError.
    """
    check_url(url)
    patience = Patience.from_environment() if patience is None else patience
    failures, problem = 0, ""
    with _Partial(part) as partial:
        for _ in range(MAX_TRIES):
            before = partial.size
            try:
                _pull(url, partial, expected_bytes, progress, patience.timeout_s)
                return Fetched(sha256=partial.digest.hexdigest(), size_bytes=partial.size)
            except _TransientError as error:
                problem = str(error)
            failures = 0 if partial.size > before else failures + 1
            if failures >= patience.tries:
                break
            time.sleep(min(patience.backoff_s * 2**failures, MAX_PAUSE_S))
        at = f" after {partial.size} of {partial.total} bytes" if partial.size else ""
    raise WeightsError(
        f"the download of {url} failed{at}: {problem}",
        hint="check the connection and run the command again: it goes on where it stopped",
    )


def discard(part: Path) -> None:
    """Remove a ``.part`` file and its notes, so that the next run starts anew."""
    with cache_errors(part):
        part.unlink(missing_ok=True)
        part.with_name(part.name + ".json").unlink(missing_ok=True)


def _pull(
    url: str,
    partial: _Partial,
    expected_bytes: int | None,
    progress: Progress | None,
    timeout_s: float,
) -> None:
    """Make one request and take what it brings. Raises _TransientError where that is not all."""
    if partial.is_complete:
        return
    with _open(_request(url, partial), partial, timeout_s) as response:
        _agree(response, partial)
        _check_size(url, partial, expected_bytes)
        for chunk in _chunks(response, partial):
            partial.append(chunk)
            if progress is not None:
                progress(partial.size, partial.total)
    if partial.total is None:
        partial.total = partial.size
    _check_size(url, partial, expected_bytes)
    if not partial.is_complete:
        raise _TransientError("the server closed the connection early")


def _request(url: str, partial: _Partial) -> urllib.request.Request:
    headers = {"Accept-Encoding": "identity", "User-Agent": f"vdsr/{__version__}"}
    if partial.size and partial.etag:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.etag}
    return urllib.request.Request(url, headers=headers)


def _open(
    request: urllib.request.Request, partial: _Partial, timeout_s: float
) -> http.client.HTTPResponse:
    """Send a request and return its answer, of status 200 or 206."""
    opener = urllib.request.build_opener(_CheckedRedirects)
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.restart(etag=None, total=None)
        elif error.code not in _TRANSIENT:
            raise _refusal(request.full_url, error.code) from error
        raise _TransientError(f"the server answered {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _network_error(request.full_url, error) from error
    return response


def _refusal(url: str, status: int) -> WeightsError:
    """The error of a server that answers, and does not give the file."""
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        return WeightsError(
            f"there is no file at {url} ({status})",
            hint="a newer vdsr-cli may know where it went; else give the file's own path",
        )
    return WeightsError(f"the server refuses {url} ({status})")


def _network_error(url: str, error: Exception) -> Exception:
    """What to raise for a failure of the network: transient, unless a certificate is wrong."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return WeightsError(
            f"the certificate of {url} cannot be verified: {reason.verify_message}",
            hint="set SSL_CERT_FILE to the certificates of your network, if it inspects traffic",
        )
    return _TransientError(str(reason) or type(reason).__name__)


def _agree(response: http.client.HTTPResponse, partial: _Partial) -> None:
    """Settle which bytes follow: the next ones, or another version from its start."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise WeightsError(f"{response.url} is sent compressed, which was not asked for")
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        expected = f"bytes {partial.size}-"
        found = response.headers.get("Content-Range", "")
        if not found.startswith(expected) or found.rpartition("/")[2] != str(partial.total):
            partial.restart(etag=None, total=None)
            raise _TransientError("the server sent another part than was asked for")
        return
    etag = response.headers.get("ETag", "")
    length = response.headers.get("Content-Length", "")
    is_strong = etag.startswith('"')
    partial.restart(
        etag=etag if is_strong else None, total=int(length) if length.isdecimal() else None
    )


def _check_size(url: str, partial: _Partial, expected_bytes: int | None) -> None:
    """Refuse a file of another size than expected, or of none that a model could have."""
    found = partial.size if partial.total is None else partial.total
    is_wrong = expected_bytes is not None and partial.total not in {None, expected_bytes}
    if is_wrong or found > (expected_bytes or MAX_BYTES):
        partial.close()
        discard(partial.path)
        raise WeightsError(
            f"{url} has {found} bytes, not the {expected_bytes or MAX_BYTES} that are allowed",
            hint="the file was replaced or cut short on its server: report it, do not use it",
        )


def _chunks(response: http.client.HTTPResponse, partial: _Partial) -> Iterator[bytes]:
    """Read an answer as it arrives, up to the announced end."""
    while not partial.is_complete:
        room = CHUNK_BYTES if partial.total is None else partial.total - partial.size
        try:
            chunk = response.read1(min(CHUNK_BYTES, room))
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(str(error) or type(error).__name__) from error
        if not chunk:
            return
        if partial.total is None and partial.size > MAX_BYTES:
            raise WeightsError(f"{response.url} does not end")
        yield chunk

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

import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from vdsr_cli import __version__
from vdsr_cli.errors import WeightsError
from vdsr_cli.weights.partial import CHUNK_BYTES, PartialFile, discard
from vdsr_cli.weights.sources import check_url

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and the bytes to come in all, None if unknown."""

MAX_BYTES = 1 << 36
MAX_TRIES = 50
MAX_PAUSE_S = 8.0
_MAX_DIGITS = 18
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
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
class Download:
    """A file to fetch.

    Args:
        url: where it is.
        size_bytes: its size, if known; another is refused before any byte is read.
        allow_http: take plain http too, for a mirror that the user has named.
    """

    url: str
    size_bytes: int | None = None
    allow_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A complete download: the hash and the size of the ``.part`` file."""

    sha256: str
    size_bytes: int


class _TransientError(Exception):
    """The download broke off in a way that another try may mend."""


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a download could have started."""

    def __init__(self, *, allow_http: bool) -> None:
        self.allow_http = allow_http

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: object,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        check_url(newurl, allow_http=self.allow_http)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def fetch(
    download: Download,
    part: Path,
    *,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Fetched:
    """Download to the file ``part``, going on from where an earlier run broke off.

    On failure ``part`` stays for the next run, if that can resume it. Raises WeightsError.
    """
    check_url(download.url, allow_http=download.allow_http)
    patience = Patience.from_environment() if patience is None else patience
    failures, problem = 0, ""
    with PartialFile(part) as partial:
        for _ in range(MAX_TRIES):
            before = partial.size
            try:
                _pull(download, partial, progress, patience.timeout_s)
                return Fetched(sha256=partial.digest.hexdigest(), size_bytes=partial.size)
            except _TransientError as error:
                problem = str(error)
            failures = 0 if partial.size > before else failures + 1
            if failures >= patience.tries:
                break
            time.sleep(min(patience.backoff_s * 2**failures, MAX_PAUSE_S))
        at = f" after {partial.size} of {partial.total} bytes" if partial.size else ""
        raise WeightsError(
            f"the download of {download.url} failed{at}: {problem}",
            hint="check the connection and run the command again: it goes on where it stopped",
        )


def _pull(
    download: Download, partial: PartialFile, progress: Progress | None, timeout_s: float
) -> None:
    """Make one request and take what it brings. Raises _TransientError where that is not all."""
    if partial.is_complete:
        return
    with _open(download, partial, timeout_s) as response:
        _agree(response, partial)
        _check_size(download, partial)
        for chunk in _chunks(response, partial):
            partial.append(chunk)
            _check_size(download, partial)
            if progress is not None:
                progress(partial.size, partial.total)
    if partial.total is None:
        partial.total = partial.size
        _check_size(download, partial)
    if not partial.is_complete:
        raise _TransientError("the server closed the connection early")


def _request(download: Download, partial: PartialFile) -> urllib.request.Request:
    headers = {"Accept-Encoding": "identity", "User-Agent": f"vdsr/{__version__}"}
    if partial.size and partial.etag:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.etag}
    return urllib.request.Request(download.url, headers=headers)


def _open(download: Download, partial: PartialFile, timeout_s: float) -> http.client.HTTPResponse:
    """Send a request and return its answer, of status 200 or 206."""
    redirects = _CheckedRedirects(allow_http=download.allow_http)
    opener = urllib.request.build_opener(redirects)
    try:
        response: http.client.HTTPResponse = opener.open(
            _request(download, partial), timeout=timeout_s
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.restart(etag=None, total=None)
        elif error.code not in _TRANSIENT:
            raise _refusal(download.url, error.code) from error
        raise _TransientError(f"the server answered {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _network_error(download.url, error) from error
    except ValueError as error:
        raise WeightsError(f"{download.url} redirects to what is no address: {error}") from error
    return response


def _refusal(url: str, status: int) -> WeightsError:
    """The error of a server that answers, and does not give the file."""
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        return WeightsError(
            f"there is no file at {url} ({status})",
            hint="a newer vdsr-cli may know where it went; else give the file's own path",
        )
    if status in _REDIRECTS:
        return WeightsError(f"the server redirects {url} without end ({status})")
    return WeightsError(f"the server refuses {url} ({status})")


def _network_error(url: str, error: Exception) -> Exception:
    """The error for a failure of the network: transient, unless a certificate is wrong."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return WeightsError(
            f"the certificate of {url} cannot be verified: {reason.verify_message}",
            hint="set SSL_CERT_FILE to the certificates of your network, if it inspects traffic",
        )
    return _TransientError(_in_words(reason))


def _in_words(error: object) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def _agree(response: http.client.HTTPResponse, partial: PartialFile) -> None:
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
    is_length = length.isdecimal() and len(length) <= _MAX_DIGITS
    partial.restart(etag=etag if is_strong else None, total=int(length) if is_length else None)


def _check_size(download: Download, partial: PartialFile) -> None:
    """Refuse a file of another size than expected, or of none that a model could have."""
    found = partial.size if partial.total is None else partial.total
    is_wrong = download.size_bytes is not None and partial.total not in {None, download.size_bytes}
    if not is_wrong and found <= (download.size_bytes or MAX_BYTES):
        return
    partial.close()
    discard(partial.path)
    raise WeightsError(
        f"{download.url} has {found} bytes, not the {download.size_bytes or MAX_BYTES} allowed",
        hint="the file was replaced or cut short on its server: report it, do not use it",
    )


def _chunks(response: http.client.HTTPResponse, partial: PartialFile) -> Iterator[bytes]:
    """Read an answer as it arrives, up to the announced end."""
    while not partial.is_complete:
        room = CHUNK_BYTES if partial.total is None else partial.total - partial.size
        try:
            chunk = response.read1(min(CHUNK_BYTES, room))
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(_in_words(error)) from error
        if not chunk:
            return
        yield chunk

"""`vdsr serve` with clients that are silent, slow, deaf, foreign or nonsensical."""

import contextlib
import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from runner import Trial, fault

REQUESTS = 1000


@contextmanager
def served(trial: Trial, *words: object) -> Iterator[str]:
    """The address of a server; it has to end by Ctrl-C, whatever was done to it."""
    log = (trial.folder / "log").open("wb")
    child = trial.start("serve", "--port", 0, "-m", trial.model, *words, stderr=log)
    assert child.stdout is not None
    yield child.stdout.readline().decode().strip()
    trial.kill(child.pid, signal.SIGINT)
    ended = trial.end(child)
    trial.expect(ended.code == 130, f"exit code {ended.code}", kind="codes")
    log.close()
    said = (trial.folder / "log").read_text(errors="replace")
    trial.expect("Traceback" not in said, said[-300:], kind="tracebacks")


def connect(address: str, data: bytes = b"") -> socket.socket:
    """A connection to a server, some bytes sent."""
    parts = urlsplit(address)
    made = socket.create_connection((parts.hostname, parts.port), timeout=60)
    made.sendall(data)
    return made


def status(address: str, path: str = "", *, data: bytes | None = None, **headers: str) -> int:
    """The status that answers a request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(address + path, data=data, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@fault("serve: 63 silent connections, then 63 slow uploads", times=3)
def slow_clients(trial: Trial) -> None:
    photo = trial.picture("a.png").read_bytes()
    upload = b"POST /draw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\nx"
    with served(trial, "--queue", 4) as address:
        for held in (b"", b"GET / HT", upload):
            with contextlib.ExitStack() as slow:
                for _ in range(63):
                    slow.enter_context(connect(address, held))
                trial.expect(status(address) == 200, f"the page, behind 63 of {held[:8]!r}")
                drawn = status(address, "draw?n=1", data=photo)
                trial.expect(drawn == 200, f"a picture, behind 63 of {held[:8]!r}: {drawn}")


@fault("serve: requests of other sites' pages")
def foreign_pages(trial: Trial) -> None:
    photo = trial.picture("a.png").read_bytes()
    with served(trial) as address:
        for origin in ("http://[", "null", "http://evil.example", "http://[::1", "\xff", "//"):
            found = status(address, "draw?n=1", data=photo, origin=origin)
            trial.expect(found == 403, f"Origin {origin}: {found}")
        found = status(address, "draw?n=1", data=photo, sec_fetch_site="cross-site")
        trial.expect(found == 403, f"Sec-Fetch-Site: {found}")
        found = status(address, host="evil.example")
        trial.expect(found == 400, f"Host: {found}")
    with served(trial, "--host", "0.0.0.0") as address:
        parts = urlsplit(address)
        bare = f"http://127.0.0.1:{parts.port}"
        found = status(bare, "/draw?n=1", data=photo)
        trial.expect(found == 404, f"without the token: {found}")
        found = status(bare, f"{parts.path}draw?n=1", data=photo)
        trial.expect(found == 200, f"with the token: {found}")


PIECES = (
    b"GET ", b"POST ", b"PUT ", b"/", b"/draw", b"/draw?n=", b"?seed=", b"9" * 50, b"\xff", b"%00",
    b" HTTP/1.1", b" HTTP/9", b"\r\n", b"\n", b"\r\n\r\n", b"Host: localhost", b"Host: [", b"Host:",
    b"Origin: http://[", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 9" * 3,
    b"Transfer-Encoding: chunked", b"fffffffff", b"0", b"Expect: 100-continue", b"a" * 9000,
    b"Upgrade: websocket", b"Connection: upgrade", b"\x16\x03\x01", b"\0", b": ", b"results/x/y",
)  # fmt: skip


@fault(f"serve: {REQUESTS:,} raw requests of pieces")
def raw_requests(trial: Trial) -> None:
    with served(trial) as address:
        for _ in range(REQUESTS):
            pieces = [trial.chance.choice(PIECES) for _ in range(trial.chance.randrange(1, 14))]
            if trial.chance.random() < 0.7:
                pieces = [b"POST ", b"/draw?n=", b" HTTP/1.1", b"\r\n", *pieces, b"\r\n\r\n"]
            with contextlib.suppress(OSError), connect(address, b"".join(pieces)) as made:
                made.shutdown(socket.SHUT_WR)
                made.settimeout(5)
                answer = made.recv(65536)
                is_ours = b" 500 " not in answer.split(b"\r\n")[0]
                trial.expect(is_ours, f"{pieces}: {answer[:80]!r}")
        trial.expect(status(address) == 200, "the page afterwards")


@fault("serve: options of anything")
def odd_options(trial: Trial) -> None:
    for words in (
        *(("--max-upload", number) for number in ("inf", "nan", "1e308", "-1")),
        *(("--keep", number) for number in ("inf", "nan", "1e308", "-1")),
        *(
            ("--host", name)
            for name in ("", ".", "a..b", "x" * 300, "fe80::1%lo", "[::1]", "\udcff")
        ),
    ):
        ended = trial.vdsr("serve", "--port", 0, "-m", trial.model, *words)
        trial.expect(ended.code == 2, f"{words}: exit code {ended.code}")


@fault("serve: a photograph of 12 megapixels")
def phone_photograph(trial: Trial) -> None:
    photo = trial.picture("a.jpg", 4032, 3024).read_bytes()
    with served(trial, "--max-pixels", 40_000) as address:
        request = urllib.request.Request(f"{address}draw?n=2", data=photo)
        with urllib.request.urlopen(request, timeout=600) as answer:
            last = json.loads(answer.read().splitlines()[-1])
    trial.expect(last["status"] == "done", f"{last.get('error')}")

"""Servers that answer nonsense: one line of a WeightsError, nothing kept, never a traceback.

Servers that hang, cut, change the bytes or are out of breath: tests/weights.
"""

import hashlib
import os
import shutil
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vdsr_cli import weights
from vdsr_cli.errors import WeightsError
from vdsr_cli.files import atomic_path, remove_leftovers
from vdsr_cli.weights import cache, fetch
from vdsr_cli.weights.fetch import Download, Patience
from vdsr_cli.weights.sources import parse_source

HASTE = Patience(timeout_s=0.5, tries=2, backoff_s=0.0)


@pytest.fixture(scope="module")
def server():
    """A server that answers every request with ``server.answer``, a function of the request."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                line = self.rfile.readline()
                if not line:
                    return
                request += line
            self.wfile.write(self.server.answer(request))

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

        def handle_error(self, request, client_address) -> None:
            """A client that hangs up is no news."""

    with Server(("127.0.0.1", 0), Handler) as running:
        running.url = f"http://127.0.0.1:{running.server_address[1]}/m.safetensors"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """``get(answer)``: the message with which a download of those bytes is refused, or None."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "MAX_PAUSE_S", 0.0)

    def run(answer) -> str | None:
        server.answer = answer if callable(answer) else lambda request: answer
        part = tmp_path / "x.part"
        try:
            fetch.fetch(Download(url=server.url), part, patience=HASTE)
        except WeightsError as error:
            assert "\n" not in str(error)
            assert not part.exists() or part.stat().st_size < 1000
            return str(error)
        finally:
            for path in tmp_path.glob("x.part*"):
                path.unlink()
        return None

    return run


ANSWERS = {
    "without end (302)": b"HTTP/1.1 302 Found\r\nLocation: /m.safetensors\r\n\r\n",
    "no address": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
    "https only": b"HTTP/1.1 302 Found\r\nLocation: ftp://host.org/a\r\n\r\n",
    "sent compressed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
    "bytes, the disk": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 17 + b"\r\n\r\nab",
    "closed the connection early": b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nab",
    "failed": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
    "another part": b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 7-9/3\r\n\r\nab",
    "answered 503": b"HTTP/1.1 503 Busy\r\n\r\n",
    "refuses": b"HTTP/1.1 451 No\r\n\r\n",
    "failed: ": b"\x16\x03\x01 this is no HTTP",
}


@pytest.mark.parametrize("problem", ANSWERS)
def test_nonsense_is_one_line(get, problem):
    assert problem in get(ANSWERS[problem])


def test_a_length_of_too_many_digits_is_no_length(get):
    """Python refuses to read numbers of more than 4300 digits."""
    assert get(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nab") is None


FIELDS = st.sampled_from(
    [b"Content-Length", b"Content-Range", b"ETag", b"Location", b"Content-Encoding",
     b"Transfer-Encoding", b"Content-Type", b"Connection"]
)  # fmt: skip
TEXTS = st.one_of(
    st.binary(max_size=12), st.integers(-3, 2**70).map(lambda n: str(n).encode()),
    st.sampled_from([b"chunked", b"identity", b'"a"', b"bytes 0-1/2", b"/", b"http://[", b"//"]),
)  # fmt: skip


@given(
    st.sampled_from([b"200", b"206", b"301", b"307", b"308", b"416", b"429", b"500", b"999", b"1"]),
    st.lists(st.tuples(FIELDS, TEXTS), max_size=4),
    st.binary(max_size=20),
)
@example(b"200", [(b"Content-Length", b"\xb2")], b"ab")
def test_any_answer(get, status, fields, body):
    lines = [b"HTTP/1.1 " + status + b" x", *(name + b": " + text for name, text in fields)]
    get(b"\r\n".join([*lines, b"", body]))


# The cache


def sound_file() -> bytes:
    card = b'{"__metadata__": {"vdsr": "{\\"architecture\\": \\"a\\", \\"config\\": {}}"}}'
    return len(card).to_bytes(8, "little") + card


def test_a_cache_entry_of_anything(server, tmp_path, monkeypatch):
    """Receipts, files and notes that make no sense are replaced, whatever they are."""
    monkeypatch.setenv("VDSR_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    data = sound_file()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    server.answer = lambda request: head + data
    address = f"{server.url}#sha256={hashlib.sha256(data).hexdigest()}"
    entry = cache.entry_for(parse_source(address))
    for junk in (b"", b"\xff\xfe", b"null", b"[1]", b'{"etag": 3}', b"[" * 9000, data[:-1]):
        for path in (entry.receipt_path, entry.file, entry.part, entry.notes):
            entry.folder.mkdir(exist_ok=True)
            entry.file.unlink(missing_ok=True)
            path.write_bytes(junk)
            assert weights.resolve(address).path.read_bytes() == data
    names = {path.suffix for path in entry.folder.iterdir()}
    assert names == {".safetensors", ".json", ".lock"}


def test_what_a_killed_conversion_left_goes_with_the_next(tmp_path, monkeypatch, kill_writer):
    """But not what another entry's writer is at."""
    monkeypatch.setenv("VDSR_HOME", str(tmp_path))
    ours, other = (cache.entry_of_conversion(Path(name), "0" * 64) for name in ("a.th", "b.th"))
    ours.folder.mkdir()
    with atomic_path(other.file) as busy:
        busy.write_bytes(b"at work")
        for path in (ours.file, ours.receipt_path):
            kill_writer(path)
        assert len(list(ours.folder.glob(".vdsr-*"))) == 3
        with ours.locked():
            assert list(ours.folder.glob(".vdsr-*")) == [busy]
        remove_leftovers(tmp_path / "no" / "such" / "file")
    assert other.file.read_bytes() == b"at work"


READ_ONLY = """
import sys
from vdsr_cli.cli.app import main
sys.argv = ["vdsr", "weights", "download", sys.argv[1]]
main()
"""


def test_4_a_cache_that_is_read_only(server, tmp_path):
    """For root too, once it has given up what lets it write everywhere."""
    command = [sys.executable, "-c", READ_ONLY, f"{server.url}#sha256={'0' * 64}"]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv")
        gone = "-dac_override,-dac_read_search"
        command = ["setpriv", "--bounding-set", gone, "--inh-caps", gone, *command]
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    environment = {**os.environ, "VDSR_HOME": str(home), "no_proxy": "*", "HF_HUB_OFFLINE": "0"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 4, ended.stderr
    assert "Permission denied" in ended.stderr and "VDSR_HOME" in ended.stderr
    assert "Traceback" not in ended.stderr and list(home.iterdir()) == []

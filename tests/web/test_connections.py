"""A server on a real socket: whoever holds it up is closed, and nobody else."""

import contextlib
import socket
import threading
import time

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")

from gated_model import loaded

from vdsr_cli.runtime import choose_runtime
from vdsr_cli.web import connections
from vdsr_cli.web.app import create_app
from vdsr_cli.web.connections import MOST_CONNECTIONS, client_of
from vdsr_cli.web.endpoint import Limits
from vdsr_cli.web.server import listen, make_server, trusted_hosts


@pytest.fixture
def connect(tiny_model):
    """``connect(data)``: a connection to a server, data sent."""
    with listen("127.0.0.1", 0) as sock, contextlib.ExitStack() as closing:
        runtime = choose_runtime("cpu", "float32")
        app = create_app([loaded(tiny_model)], runtime, Limits(), hosts=trusted_hosts(sock))
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()

        def connect(data: bytes = b"") -> socket.socket:
            made = closing.enter_context(socket.create_connection(sock.getsockname(), timeout=20))
            made.sendall(data)
            return made

        connect.server = server
        yield connect
        closing.close()
        server.should_exit = True
        thread.join(30)


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPLOAD = b"POST /draw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\nx"


def answer(connection) -> bytes:
    """The first bytes that come; none where the server has closed the connection."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(12)
    return b""


@pytest.mark.parametrize("held", [b"", b"GET / HT", UPLOAD])
def test_as_many_as_there_may_be_hold_up_nobody(connect, held):
    slow = [connect(held) for _ in range(MOST_CONNECTIONS)]
    assert answer(connect(GET)) == b"HTTP/1.1 200"
    assert answer(slow[0]) == b""
    slow[-1].setblocking(False)
    with pytest.raises(BlockingIOError):
        slow[-1].recv(1)


@pytest.mark.parametrize("closing", [b"", b"Connection: close\r\n"])
def test_a_refusal_reaches_who_sends_on(connect, closing):
    body = bytes(4_000_000)
    head = b"POST /draw?temperature=nan HTTP/1.1\r\nHost: localhost\r\n" + closing
    sender = connect(head + b"Content-Length: %d\r\n\r\n" % len(body))
    sender.sendall(body)
    assert answer(sender) == b"HTTP/1.1 400"


def test_who_sends_on_after_the_answer_is_closed(connect, monkeypatch):
    monkeypatch.setattr(connections, "_LINGER_SECONDS", 0.2)
    closing = UPLOAD.replace(b"Content", b"Connection: close\r\nContent")
    sender = connect(closing.replace(b"/draw", b"/draw?n=x"))
    assert answer(sender) == b"HTTP/1.1 400"
    until = time.monotonic() + 20
    with pytest.raises(OSError):
        while time.monotonic() < until:
            sender.sendall(b"x")
            time.sleep(0.01)


def test_the_head_of_a_request_has_its_time(connect, monkeypatch):
    """Also of a second one, a byte now and then; a whole one may be worked on for longer."""
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.2)
    silent, slow, second = connect(), connect(b"GET / HT"), connect(GET)
    assert answer(second) == b"HTTP/1.1 200"
    upload = connect(UPLOAD)
    assert answer(silent) == answer(slow) == b""
    while second.recv(65536)[-8:] != b"</html>\n":
        pass
    with contextlib.suppress(OSError):
        for byte in GET * 10:
            second.sendall(bytes([byte]))
            time.sleep(0.02)
        pytest.fail("the server waits")
    upload.setblocking(False)
    with pytest.raises(BlockingIOError):
        upload.recv(1)


def test_an_answer_that_is_not_taken_is_dropped(connect, monkeypatch):
    monkeypatch.setattr(connections, "_STALL_SECONDS", 0.1)
    connect(GET.replace(b"GET / ", b"GET /viewer.js ") * 2000)
    until = time.monotonic() + 20
    while (
        connect.server.server_state.total_requests == 0 or connect.server.server_state.connections
    ):
        assert time.monotonic() < until, "the server waits"
        time.sleep(0.01)


def test_clients_are_machines_but_for_this_one():
    assert client_of(("10.0.0.1", 5)) == "10.0.0.1"
    assert client_of(("127.0.0.1", 5)) is client_of(("::1", 5)) is client_of(None) is None

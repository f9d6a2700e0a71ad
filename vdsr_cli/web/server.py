"""The socket, and uvicorn on it."""

import ipaddress
import socket
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from vdsr_cli.errors import UsageError
from vdsr_cli.web.connections import MOST_CONNECTIONS, Connection

_SECONDS_TO_FINISH = 10
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one.

    Raises:
        UsageError: there is no such address here, or it is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no name of a machine"
        raise UsageError(
            f"cannot listen on {host}, port {port}: {reason}",
            hint="--port 0 takes a free port",
        ) from error


def address_of(sock: socket.socket, token: str = "") -> str:
    """Where a browser on this machine finds the server, also one that listens at every address."""
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    path = f"{token}/" if token else ""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/{path}"


def is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return ipaddress.ip_address(sock.getsockname()[0]).is_loopback


def trusted_hosts(sock: socket.socket) -> tuple[str, ...]:
    """The names by which requests may call this server: on loopback only names of loopback."""
    if not is_loopback(sock):
        return ("*",)
    return (*_LOCAL_NAMES, sock.getsockname()[0])


class _Server(uvicorn.Server):
    """On Ctrl-C the work ends with its batch; uvicorn alone would wait for all of it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.queue.cancel_all()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def make_server(app: Starlette) -> uvicorn.Server:
    """Serves with ``run(sockets=[...])`` until Ctrl-C, which it raises as KeyboardInterrupt."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=2 * MOST_CONNECTIONS,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
    )
    return _Server(config)

"""Connections that have to get somewhere: uvicorn alone waits for a client without end."""

import asyncio
import ipaddress
import math
import time
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS: Final = 64
"""The most of all clients together."""
_MOST_OF_A_MACHINE: Final = 16
_HEAD_SECONDS: Final = 10.0
"""How long the head of a request may take."""
_STALL_SECONDS: Final = 30.0
"""How long nothing of an answer may be taken."""
_LINGER_SECONDS: Final = 5.0
"""How long a client may go on sending a request that has been answered and is not kept alive."""
_UNKNOWN: Final = 2**63


class _Lingering:
    """A transport that reads on, for a while, where it is closed on an unfinished request: a socket
    closed on unread bytes resets the connection, and the client may lose the answer."""

    def __init__(self, transport: asyncio.Transport, connection: "Connection") -> None:
        self._transport, self._connection = transport, connection
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Says that no more is coming, and leaves the rest to the client or the clock."""
        if self.lingers or self._connection.conn.their_state is not h11.SEND_BODY:
            self._transport.close()
        elif not self._transport.is_closing():
            self.lingers = True
            self._transport.write_eof()
            self._connection.loop.call_later(_LINGER_SECONDS, self._transport.abort)


class Connection(H11Protocol):
    """A connection that is closed when it takes too long over the head of a request, or takes
    nothing of an answer any more; or, when there are too many, brings its request slowest."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._since, self._arrived, self._unsent = time.monotonic(), 0, 0

    @property
    def is_waited_for(self) -> bool:
        """Whether the client has still to bring the next request, or the rest of this one."""
        return self._is_idle or self.cycle.more_body

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def pace(self) -> tuple[float, float]:
        """Bytes a second of the request that is waited for, which has a second to begin; of equal
        ones the later has more."""
        seconds = time.monotonic() - self._since
        return self._arrived / seconds if seconds > 1 else math.inf, self._since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Makes room, if need be, by closing the slowest of those that are waited for."""
        super().connection_made(_Lingering(transport, self))  # type: ignore[arg-type]
        self._watch(_HEAD_SECONDS)
        others = [c for c in self.connections if isinstance(c, Connection) and c is not self]
        same = [c for c in others if _is_of_one_machine(c.client, self.client)]
        crowd = same if len(same) >= _MOST_OF_A_MACHINE else others
        if crowd is same or len(others) + 1 >= MOST_CONNECTIONS:
            waiting = [other for other in crowd if other.is_waited_for]
            min(waiting, key=lambda other: other.pace, default=self).drop()

    def data_received(self, data: bytes) -> None:
        """Stops the clock once the head of a request is here."""
        if self.transport.lingers:  # type: ignore[attr-defined]
            return
        if self._is_idle and self._timer is None:
            self._since = time.monotonic()
            self._watch(_HEAD_SECONDS)
        self._arrived += len(data)
        super().data_received(data)
        if not (self._is_idle or self.flow.write_paused):
            self._unset_watch()

    def on_response_complete(self) -> None:
        """The answer has to be taken, then the next request may come."""
        self._since, self._arrived = time.monotonic(), 0
        self._watch_writing()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client has to take something before more is sent."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """It has."""
        super().resume_writing()
        self._unsent = _UNKNOWN

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._unset_watch()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Closes the connection at once; what is unsent is lost."""
        self.connections.discard(self)
        self.transport.abort()

    def _watch_writing(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        if self._unsent:
            self._watch(_STALL_SECONDS)

    def _watch(self, seconds: float) -> None:
        self._unset_watch()
        self._timer = self.loop.call_later(seconds, self._check)

    def _unset_watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """Closes a connection that has stood still since the clock was set."""
        self._timer = None
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            self._unsent = unsent
            self._watch(_STALL_SECONDS)
        elif unsent or self._is_idle:
            self.drop()


def _is_of_one_machine(one: tuple[str, int] | None, other: tuple[str, int] | None) -> bool:
    """Whether two clients are the same other machine; of this one all count as different."""
    return client_of(one) is not None and client_of(one) == client_of(other)


def client_of(address: tuple[str, int] | None) -> str | None:
    """The machine that a request comes from; None for this one, where all are one client."""
    host = address[0] if address else ""
    try:
        return None if ipaddress.ip_address(host).is_loopback else host
    except ValueError:
        return None

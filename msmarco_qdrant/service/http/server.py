"""An app on a port, served by uvicorn, which leaves signals and logs to its caller.

uvicorn's own settings bound the idle time between two requests, the size of a head and the
shutdown. They do not bound the time before a first request, the time of a head that comes byte by
byte, nor the time of a response that the client does not read. `limit_concurrency` counts silent
connections too, so a client with enough of them would keep all others out. No ASGI middleware sees
a connection before its first head, so `Connection` is where these bounds are.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio import TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.http.limits import Limits

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_log = logging.getLogger(__name__)


class Connection(H11Protocol):
    """uvicorn's connection, with bounds.

    It is closed if the head of a request does not arrive within `head_s` (from the start of the
    connection, or from the first byte of a later request). It is aborted if a response is not read
    within `request_s`. Of more than `connections`, the one that has been silent longest is aborted;
    if none is silent, the new one is.

    Args:
        limits: The bounds.
        settings: uvicorn's own.

    Attributes:
        idle_since: The end of the last response, or the connection's start, by the loop's clock.
    """

    def __init__(self, limits: Limits, **settings: Any) -> None:
        super().__init__(**settings)
        self._limits = limits
        self.idle_since = self.loop.time()
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """True if no request is running."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # `pause_writing` reports every byte not taken
        self._limit_connections()
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Read on; a head that comes in pieces gets no more time."""
        super().data_received(data)
        self._expect_head()

    def on_response_complete(self) -> None:
        """Wait for the next request, of which a part may have arrived."""
        self.idle_since = self.loop.time()
        super().on_response_complete()
        self._expect_head()

    def pause_writing(self) -> None:
        """Start the timer for the client to read the response."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.request_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer of `pause_writing`."""
        self._write_timer = _cancel(self._write_timer)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all waits."""
        self._head_timer, self._write_timer = _cancel(self._head_timer), _cancel(self._write_timer)
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        """Start the head's timer if a head has begun or is the first; stop it if none is due."""
        if not self.is_idle:
            self._head_timer = _cancel(self._head_timer)
        elif self._head_timer is None and (self.cycle is None or self.conn.trailing_data[0]):
            self._head_timer = self.loop.call_later(self._limits.head_s, self.transport.close)

    def _limit_connections(self) -> None:
        most = self._limits.connections
        if max(len(self.connections), len(self.tasks)) <= most:
            return
        others = [
            other
            for other in cast("set[Connection]", self.connections) - {self}
            if not other.transport.is_closing()
        ]
        if max(len(others) + 1, len(self.tasks)) <= most:
            return
        silent = [
            other
            for other in others
            if other.is_idle and other.transport.get_write_buffer_size() == 0
        ]
        if silent and len(self.tasks) <= most:
            min(silent, key=lambda other: other.idle_since).transport.abort()
        else:
            _log.warning("a connection was closed: all %d others have a running request", most)
            self.transport.abort()


def _cancel(timer: TimerHandle | None) -> TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is any free port.

    Raises:
        UsageError: If the host is unknown, or the port is in use or not allowed.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        is_dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        listening = socket.create_server(
            address, family=family, backlog=1024, dualstack_ipv6=is_dual
        )
    except OSError as exc:
        raise UsageError(
            f"cannot listen on port {port} of {host}: {exc.strerror or exc}; pass another --port "
            "or --host"
        ) from exc
    # Connections inherit it; asyncio sets it only if the socket was made with a protocol. Without
    # it the body of an answer waits 40 ms for the client to acknowledge its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def url_of(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer(uvicorn.Server):
    """Serves an app in the running event loop until `stop` is called.

    Args:
        app: The app.
        grace_s: Seconds that running requests get at the end.
        limits: Bounds of connections.
    """

    def __init__(self, app: ASGIApp, *, grace_s: float, limits: Limits | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                # uvicorn calls it as it would the class
                http=cast("type[asyncio.Protocol]", partial(Connection, limits or Limits())),
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,  # the app logs requests itself
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=max(1, round(grace_s)),
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: they must reach more than the server."""
        yield

    def stop(self) -> None:
        """Accept no more connections, and end after the running requests."""
        self.should_exit = True

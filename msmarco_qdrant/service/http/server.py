"""Connections that bring requests and take answers in time, so that the silent keep nobody out.

uvicorn bounds how long a connection may be idle between two requests, but neither before the first
one, nor while a head comes byte by byte, nor while nobody takes the answer.

An app on a port, by uvicorn, which leaves signals and logs to whoever starts it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio import TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.interfaces import Limits

_log = logging.getLogger(__name__)


class ConnectionConfig(uvicorn.Config):
    """uvicorn's settings, with the bounds of connections.

    Args:
        app: What answers.
        limits: Their `connections`, `head_s` and `request_s`.
        settings: uvicorn's own.
    """

    def __init__(self, app: Any, limits: Limits, **settings: Any) -> None:
        super().__init__(app, http=Connection, **settings)
        self.limits = limits


class Connection(H11Protocol):
    """uvicorn's connection, within bounds.

    It is closed if the head of a request does not come within `head_s` (of the connection's
    beginning, or of the first byte of a later request), and cut off if an answer is not taken
    within `request_s`. Where there are more than `connections`, the one that has been silent
    longest gives way to the new one; if none is silent, the new one is closed without an answer.

    Attributes:
        silent_since: When the last answer ended, or it began, by the loop's clock.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._limits = cast(ConnectionConfig, self.config).limits
        self.silent_since = self.loop.time()
        self._awaited: TimerHandle | None = None
        self._untaken: TimerHandle | None = None

    @property
    def silent(self) -> bool:
        """Whether it has no request under way, and no answer that has still to be taken."""
        return self._between and self.transport.get_write_buffer_size() == 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for its first request, if there is room for it."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # `pause_writing` tells of every byte untaken
        self._make_room()
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Go on; a head that comes in pieces has no more time for that."""
        super().data_received(data)
        if self._between:
            self._await_head()
        else:
            self._head_is_there()

    def on_response_complete(self) -> None:
        """Wait for the next request, of which a part may be there."""
        self.silent_since = self.loop.time()
        super().on_response_complete()
        if self._between and self.conn.trailing_data[0]:
            self._await_head()

    def pause_writing(self) -> None:
        """Wait for the answer to be taken."""
        super().pause_writing()
        self._untaken = self.loop.call_later(self._limits.request_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It was taken."""
        self._answer_is_taken()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._head_is_there()
        self._answer_is_taken()
        super().connection_lost(exc)

    @property
    def _between(self) -> bool:
        """Whether it has no request under way."""
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        if self._awaited is None:
            self._awaited = self.loop.call_later(self._limits.head_s, self.transport.close)

    def _head_is_there(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _answer_is_taken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _make_room(self) -> None:
        most = self._limits.connections
        if max(len(self.connections), len(self.tasks)) <= most:
            return
        others = [
            one
            for one in cast("set[Connection]", self.connections)
            if one is not self and not one.transport.is_closing()
        ]
        if max(len(others) + 1, len(self.tasks)) <= most:
            return
        silent = [one for one in others if one.silent]
        if silent and len(self.tasks) <= most:
            min(silent, key=lambda one: one.silent_since).transport.abort()
        else:
            _log.warning("a connection was closed: there are %d, each with a request", most)
            self.transport.abort()


_WAITING_CONNECTIONS = 1024
_IDLE_S = 30


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: Name or address.
        port: 0 for any that is free.

    Raises:
        UsageError: If it cannot.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise UsageError(f"cannot listen on {host}: {exc.strerror or exc}") from exc
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_WAITING_CONNECTIONS)
    except OSError as exc:
        listening.close()
        raise UsageError(
            f"cannot listen on port {port} of {host}: {exc.strerror or exc}; pass another --port"
        ) from exc
    return listening


def url_of(listening: socket.socket) -> str:
    """Where a listening socket is reached by HTTP."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer(uvicorn.Server):
    """Serves an app in the running event loop until `stop` is called.

    Args:
        app: What answers.
        grace_s: Seconds that requests under way have, at the end.
        limits: How many connections there may be, and how long each may take.
    """

    def __init__(self, app: FastAPI, *, grace_s: float, limits: Limits | None = None) -> None:
        super().__init__(
            ConnectionConfig(
                app,
                limits or Limits(),
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,  # the app tells of requests itself
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_IDLE_S,
                timeout_graceful_shutdown=max(1, round(grace_s)),
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone: a signal has to reach more than the server."""
        yield

    def stop(self) -> None:
        """Take no more connections, and end when the requests under way have."""
        self.should_exit = True

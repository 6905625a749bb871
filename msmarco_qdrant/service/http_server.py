"""An app on a port, by uvicorn, which leaves signals and logs to whoever starts it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.connections import ConnectionConfig
from msmarco_qdrant.service.limits import Limits

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

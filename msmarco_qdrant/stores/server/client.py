"""The client of a Qdrant server or the local mode, with retries and mapped errors."""

from __future__ import annotations

import logging
import math
import os
import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from qdrant_client import QdrantClient

from msmarco_qdrant.errors import (
    MsmarcoQdrantError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
)
from msmarco_qdrant.stores.connection import Address, Connection
from msmarco_qdrant.stores.error_mapping import is_forbidden, map_error
from msmarco_qdrant.stores.server.retry import RetryPolicy

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")

OLDEST_SERVER = (1, 16)
"""The first version that stores metadata with a collection."""

# A wrong address fails sooner than a server that becomes unavailable later.
_CONNECT_RETRY_S = 5.0


class ServerClient:
    """A client with its retries. Thread-safe.

    Args:
        client: qdrant-client's own.
        place: The DSN, for messages.
        retries: The retry policy.
        single_threaded: True for the local mode, which breaks when two threads use it at once.

    Attributes:
        is_remote: True for a server, False for the local mode.
    """

    def __init__(
        self, client: QdrantClient, place: str, retries: RetryPolicy, *, single_threaded: bool
    ) -> None:
        self.client = client
        self.place = place
        self.retries = retries
        self.is_remote = not single_threaded
        self._guard: Any = threading.RLock() if single_threaded else nullcontext()
        self._process = os.getpid()
        self._closed = False

    def call(
        self, action: str, function: Callable[_P, _T], *args: _P.args, **options: _P.kwargs
    ) -> _T:
        """Call the client, with retries.

        Args:
            action: The action for messages ("writing points").
            function: An idempotent call.
            *args: Its arguments.
            **options: Its keyword arguments.

        Raises:
            StoreError: The mapped error of the client.
        """
        return self.call_within(None, action, partial(function, *args, **options))

    def call_within(self, total_s: float | None, action: str, function: Callable[[], _T]) -> _T:
        """Call with another deadline for retries than the connection's; see `call`."""
        self.check_open()

        def guarded() -> _T:
            self.check_open()  # another thread may have closed it during the wait
            with self._guard:
                return function()

        try:
            return self.retries.call(guarded, total_s=total_s)
        except MsmarcoQdrantError:
            raise
        except Exception as exc:
            self.check_open()  # `close` makes running calls fail
            raise map_error(exc, action, self.place) from exc

    def version(self) -> tuple[int, int]:
        """Return the server's major and minor version; (0, 0) if it reports none."""
        return _parse_version(self.call("reading the server's version", self.client.info).version)

    def check_open(self) -> None:
        """Check that the client is usable.

        Raises:
            StoreError: After `close`, or in a forked child.
        """
        if self._closed:
            raise StoreError(f"this handle on the store {self.place} was closed: open it again")
        if self._process != os.getpid():
            raise StoreError(
                f"the store {self.place} was opened before this process was forked: open it in "
                "each process, after forking"
            )

    def close(self) -> None:
        """Close the client. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self.retries.stop()
            if self._process == os.getpid():
                self.client.close()


def connect(dsn: str, address: Address, connection: Connection) -> ServerClient:
    """Connect to a server and check its version and the API key.

    Raises:
        StoreUnavailableError: If no server answers.
        StoreAccessError: If the API key is not accepted.
        StoreError: If the server is too old.
    """
    if connection.api_key and not address.tls and not address.is_loopback:
        _log.warning("the API key is sent to %s unencrypted: use https:// or grpcs://", address)
    client = QdrantClient(**client_arguments(address, connection))
    server = ServerClient(client, dsn, RetryPolicy(connection.retry_s), single_threaded=False)
    try:
        # The first use creates these pools of channels, without a lock: before any thread starts.
        _ = client.grpc_points, client.grpc_collections
        total_s = min(_CONNECT_RETRY_S, connection.retry_s)
        version = server.call_within(total_s, "connecting", client.info).version
        _check_version(version, dsn)
        _check_key(server, total_s)
    except BaseException:
        server.close()
        raise
    return server


def _check_key(server: ServerClient, total_s: float) -> None:
    """Check that the server accepts the API key, not what it may do."""
    try:
        server.call_within(total_s, "listing collections", server.client.get_collections)
    except StoreAccessError as exc:
        if not is_forbidden(exc):
            raise


def client_arguments(address: Address, connection: Connection) -> dict[str, Any]:
    """Return the arguments of `QdrantClient` and `AsyncQdrantClient`."""
    options: dict[str, Any] = {
        # by default, a channel that lost its server reconnects after up to two minutes
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 2000,
    }
    if connection.tls_ca is not None:
        options["root_certificates"] = _read_certificates(connection.tls_ca)
    return {
        "url": f"{'https' if address.tls else 'http'}://{address.host}",
        "grpc_port": address.port,
        "prefer_grpc": True,
        # not as `api_key`, which prints the warning above each time to standard error
        "headers": {"api-key": connection.api_key} if connection.api_key else None,
        "timeout": math.ceil(connection.timeout_s),
        "grpc_options": options,
        "pool_size": connection.in_flight,
        "check_compatibility": False,  # it needs the REST port; `connect` reads the version by gRPC
    }


def _read_certificates(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise StoreUnavailableError(
            f"the certificates {path} cannot be read: {exc.strerror}"
        ) from exc


def _check_version(version: str, dsn: str) -> None:
    if _parse_version(version) < OLDEST_SERVER:
        raise StoreError(
            f"the server must be Qdrant {'.'.join(map(str, OLDEST_SERVER))} or later, which stores "
            f"metadata with a collection, got {version or 'no version'} from {dsn}"
        )


def _parse_version(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version, re.ASCII)
    return (int(found[1]), int(found[2])) if found else (0, 0)

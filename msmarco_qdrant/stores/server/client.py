"""The client of a Qdrant server or the local mode, with retries and mapped errors."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, ParamSpec, TypeVar

from qdrant_client import QdrantClient

from msmarco_qdrant.errors import MsmarcoQdrantError, StoreAccessError, StoreError
from msmarco_qdrant.stores.connection import Address, Connection
from msmarco_qdrant.stores.error_mapping import is_forbidden, map_error
from msmarco_qdrant.stores.server.arguments import client_arguments
from msmarco_qdrant.stores.server.retry import RetryPolicy
from msmarco_qdrant.stores.server.transport import GRPC, choose_transport

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
        address: The server's address, with the transport; None for the local mode, which breaks
            when two threads use it at once.

    Attributes:
        is_remote: True for a server, False for the local mode.
        is_rest: True for a server that is called by REST.
        words_need_index: See `Capabilities`.
    """

    def __init__(
        self,
        client: QdrantClient,
        place: str,
        retries: RetryPolicy,
        address: Address | None = None,
    ) -> None:
        self.client = client
        self.place = place
        self.retries = retries
        self.address = address
        self.is_remote = address is not None
        self.words_need_index = False
        self.is_rest = address is not None and address.transport == "rest"
        self._guard: Any = nullcontext() if self.is_remote else threading.RLock()
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
        if self.is_inherited:
            raise StoreError(self._fork_message())

    @property
    def is_inherited(self) -> bool:
        """True in a forked child of the process that opened it; its threads are missing there."""
        return self._process != os.getpid()

    def close(self) -> None:
        """Close the client. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            if not self.is_inherited:
                self.retries.stop()
                self.client.close()

    def _fork_message(self) -> str:
        if self.is_remote:
            return (
                f"the store {self.place} was opened before this process was forked: open it again "
                "in this process"
            )
        return (
            f"the store '{self.place}' is in the memory of the process that created it, which "
            "forked this one: create another in this process, or use a Qdrant server to share "
            "passages between processes"
        )


def connect(dsn: str, address: Address, connection: Connection) -> ServerClient:
    """Connect to a server and check its version and the API key.

    Raises:
        StoreUnavailableError: If no server answers.
        StoreAccessError: If the API key is not accepted.
        StoreError: If the server is too old, or if another one answers at the gRPC port.
    """
    if connection.api_key and not address.tls and not address.is_loopback:
        host = address.host
        _log.warning("the API key is sent to %s unencrypted: use https:// or grpcs://", host)
    total_s = min(_CONNECT_RETRY_S, connection.retry_s)
    address = choose_transport(dsn, address, connection, total_s)
    client = QdrantClient(**client_arguments(address, connection))
    if address.transport != "rest":
        GRPC.note_use(client)
    server = ServerClient(client, dsn, RetryPolicy(connection.retry_s), address)
    try:
        if not server.is_rest:
            # The first use creates these pools of channels, without a lock: before any thread.
            _ = client.grpc_points, client.grpc_collections
        version = server.call_within(total_s, "connecting", client.info).version
        _check_version(version, dsn)
        server.words_need_index = _words_need_index(version)
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


def _check_version(version: str, dsn: str) -> None:
    if _parse_version(version) < OLDEST_SERVER:
        raise StoreError(
            f"the server must be Qdrant {'.'.join(map(str, OLDEST_SERVER))} or later, which stores "
            f"metadata with a collection, got {version or 'no version'} from {dsn}"
        )


def _words_need_index(version: str) -> bool:
    """True before 1.19.1; a version without a third number counts as the first of its minor one."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version, re.ASCII)
    return found is not None and tuple(int(part or 0) for part in found.groups()) < (1, 19, 1)


def _parse_version(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version, re.ASCII)
    return (int(found[1]), int(found[2])) if found else (0, 0)

"""The way to a Qdrant server, or to qdrant-client's local mode: one client and how to call it."""

from __future__ import annotations

import logging
import math
import os
import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from msmarco_qdrant.errors import MsmarcoQdrantError, StoreError, StoreUnavailableError
from msmarco_qdrant.stores.connection import Address, Connection
from msmarco_qdrant.stores.error_mapping import map_error
from msmarco_qdrant.stores.server.retry import RetryPolicy

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

OLDEST_SERVER = (1, 16)
"""The first that keeps metadata with a collection."""

# Whoever passes a wrong address should not wait for as long as a running job does.
_OPENING_PATIENCE_S = 5.0


class ServerClient:
    """A client with its retries. Thread-safe.

    Args:
        client: qdrant-client's own.
        place: The DSN, for messages.
        retries: When to try again.
        single_threaded: Whether the client breaks when it is used by two threads at once.
    """

    def __init__(
        self, client: QdrantClient, place: str, retries: RetryPolicy, *, single_threaded: bool
    ) -> None:
        self.client = client
        self.place = place
        self.retries = retries
        self._one_at_a_time = single_threaded
        self._guard: Any = threading.RLock() if single_threaded else nullcontext()
        self._process = os.getpid()
        self._closed = False

    @property
    def is_remote(self) -> bool:
        """Whether there is a server behind it, and not the local mode."""
        return not self._one_at_a_time

    def call(self, action: str, function: Callable[[], _T], *, total_s: float | None = None) -> _T:
        """Call the client, trying again where that can help.

        Args:
            action: What is being done ("writing points").
            function: The call; doing it twice must do no more than doing it once.
            total_s: Another deadline for trying again than the settings'.

        Raises:
            StoreError: The client's error, as one of ours.
        """
        self.check_open()

        def guarded() -> _T:
            self.check_open()  # another thread may have closed it while this one waited
            with self._guard:
                return function()

        try:
            return self.retries.call(guarded, total_s=total_s)
        except MsmarcoQdrantError:
            raise
        except Exception as exc:
            self.check_open()  # what `close` cut short failed because of it
            raise map_error(exc, action, self.place) from exc

    def version(self) -> tuple[int, int]:
        """The server's major and minor version; (0, 0) if it tells none."""
        told = self.call("reading the server's version", self.client.info)
        return _parsed(told.version) or (0, 0)

    def check_open(self) -> None:
        """Refuse to be used after `close`, or in a forked child.

        Raises:
            StoreError: Saying which.
        """
        if self._closed:
            raise StoreError(f"this handle on the store {self.place} was closed: open it again")
        if self._process != os.getpid():
            raise StoreError(
                f"the store {self.place} was opened before this process was forked: open it in "
                "each process, after forking"
            )

    def close(self) -> None:
        """Close the client. Closing twice is no error."""
        if not self._closed:
            self._closed = True
            self.retries.stop()
            if self._process == os.getpid():
                self.client.close()


def connect(dsn: str, address: Address, connection: Connection) -> ServerClient:
    """Reach a server and make sure that it is one that this package can work with.

    Raises:
        StoreUnavailableError: If nothing answers there.
        StoreAccessError: If the API key is not accepted.
        StoreError: If the server is too old.
    """
    from qdrant_client import QdrantClient

    if connection.api_key and not address.tls and not address.is_loopback:
        _log.warning("the API key travels to %s unencrypted: use https:// or grpcs://", address)
    client = QdrantClient(**client_arguments(address, connection))
    server = ServerClient(client, dsn, RetryPolicy(connection.retry_s), single_threaded=False)
    try:
        _make_channels(client)
        patience = min(_OPENING_PATIENCE_S, connection.retry_s)
        version = server.call("reaching the server", client.info, total_s=patience).version
        _check_version(version, dsn)
        server.call("reading the aliases", client.get_aliases, total_s=patience)  # needs the key
    except BaseException:
        server.close()
        raise
    return server


def client_arguments(address: Address, connection: Connection) -> dict[str, Any]:
    """What `QdrantClient` and `AsyncQdrantClient` are made with."""
    options: dict[str, Any] = {
        # or a channel that lost its server looks for it again after up to two minutes only
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 2000,
    }
    if connection.tls_ca is not None:
        options["root_certificates"] = _certificates(connection)
    return {
        "url": f"{'https' if address.tls else 'http'}://{address.host}",
        "grpc_port": address.port,
        "prefer_grpc": True,
        # not as `api_key`, which warns of the same as we do, but each time and to standard error
        "headers": {"api-key": connection.api_key} if connection.api_key else None,
        "timeout": math.ceil(connection.timeout_s),
        "grpc_options": options,
        "pool_size": connection.in_flight,
        "check_compatibility": False,  # it asks the REST port; the version is read by gRPC instead
    }


def _certificates(connection: Connection) -> bytes:
    try:
        return connection.tls_ca.read_bytes() if connection.tls_ca else b""
    except OSError as exc:
        raise StoreUnavailableError(
            f"the certificates {connection.tls_ca} cannot be read: {exc.strerror}"
        ) from exc


def _make_channels(client: QdrantClient) -> None:
    """Make the client's pools of channels, which it would make at first use, without a lock.

    That of its root service is made by the first question for the version, before any thread.
    """
    _ = client.grpc_points, client.grpc_collections


def _check_version(version: str, dsn: str) -> None:
    found = _parsed(version)
    if found is None or found < OLDEST_SERVER:
        raise StoreError(
            f"the server at {dsn} is Qdrant {version or 'of no version'}: msmarco-qdrant needs "
            f"{'.'.join(map(str, OLDEST_SERVER))} or later, which keeps metadata with a collection"
        )


def _parsed(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version, re.ASCII)
    return (int(found[1]), int(found[2])) if found else None

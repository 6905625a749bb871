"""The arguments of qdrant-client's clients for an address and a connection."""

from __future__ import annotations

import math
import ssl
from pathlib import Path
from typing import Any

import httpx

from msmarco_qdrant.errors import StoreUnavailableError
from msmarco_qdrant.stores.connection import Address, Connection

# Less than the 5 s after which Qdrant closes an idle connection.
_KEEPALIVE_S = 3.0


def client_arguments(address: Address, connection: Connection) -> dict[str, Any]:
    """Return the arguments of `QdrantClient` and `AsyncQdrantClient`.

    Args:
        address: The server's address, with the transport "grpc" or "rest".
        connection: The connection's settings.

    Raises:
        StoreUnavailableError: If the file of certificates cannot be read.
    """
    is_rest = address.transport == "rest"
    return {
        "url": address.base_url,
        "prefer_grpc": not is_rest,
        # not as `api_key`, which prints a warning each time to standard error
        "headers": {"api-key": connection.api_key} if connection.api_key else None,
        "timeout": math.ceil(connection.timeout_s),
        "check_compatibility": False,  # `connect` reads the version
        "verify": _trusted(address, connection),  # of REST, which a client of gRPC may use, too
        **(_rest_arguments(connection) if is_rest else _grpc_arguments(address, connection)),
    }


def _grpc_arguments(address: Address, connection: Connection) -> dict[str, Any]:
    options: dict[str, Any] = {
        # by default, a channel that lost its server reconnects after up to two minutes
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 2000,
    }
    if connection.tls_ca is not None:
        options["root_certificates"] = _read_certificates(connection.tls_ca)
    return {
        "grpc_port": address.grpc_port,
        "grpc_options": options,
        "pool_size": connection.in_flight,
    }


def _rest_arguments(connection: Connection) -> dict[str, Any]:
    # By default, a client of this machine opens a connection for each request.
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=2 * connection.in_flight,
        keepalive_expiry=_KEEPALIVE_S,
    )
    return {"limits": limits}


def _trusted(address: Address, connection: Connection) -> ssl.SSLContext | bool:
    """Return the certificates that REST trusts: those of the connection, or the system's."""
    if not address.tls:
        return False  # loading them takes longer than most requests
    if (path := connection.tls_ca) is None:
        return True
    try:
        return ssl.create_default_context(cadata=_read_certificates(path).decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as exc:
        raise StoreUnavailableError(
            f"tls_ca must be a file of PEM certificates, got {path}: set MSMARCO_QDRANT_TLS_CA, or "
            "pass Connection(tls_ca=...), to one"
        ) from exc


def _read_certificates(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise StoreUnavailableError(
            f"the certificates {path} cannot be read: {exc.strerror}"
        ) from exc

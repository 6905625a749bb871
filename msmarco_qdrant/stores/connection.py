"""The connection to a Qdrant server: its address and its settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from msmarco_qdrant.errors import UsageError

GRPC_PORT = 6334
"""Qdrant's default (https://qdrant.tech/documentation/guides/configuration/)."""

_SCHEMES = {"http": False, "https": True, "grpc": False, "grpcs": True}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Connection:
    """The settings of a connection to a server. Engines in this process ignore them.

    Attributes:
        api_key: The server's API key; never shown, not even by `repr`.
        grpc_port: The server's gRPC port, unless the URL has it.
        timeout_s: Seconds after which an unanswered request counts as failed.
        retry_s: Seconds for which a request is retried after a transient failure.
        tls_ca: A file of PEM certificates to trust instead of the system's.
        batch_points: The maximum of points per request.
        batch_bytes: The maximum of bytes per request with more than one point.
        in_flight: The maximum of concurrent requests when many points are written.

    Raises:
        UsageError: For a value out of range.
    """

    api_key: str | None = field(default=None, repr=False)
    grpc_port: int = GRPC_PORT
    timeout_s: float = 30.0
    retry_s: float = 120.0
    tls_ca: Path | None = None
    batch_points: int = 256
    batch_bytes: int = 8 * 2**20
    in_flight: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.grpc_port <= 65535:
            raise UsageError(f"grpc_port must be 1 to 65535, got {self.grpc_port}")
        for name in ("timeout_s", "batch_points", "batch_bytes", "in_flight"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"{name} must be a finite number above 0, got {value}")
        if not self.retry_s >= 0:
            raise UsageError(f"retry_s must be 0 or more, got {self.retry_s}")
        if self.api_key is not None and not _is_header(self.api_key):
            raise UsageError("the API key must be printable ASCII, one character or more")


DEFAULT_CONNECTION = Connection()


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server.

    Attributes:
        host: A name or IP address; an IPv6 address is in brackets.
        port: The gRPC port.
        tls: True to encrypt.
    """

    host: str
    port: int
    tls: bool

    @property
    def is_loopback(self) -> bool:
        """True for this machine, where nobody can listen on the network."""
        return self.host.strip("[]") in _LOOPBACK

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def is_url(dsn: str) -> bool:
    """True for the DSN of a server."""
    return "://" in dsn


def hide_secret(dsn: str) -> str:
    """Return a DSN without secrets: only the scheme of a URL, which may contain any."""
    scheme, separator, _ = dsn.partition("://")
    return f"{scheme}://..." if separator else dsn


def redact_dsn(dsn: str) -> str:
    """Return a DSN without secrets: a URL of only a host and a port stays whole."""
    if not is_url(dsn):
        return dsn
    try:
        parse_address(dsn, DEFAULT_CONNECTION)
    except UsageError:
        return hide_secret(dsn)
    return dsn


def parse_address(dsn: str, connection: Connection) -> Address:
    """Parse the address in a URL.

    The port of `http` and `https` is that of REST, which is not used; the gRPC port comes from
    the connection. The port of `grpc` and `grpcs` is the gRPC port.

    Raises:
        UsageError: For another scheme, or a URL with more than a host and a port; the message
            shows nothing that could be a secret.
    """
    shown = hide_secret(dsn)
    try:
        parts = urlsplit(dsn)
        port = parts.port
    except ValueError:  # whose message shows a part of the URL
        port = 0
    if port == 0:
        raise UsageError(
            f"the URL of a server must have a host or host:port, with a port from 1 to 65535 and "
            f"an IPv6 address in brackets, got {shown}"
        )
    if parts.scheme not in _SCHEMES:
        raise UsageError(
            "a store must be http://host, https://host, grpc://host, grpcs://host, a directory or "
            f":memory:, got {shown}"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"the URL of a server must be only a host and a port, got {shown}: set "
            "MSMARCO_QDRANT_API_KEY, or pass Connection(api_key=...), instead of a key in the URL"
        )
    if parts.path not in ("", "/") or not parts.hostname:
        raise UsageError(
            f"the URL of a server must be {parts.scheme}://host or {parts.scheme}://host:port "
            f"without a path, got {shown}"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_grpc = parts.scheme.startswith("grpc")
    grpc_port = port if is_grpc and port else connection.grpc_port
    return Address(host, grpc_port, _SCHEMES[parts.scheme])


def _is_header(value: str) -> bool:
    """True if HTTP/2 accepts it as the value of a header."""
    return bool(value) and all("\x20" <= character <= "\x7e" for character in value)

"""How a Qdrant server is reached: its address, and everything that is no part of the address."""

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
    """What a server is spoken to with. An engine in the process needs none of it.

    Attributes:
        api_key: The key to the server; never shown, not even by `repr`.
        grpc_port: The server's gRPC port, where the URL does not tell it.
        timeout_s: Seconds after which an unanswered request counts as failed.
        retry_s: Seconds for which a request that failed for a passing reason is tried again.
        tls_ca: A file of PEM certificates to trust instead of the system's.
        batch_points: Points a request holds at most.
        batch_bytes: Bytes a request holds at most, if it holds more than one point.
        in_flight: Requests under way at once, when many points are written.

    Raises:
        UsageError: For a number that cannot be used.
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
            raise UsageError(f"grpc_port={self.grpc_port} is no port: expected 1 to 65535")
        for name in ("timeout_s", "batch_points", "batch_bytes", "in_flight"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"{name}={value} cannot be: expected a finite number above 0")
        if not self.retry_s >= 0:
            raise UsageError(f"retry_s={self.retry_s} cannot be: expected 0 or more")
        if self.api_key is not None and not _is_header(self.api_key):
            raise UsageError(
                "the API key is empty, or holds a character that no key can hold (a line end?)"
            )


DEFAULT_CONNECTION = Connection()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is.

    Attributes:
        host: Name or IP address, an IPv6 address in brackets.
        port: Its gRPC port.
        tls: Whether to encrypt.
    """

    host: str
    port: int
    tls: bool

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine, so that nobody can listen on the way."""
        return self.host.strip("[]") in _LOOPBACK

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def is_url(dsn: str) -> bool:
    """Whether a DSN is a server's."""
    return "://" in dsn


def hide_secret(dsn: str) -> str:
    """A DSN as it may be shown: of a URL that was not checked the scheme alone."""
    scheme, separator, _ = dsn.partition("://")
    return f"{scheme}://..." if separator else dsn


def redact_dsn(dsn: str) -> str:
    """A DSN as it may be shown: a URL whole, if it holds nothing but a host and a port."""
    if not is_url(dsn):
        return dsn
    try:
        parse_address(dsn, DEFAULT_CONNECTION)
    except UsageError:
        return hide_secret(dsn)
    return dsn


def parse_address(dsn: str, connection: Connection) -> Address:
    """The address that a URL means.

    The port of `http` and `https` is that of the REST interface, which is not used; the gRPC port
    comes from the connection. The port of `grpc` and `grpcs` is the gRPC port itself.

    Raises:
        UsageError: For another scheme, or a URL with anything but a host and a port; the message
            shows nothing that could be a secret.
    """
    shown = hide_secret(dsn)
    try:
        parts = urlsplit(dsn)
        port = parts.port
    except ValueError:  # its message shows a part of the URL
        port = 0
    if port == 0:
        raise UsageError(
            f"{shown} is no URL of a server: expected a host or host:port, the port from 1 to "
            "65535, an IPv6 address in brackets"
        )
    if parts.scheme not in _SCHEMES:
        raise UsageError(
            f"{shown} is no store: expected http://host, https://host, grpc://host, grpcs://host, "
            "a directory, or :memory:"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"the URL {shown} holds more than a host and a port: an API key is never part of it, "
            "since URLs are shown; set MSMARCO_QDRANT_API_KEY, or pass Connection(api_key=...)"
        )
    if parts.path not in ("", "/") or not parts.hostname:
        raise UsageError(
            f"the URL {shown} is not of the form {parts.scheme}://host or {parts.scheme}://host:"
            "port: gRPC knows no path"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_grpc = parts.scheme.startswith("grpc")
    grpc_port = port if is_grpc and port else connection.grpc_port
    return Address(host, grpc_port, _SCHEMES[parts.scheme])


def _is_header(value: str) -> bool:
    """What HTTP/2 lets through as the value of a header."""
    return bool(value) and all("\x20" <= character <= "\x7e" for character in value)

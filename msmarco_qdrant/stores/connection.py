"""The connection to a Qdrant server: its address and its settings."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import SplitResult, urlsplit

from msmarco_qdrant.errors import UsageError

Transport = Literal["auto", "grpc", "rest"]

REST_PORT, GRPC_PORT = 6333, 6334
"""Qdrant's defaults (https://qdrant.tech/documentation/guides/configuration/)."""

_SCHEMES = {"http": False, "https": True, "grpc": False, "grpcs": True}
_GATEWAY_PORTS = (80, 443)
_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Connection:
    """The settings of a connection to a server. Engines in this process ignore them.

    Attributes:
        api_key: The server's API key; never shown, not even by `repr`.
        grpc_port: The gRPC port of a server with an `http(s)://` URL; None for the one that
            `parse_address` derives from the URL.
        timeout_s: Seconds after which an unanswered request counts as failed.
        retry_s: Seconds for which a request is retried after a transient failure.
        tls_ca: A file of PEM certificates to trust instead of the system's.
        batch_points: The maximum of points per request.
        batch_bytes: The maximum of bytes per request with more than one point.
        in_flight: The maximum of concurrent requests when many points are written.
        transport: The protocol to speak: "grpc", "rest", or "auto" for gRPC where it answers.

    Raises:
        UsageError: For a value out of range.
    """

    api_key: str | None = field(default=None, repr=False)
    grpc_port: int | None = None
    timeout_s: float = 30.0
    retry_s: float = 120.0
    tls_ca: Path | None = None
    batch_points: int = 256
    batch_bytes: int = 8 * 2**20
    in_flight: int = 4
    transport: Transport = "auto"

    def __post_init__(self) -> None:
        if self.transport not in get_args(Transport):
            raise UsageError(f"transport must be auto, grpc or rest, got {self.transport!r}")
        if self.grpc_port is not None and not 1 <= self.grpc_port <= 65535:
            raise UsageError(f"grpc_port must be 1 to 65535, got {self.grpc_port}")
        for name in ("timeout_s", "batch_points", "batch_bytes", "in_flight"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 < float(value) < math.inf):
                raise UsageError(f"{name} must be a finite number above 0, got {value}")
        if not (isinstance(self.retry_s, Real) and self.retry_s >= 0):
            raise UsageError(f"retry_s must be 0 or more, got {self.retry_s}")
        if self.api_key is not None and not _is_header(self.api_key):
            raise UsageError("the API key must be printable ASCII, one character or more")


DEFAULT_CONNECTION = Connection()


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server.

    Attributes:
        host: A name or IP address; an IPv6 address is in brackets.
        tls: True to encrypt.
        rest_port: The port of REST; None for a URL of gRPC.
        grpc_port: The port of gRPC; None if the URL implies none.
        prefix: The path before every path of REST: "" or "/qdrant".
        transport: The protocol to speak; "auto" until `choose_transport` has asked the server.
    """

    host: str
    tls: bool
    rest_port: int | None = None
    grpc_port: int | None = None
    prefix: str = ""
    transport: Transport = "auto"

    @property
    def is_loopback(self) -> bool:
        """True for this machine, where nobody can listen on the network."""
        return self.host.strip("[]") in _LOOPBACK

    @property
    def has_default_ports(self) -> bool:
        """True for the pair of ports that a Qdrant server has unless it is configured."""
        return (self.rest_port, self.grpc_port) == (REST_PORT, GRPC_PORT)

    @property
    def base_url(self) -> str:
        """The URL of REST, or of the host without one."""
        port = "" if self.rest_port is None else f":{self.rest_port}{self.prefix}"
        return f"{'https' if self.tls else 'http'}://{self.host}{port}"

    @property
    def grpc_target(self) -> str:
        """The host and port of gRPC."""
        return f"{self.host}:{self.grpc_port}"


def is_url(dsn: str) -> bool:
    """True for the DSN of a server."""
    return "://" in dsn


def hide_secret(dsn: str) -> str:
    """Return a DSN without secrets: only the scheme of a URL, which may contain any."""
    scheme, separator, _ = dsn.partition("://")
    return f"{scheme}://..." if separator else dsn


def redact_dsn(dsn: str) -> str:
    """Return a DSN without secrets: a URL of a host, a port and a path stays whole."""
    if not is_url(dsn):
        return dsn
    try:
        parse_address(dsn, DEFAULT_CONNECTION)
    except UsageError:
        return hide_secret(dsn)
    return dsn


def parse_address(dsn: str, connection: Connection) -> Address:
    """Parse the address in a URL: the one rule from URLs to ports.

    ============================= ============ ===========================================
    URL                           REST         gRPC
    ============================= ============ ===========================================
    `http(s)://host`              6333         `grpc_port`, else 6334
    `http(s)://host:P`            P            `grpc_port`, else P + 1
    port 80 or 443, or a path     P and path   `grpc_port`, else none: REST is spoken
    `grpc(s)://host`              none         `grpc_port`, else 6334
    `grpc(s)://host:P`            none         P
    ============================= ============ ===========================================

    Raises:
        UsageError: For another scheme, a URL with more than a host, a port and a path, or a URL
            without the ports of the transport; the message shows nothing that could be a secret.
    """
    parts, port = _split(dsn)
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else str(parts.hostname)
    address = Address(host, _SCHEMES[parts.scheme])
    if parts.scheme.startswith("grpc"):
        address = replace(address, grpc_port=port or connection.grpc_port or GRPC_PORT)
    else:
        rest_port, prefix = port or REST_PORT, parts.path.rstrip("/")
        given = connection.grpc_port
        grpc_port = given or _implied_grpc_port(rest_port, prefix)
        address = replace(address, rest_port=rest_port, grpc_port=grpc_port, prefix=prefix)
    return replace(address, transport=_transport(address, connection.transport, hide_secret(dsn)))


def _split(dsn: str) -> tuple[SplitResult, int | None]:
    """Split a URL; return its parts and its port.

    Raises:
        UsageError: If it is not that of a server.
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
            f"the URL of a server must be only a host, a port and a path, got {shown}: set "
            "MSMARCO_QDRANT_API_KEY, or pass Connection(api_key=...), instead of a key in the URL"
        )
    is_grpc = parts.scheme.startswith("grpc")
    if not parts.hostname or (is_grpc and parts.path not in ("", "/")):
        raise UsageError(
            f"the URL of a server must be {parts.scheme}://host or {parts.scheme}://host:port "
            f"without a path, got {shown}"
        )
    if not _PREFIX.fullmatch(parts.path.rstrip("/")):
        raise UsageError(
            f"the path of {parts.scheme}://host:port/path must be names of letters, digits and "
            f". _ ~ -, got {shown}"
        )
    return parts, port


def _implied_grpc_port(rest_port: int, prefix: str) -> int | None:
    """Return the gRPC port for a REST port; an HTTP gateway has none."""
    if prefix or rest_port in _GATEWAY_PORTS or rest_port == 65535:
        return None
    return rest_port + 1


def _transport(address: Address, wanted: Transport, shown: str) -> Transport:
    """Return the transport, as far as the ports decide it."""
    if wanted == "rest" and address.rest_port is None:
        raise UsageError(f"transport rest must have an http:// or https:// URL, got {shown}")
    if wanted == "grpc" and address.grpc_port is None:
        raise UsageError(
            "transport grpc must have MSMARCO_QDRANT_GRPC_PORT or Connection(grpc_port=...) for a "
            f"URL with a path or with port 80, 443 or 65535, got {shown}"
        )
    if address.rest_port is None:
        return "grpc"
    return "rest" if address.grpc_port is None else wanted


def _is_header(value: str) -> bool:
    """True if HTTP/2 accepts it as the value of a header."""
    return bool(value) and all("\x20" <= character <= "\x7e" for character in value)

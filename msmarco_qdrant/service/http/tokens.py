"""The bearer tokens, and the addresses that need them; without FastAPI, for the settings."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal, TypeAlias

from msmarco_qdrant.errors import UsageError

Scope: TypeAlias = Literal["read", "write"]

SCOPES: Final[tuple[Scope, ...]] = ("read", "write")

_HOST: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::[0-9]*)?")
_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_VISIBLE_ASCII: Final = re.compile(r"[!-~]{16,}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The bearer tokens; a scope without one is open to every client of the port.

    Attributes:
        read: The token to search, and to read metrics and batches.
        write: The token to write and delete passages, and to read batches.
        tenants: The token of each tenant, to read its passages.

    Raises:
        UsageError: For a token that is short, or has more than visible ASCII.
    """

    read: str | None = field(default=None, repr=False)
    write: str | None = field(default=None, repr=False)
    tenants: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for scope in SCOPES:
            token = self.of(scope)
            if token is not None and not _VISIBLE_ASCII.fullmatch(token):
                raise UsageError(
                    f"the {scope} token must be 16 or more visible ASCII characters without "
                    "spaces, as `openssl rand -hex 32` makes them"
                )
        self._check_tenants()

    def _check_tenants(self) -> None:
        for tenant, token in self.tenants.items():
            if tenant == "" or not _VISIBLE_ASCII.fullmatch(token):
                raise UsageError(
                    "the token of a tenant must be TENANT=TOKEN, with a token of 16 or more "
                    "visible ASCII characters without spaces and commas"
                )
        if self.tenants and (self.read is None or self.write is None):
            raise UsageError(
                "tokens of tenants need a read token and a write token, too: without them every "
                "client of the port has these rights"
            )
        known = [*self.tenants.values(), self.read, self.write]
        if self.tenants and len({*known}) < len(known):
            raise UsageError("the tokens of tenants must differ from each other and all others")

    def of(self, scope: Scope) -> str | None:
        """Return the token of a scope, None if it is open."""
        return self.read if scope == "read" else self.write

    def scopes_of(self, given: str) -> Set[Scope]:
        """Return the scopes that have this token."""
        return {
            scope
            for scope in SCOPES
            if (token := self.of(scope)) and hmac.compare_digest(_digest(given), _digest(token))
        }

    def tenant_of(self, given: str) -> str | None:
        """Return the tenant that has this token, None if none has."""
        digest = _digest(given)
        pairs = self.tenants.items()
        return next(
            (name for name, one in pairs if hmac.compare_digest(digest, _digest(one))), None
        )


def check_binding(host: str, tokens: Tokens) -> None:
    """Refuse to listen where other machines reach the port, unless both tokens are set.

    Raises:
        UsageError: If `host` is not this machine's loopback and a token is missing.
    """
    missing = [scope for scope in SCOPES if tokens.of(scope) is None]
    if not missing or is_loopback(host):
        return
    variables = " and ".join(f"MSMARCO_QDRANT_{scope.upper()}_TOKEN" for scope in missing)
    raise UsageError(
        f"host must be of this machine's loopback without both tokens, got {host or '(empty)'}: "
        f"set {variables}, or listen on 127.0.0.1"
    )


def check_origins(origins: Sequence[str], tokens: Tokens) -> None:
    """Check the sites whose pages may use the API in a browser.

    Raises:
        UsageError: For what is not an origin, or for "*" without both tokens.
    """
    for origin in origins:
        # browsers omit the default port: an origin that has it would match no page
        has_default_port = re.fullmatch(r"https:.*:443|http:.*:80", origin) is not None
        if origin != "*" and (has_default_port or not _ORIGIN.fullmatch(origin)):
            raise UsageError(
                "cors_origins must be origins such as https://app.example.com, with commas between "
                f"several and without a path or a default port, or *, got {origin!r}"
            )
    if "*" in origins and any(tokens.of(scope) is None for scope in SCOPES):
        raise UsageError(
            "cors_origins must name the origins without both tokens, got *: any site that a "
            "browser of this machine opens could read and write; set both tokens, or name them"
        )


def is_loopback(host: str) -> bool:
    """Return True for a loopback name or address of this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def names_loopback(host: str) -> bool:
    """Return True if the header `Host` of a request names this machine's loopback."""
    found = _HOST.fullmatch(host)
    return found is not None and is_loopback(found[1] or found[2] or "")


def _digest(token: str) -> bytes:
    """Return equally many bytes for every token: a comparison's time shows no length."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()

"""Who may do what: bearer tokens, where to listen without them, and headers for browsers."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Final

from fastapi import Request

from msmarco_qdrant.service.http.problems import (
    MISDIRECTED,
    NO_TOKEN,
    WRONG_TOKEN,
    Kind,
    ProblemError,
)
from msmarco_qdrant.service.interfaces import Scope, Tokens, is_loopback

_HOST: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::[0-9]*)?")
_SCOPES: Final[Mapping[Scope, str]] = {
    "read": "Search, and read metrics and batches.",
    "write": "Bring and delete passages, and read batches.",
}
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def allowing(tokens: Tokens, *scopes: Scope) -> Callable[[Request], Awaitable[None]]:
    """What lets a request through that has the token of any of some scopes, or needs none.

    The first scope decides whether one is needed. Where none is, the host asked for must be a name
    of loopback: a page from elsewhere reaches this port under another name (DNS rebinding).

    Args:
        tokens: All of them.
        scopes: Any of these will do.

    Returns:
        What a route depends on. It raises ProblemError: 401 without a token or with an unknown
        one, 403 with one of another scope, 421 if another host was asked for.
    """
    digests = {scope: _digest(token) for scope in scopes if (token := tokens.of(scope))}
    others = {
        _digest(token) for scope in _SCOPES if (token := tokens.of(scope)) and scope not in digests
    }

    async def check(request: Request) -> None:  # not in a thread, of which there are few
        if scopes[0] not in digests:
            _check_host(request)
            return
        expected = f"Expected the token to {' or '.join(scopes)}."
        given = _digest(_bearer(request))
        matches = [hmac.compare_digest(given, digest) for digest in digests.values()]
        known = [hmac.compare_digest(given, digest) for digest in others]
        if any(matches):
            return
        if any(known):
            raise _refused(WRONG_TOKEN, expected, "insufficient_scope")
        raise _refused(NO_TOKEN, expected, "invalid_token")

    return check


def secure_headers() -> Mapping[str, str]:
    """Headers of every response that has not its own of that name."""
    return _HEADERS


def schemes_of(tokens: Tokens) -> dict[str, dict[str, str]]:
    """The ways to authenticate, as OpenAPI describes them; none for an open scope."""
    return {
        _scheme(scope): {"type": "http", "scheme": "bearer", "description": told}
        for scope, told in _SCOPES.items()
        if tokens.of(scope)
    }


def needed(tokens: Tokens, *scopes: Scope) -> list[dict[str, list[str]]]:
    """What `allowing` asks for, as OpenAPI describes it."""
    if tokens.of(scopes[0]) is None:
        return []
    return [{_scheme(scope): []} for scope in scopes if tokens.of(scope)]


def _scheme(scope: Scope) -> str:
    return f"{scope}Token"


def _digest(token: str) -> bytes:
    """As long for every token, so that comparing tells nothing of its length."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise _refused(NO_TOKEN, "Expected the header 'Authorization: Bearer TOKEN'.")
    return token.strip()


def _refused(kind: Kind, detail: str, error: str = "") -> ProblemError:
    """A refusal with the challenge of RFC 6750."""
    challenge = 'Bearer realm="msmarco-qdrant"' + (f', error="{error}"' if error else "")
    return ProblemError(kind, detail, {"WWW-Authenticate": challenge})


def _check_host(request: Request) -> None:
    if not is_loopback(_host_alone(request.headers.get("host", ""))):
        raise ProblemError(
            MISDIRECTED,
            "Without tokens only localhost is answered for: ask for localhost, or set tokens.",
        )


def _host_alone(given: str) -> str:
    """Without its port; an IPv6 address stands in brackets. "" for what is neither."""
    found = _HOST.fullmatch(given)
    return (found[1] or found[2] or "") if found else ""

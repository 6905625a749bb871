"""Bearer tokens of requests, and the host that a request names where no token is needed."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from fastapi import Depends, Request, params
from fastapi.security import HTTPBearer

from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.problems import Kind, ProblemError
from msmarco_qdrant.service.http.tokens import Scope, Tokens, names_loopback

TENANT: ContextVar[str | None] = ContextVar("TENANT", default=None)
"""The tenant whose token the request of this task has."""

_DESCRIPTIONS: Final = {
    "read": "Search, and read metrics and batches.",
    "write": "Write and delete passages, and read batches.",
}


def require(tokens: Tokens, *scopes: Scope, tenants: bool = False) -> list[params.Depends]:
    """Return a route's dependencies that require the token of one of some scopes.

    The first scope decides if a token is needed. Where none is, the request must name a host of
    loopback: a page of another site reaches this port under another name (DNS rebinding).
    Starlette's TrustedHostMiddleware cannot do that: it covers every route, the probes too, takes
    no address range, and its refusal is not a problem of RFC 9457.

    With `tenants`, the token of a tenant is accepted, too, and its tenant is in `TENANT`.

    The dependencies raise ProblemError: 401 without a token or with an unknown one, 403 with the
    token of another scope, 421 for another host.
    """
    bearers = [
        HTTPBearer(scheme_name=f"{name}Token", description=_DESCRIPTIONS[name], auto_error=False)
        for name in scopes
        if tokens.of(name)
    ]
    if tokens.of(scopes[0]) is None:
        return [Depends(_check_host)]
    expected = f"Expected the token to {' or '.join(scopes)}."

    async def check(request: Request) -> None:  # a coroutine, to take none of the few threads
        credentials = await bearers[0](request)
        if credentials is None:
            raise _refuse(problems.NO_TOKEN, "Expected the header 'Authorization: Bearer TOKEN'.")
        found = tokens.scopes_of(credentials.credentials)
        tenant = tokens.tenant_of(credentials.credentials)
        TENANT.set(tenant)
        if tenant is not None and tenants:
            return
        if not found and tenant is None:
            raise _refuse(problems.NO_TOKEN, expected, "invalid_token")
        if found.isdisjoint(scopes):
            raise _refuse(problems.WRONG_TOKEN, expected, "insufficient_scope")

    return [*map(Depends, bearers), Depends(check)]


def _refuse(kind: Kind, detail: str, error: str = "") -> ProblemError:
    """Return a refusal with the challenge of RFC 6750."""
    challenge = 'Bearer realm="msmarco-qdrant"' + (f', error="{error}"' if error else "")
    return ProblemError(kind, detail, {"WWW-Authenticate": challenge})


async def _check_host(request: Request) -> None:
    if not names_loopback(request.headers.get("host", "")):
        raise ProblemError(
            problems.MISDIRECTED,
            "Without tokens the host must be localhost: use localhost, or set tokens.",
        )

"""The server over streamable HTTP, with the sidecar's tokens; it keeps no sessions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mcp.server.transport_security import TransportSecuritySettings
from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.responses import Response

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.mcp.access import CALLER, Access
from msmarco_qdrant.integrations.mcp.backend import Backend
from msmarco_qdrant.integrations.mcp.server import server_over
from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import (
    SCOPES,
    Scope,
    Tokens,
    is_loopback,
    names_loopback,
)

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Send
    from starlette.types import Scope as RequestScope

PATH: Final = "/mcp"
_ORIGIN_HOST: Final = re.compile(r"https?://(\[[^\[\]]*\]|[^:/\[\]]*)(?::[0-9]+)?")


@dataclass(slots=True)
class _RefusedError(Exception):
    """A request is refused: its status, the reason, and for a token the challenge of RFC 6750."""

    status: int
    detail: str
    error: str | None = None

    @property
    def response(self) -> Response:
        """The response."""
        headers: dict[str, str] = {}
        if self.error is not None:
            error = f', error="{self.error}"' if self.error else ""
            headers["WWW-Authenticate"] = f'Bearer realm="msmarco-qdrant"{error}'
        body = to_json({"status": self.status, "detail": self.detail})
        return Response(body, self.status, headers, "application/problem+json")


class McpApp:
    """Answers MCP requests at `/mcp` (ASGI).

    The read token permits the tools that read, and the write token those that write; with equal
    tokens, one permits both. The token of a tenant permits to read its passages. A scope without a
    token is open to requests that name this machine's loopback as their host.

    Args:
        backend: The collection.
        tokens: The tokens.
        write: True to offer the tools that write.
        tenant: The tenant of every caller.
        origins: Sites whose pages may call it, besides those of this host; "*" for all.
        limits: Bounds of requests.

    Attributes:
        path: The path.

    Raises:
        UsageError: For both a tenant and tokens of tenants.
    """

    path = PATH

    def __init__(
        self,
        backend: Backend,
        tokens: Tokens,
        *,
        write: bool = False,
        tenant: str | None = None,
        origins: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> None:
        if tenant is not None and tokens.tenants:
            raise UsageError(
                f"a server must have one tenant or tokens of tenants, got the tenant {tenant!r} "
                f"and {len(tokens.tenants)} tokens: leave one out"
            )
        limits = limits or Limits()
        self._tokens = tokens
        self._write = write
        self._tenant = tenant
        self._origins = frozenset(origins)
        self._request_s = limits.request_s
        server = server_over(backend, Access(read=False))
        self._app = server.streamable_http_app(
            streamable_http_path=PATH,
            json_response=True,
            stateless_http=True,
            max_request_body_size=limits.body_bytes if write else limits.query_bytes,
            # `_check_sender` does it, also for other hosts than 127.0.0.1
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._sessions = server.session_manager

    def running(self) -> AbstractAsyncContextManager[None]:
        """Return the context in which it answers requests; enter it once."""
        running: AbstractAsyncContextManager[None] = self._sessions.run()
        return running

    async def __call__(self, scope: RequestScope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["route"] = self  # the path in the sidecar's log and metrics
        headers, sender = Headers(scope=scope), _Sender(send)
        try:
            self._check_sender(headers)
            CALLER.set(self._access(headers))
            async with asyncio.timeout(self._request_s):
                await self._app(scope, receive, sender)
        except _RefusedError as exc:
            await exc.response(scope, receive, send)
        except TimeoutError:
            if sender.has_begun:  # too late for another response: uvicorn disconnects
                raise
            detail = f"The answer must take at most {self._request_s:g} seconds."
            await _RefusedError(504, detail).response(scope, receive, send)

    def _access(self, headers: Mapping[str, str]) -> Access:
        """Return the access of a request."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if kind.lower() == "bearer" else ""
        if given and (tenant := self._tokens.tenant_of(given)) is not None:
            return Access(read=True, tenant=tenant)
        scopes = self._tokens.scopes_of(given) if given else set()
        if given and not scopes and any(self._tokens.of(scope) for scope in SCOPES):
            raise _RefusedError(401, "The token is unknown.", "invalid_token")
        scopes = {*scopes, *self._open_scopes(headers)}
        access = Access("read" in scopes, self._write and "write" in scopes, self._tenant)
        if not access.read and not access.write:
            if not given:
                detail = "Expected the header 'Authorization: Bearer TOKEN'."
                raise _RefusedError(401, detail, "")
            detail = "Expected the token to read: this server offers no tool that writes."
            raise _RefusedError(403, detail, "insufficient_scope")
        return access

    def _open_scopes(self, headers: Mapping[str, str]) -> Set[Scope]:
        """Return the scopes without a token, if the request names a host of loopback.

        A page of another site reaches this port under another name (DNS rebinding).
        """
        free: Set[Scope] = {scope for scope in SCOPES if self._tokens.of(scope) is None}
        if not free or names_loopback(headers.get("host", "")):
            return free
        if len(free) < len(SCOPES):
            return frozenset()
        detail = "Without tokens the host must be localhost: use localhost, or set tokens."
        raise _RefusedError(421, detail)

    def _check_sender(self, headers: Mapping[str, str]) -> None:
        """Refuse requests of the pages of other sites, as the protocol demands."""
        origin = headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        found = _ORIGIN_HOST.fullmatch(origin)
        is_own = found is not None and origin.partition("://")[2] == headers.get("host")
        if found is None or not (is_own or is_loopback(found[1])):
            raise _RefusedError(
                403,
                "The page's site must be one of MSMARCO_QDRANT_CORS_ORIGINS.",
            )


class _Sender:
    """Sends a response; `has_begun` is set once it begins."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)

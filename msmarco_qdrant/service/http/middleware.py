"""Middleware of every request: an id, a timeout, a line in the log, headers for browsers.

It logs an unexpected error in full, and answers with its id alone. HEAD is answered as GET is,
so that any probe works; uvicorn leaves its body out.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING, Final

from starlette.datastructures import MutableHeaders

from msmarco_qdrant.service.http.problems import INTERNAL, TOO_SLOW, ProblemError, to_response
from msmarco_qdrant.service.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_POLLED: Final = frozenset({"/healthz", "/readyz", "/status", "/metrics"})
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
_log = logging.getLogger(__name__)


class RequestMiddleware:
    """The outermost layer of the app (ASGI).

    Args:
        app: The app inside.
        metrics: The counters of requests.
        timeout_s: Seconds within which each request must be answered.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, timeout_s: float) -> None:
        self._app = app
        self._metrics = metrics
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, method = str(uuid.uuid4()), scope["method"]
        routed = {**scope, "state": {**scope.get("state", {}), "request_id": request_id}}
        if method == "HEAD":
            routed["method"] = "GET"
        sender = _Sender(send, request_id)
        begun = time.monotonic()
        try:
            await self._answer(routed, receive, sender)
        finally:
            self._record(method, routed, sender, time.monotonic() - begun)

    async def _answer(self, scope: Scope, receive: Receive, sender: _Sender) -> None:
        timeout = asyncio.timeout(self._timeout_s)
        fields = {"fields": {"id": sender.request_id}}
        try:
            async with timeout:
                await self._app(scope, receive, sender)
        except Exception:
            if timeout.expired():
                _log.warning("a request took too long", extra=fields)
                detail = f"The answer must take at most {self._timeout_s:g} seconds."
                problem = ProblemError(TOO_SLOW, detail)
            else:
                _log.exception("an internal error of a request", extra=fields)
                problem = ProblemError(INTERNAL, "The log has the cause under this instance.")
            if sender.status is not None:  # too late for another response: uvicorn disconnects
                raise
            await to_response(problem, sender.request_id)(scope, receive, sender)

    def _record(self, given: str, scope: Scope, sender: _Sender, seconds: float) -> None:
        """Log and count a request, without its body, token or path."""
        method = given if given in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "none")
        fields = {
            "id": sender.request_id,
            "method": method,
            "route": route,
            "status": sender.status,
            "ms": round(seconds * 1000, 1),
        }
        is_poll = route in _POLLED and sender.status == 200
        _log.log(logging.DEBUG if is_poll else logging.INFO, "request", extra={"fields": fields})
        self._metrics.answered(method, route, sender.status or 0, seconds)


class _Sender:
    """Sends a response with the headers of every response; `status` is set once it begins."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

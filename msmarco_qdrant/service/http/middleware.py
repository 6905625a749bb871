"""What every request passes: an id, a bound of time, a line in the log, headers for browsers.

An error that nobody foresaw ends here, too: logged in full, and told as nothing but its id. HEAD is
answered as GET is, without the body, so that any probe will do.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.datastructures import MutableHeaders

from msmarco_qdrant.service.http.auth import secure_headers
from msmarco_qdrant.service.http.problems import TOO_SLOW, ProblemError, of_inside
from msmarco_qdrant.service.http.problems import answer as refusal
from msmarco_qdrant.service.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_POLLED: Final = frozenset({"/healthz", "/readyz", "/status", "/metrics"})
_log = logging.getLogger(__name__)


class RequestMiddleware:
    """The outermost layer of the app (ASGI).

    Args:
        app: What it is around.
        metrics: What counts requests.
        within_s: Seconds in which each has to be answered.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, within_s: float) -> None:
        self._app = app
        self._metrics = metrics
        self._within_s = within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        asked = scope["method"]
        routed = {**scope, "state": {**scope.get("state", {}), "request_id": request_id}}
        if asked == "HEAD":
            routed["method"] = "GET"
        answer, begun = _Answer(send, request_id, with_body=asked != "HEAD"), time.monotonic()
        try:
            await self._answered(routed, receive, answer)
        finally:
            self._tell(asked, routed, answer, time.monotonic() - begun)

    async def _answered(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        bound = asyncio.timeout(self._within_s)
        try:
            async with bound:
                await self._app(scope, receive, answer)
        except Exception:
            instance = f"urn:uuid:{answer.request_id}"
            if bound.expired():
                _log.warning("a request took too long", extra={"fields": {"id": answer.request_id}})
                detail = f"It was given up after {self._within_s:g} seconds."
                response = refusal(ProblemError(TOO_SLOW, detail), instance)
            else:
                _log.exception(
                    "a request failed inside", extra={"fields": {"id": answer.request_id}}
                )
                response = of_inside(instance)
            if answer.status is not None:  # too late for another one: the connection is closed
                raise
            await response(scope, receive, answer)

    def _tell(self, asked: str, scope: Scope, answer: _Answer, seconds: float) -> None:
        """Log and count what came of it; no body, token or path of the caller's."""
        method = asked if asked in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "none")
        fields = {
            "id": answer.request_id,
            "method": method,
            "route": route,
            "status": answer.status,
            "ms": round(seconds * 1000, 1),
        }
        usual = route in _POLLED and answer.status == HTTPStatus.OK
        _log.log(logging.DEBUG if usual else logging.INFO, "request", extra={"fields": fields})
        self._metrics.answered(method, route, answer.status or 0, seconds)


class _Answer:
    """Sends a response on, with the headers that every one has; `status` once it has begun."""

    def __init__(self, send: Send, request_id: str, *, with_body: bool) -> None:
        self._send = send
        self._with_body = with_body
        self.request_id = request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            for name, value in secure_headers().items():
                headers.setdefault(name, value)
        elif not self._with_body:
            message = {**message, "body": b""}
        await self._send(message)

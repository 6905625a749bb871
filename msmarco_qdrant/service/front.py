"""What every request passes: an id, the time it takes, a line in the log, headers for browsers.

An error that nobody foresaw ends here, too: logged in full, and told as nothing but its id.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Final

from starlette.datastructures import MutableHeaders

from msmarco_qdrant.service.metrics import Metrics
from msmarco_qdrant.service.problems import of_inside
from msmarco_qdrant.service.security import secure_headers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_log = logging.getLogger(__name__)


class Front:
    """The outermost layer of the app (ASGI).

    Args:
        app: What it is around.
        metrics: What counts requests.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        answer, begun = _Answer(send, request_id), time.monotonic()
        try:
            await self._app(scope, receive, answer)
        except Exception:
            _log.exception("a request failed inside", extra={"fields": {"id": request_id}})
            if answer.status is not None:  # too late for another one: the connection is closed
                raise
            await of_inside(f"urn:uuid:{request_id}")(scope, receive, answer)
        finally:
            self._tell(scope, answer, time.monotonic() - begun)

    def _tell(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        """Log and count what came of it; no body, token or path of the caller's."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "none")
        fields = {
            "id": answer.request_id,
            "method": method,
            "route": route,
            "status": answer.status,
            "ms": round(seconds * 1000, 1),
        }
        _log.info("request", extra={"fields": fields})
        self._metrics.answered(method, route, answer.status or 0, seconds)


class _Answer:
    """Sends a response on, with the headers that every one has; `status` once it has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            for name, value in secure_headers().items():
                headers.setdefault(name, value)
        await self._send(message)

"""The errors of qdrant-client's REST client, as statuses of gRPC with one line of text.

Exceptions are recognized by their attributes and class names, so that Edge needs no import of the
client. A server answers `{"status": {"error": "..."}}`; a gateway in front of it may answer HTML.
"""

from __future__ import annotations

import json
import re

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ALREADY_EXISTS",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "INTERNAL",
}
_MAY_WAIT = (429, 503)
_TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_SHOWN_CHARACTERS = 200
_NOT_QDRANT = (
    "the answer is not Qdrant's: check the port and the path of the URL, and a gateway's address"
)
_TOO_LARGE = (
    "a gateway in front of the server accepts no body of this size: decrease "
    "MSMARCO_QDRANT_BATCH_BYTES, or pass Connection(batch_bytes=...)"
)


def is_rest(exc: BaseException | None) -> bool:
    """True for an exception of the REST client."""
    return hasattr(exc, "status_code") or hasattr(exc, "source") or _is_malformed(exc)


def rest_status_and_message(exc: BaseException) -> tuple[str, str]:
    """Return the name of the gRPC status that fits ("" for none), and the message in one line."""
    if hasattr(exc, "source"):  # ResponseHandlingException: no answer, or one that does not fit
        return _failure(exc.source)
    if hasattr(exc, "status_code") and hasattr(exc, "content"):  # UnexpectedResponse
        return _answer(int(exc.status_code), exc.content)
    if "Retry-After" in str(exc):
        return "RESOURCE_EXHAUSTED", _one_line(str(exc))
    return "", _NOT_QDRANT


def rest_retry_after_s(exc: BaseException | None) -> float:
    """Return the seconds in the header Retry-After, 0 without one; a date counts as none."""
    if getattr(exc, "status_code", None) not in _MAY_WAIT:
        return 0.0
    value = getattr(exc, "headers", {}).get("retry-after", "")
    return float(value) if value.isdecimal() else 0.0


def _answer(code: int, content: bytes) -> tuple[str, str]:
    """Return the status and the message of an answer that refuses."""
    if own := _own_message(content):
        return _STATUSES.get(code, "UNKNOWN"), own
    text = _one_line(_TAG.sub(" ", content.decode("utf-8", "replace")))[:_SHOWN_CHARACTERS]
    shown = f"HTTP status {code}" + (f", {text}" if text else "")
    if code == 413:
        return "", f"{shown}; {_TOO_LARGE}"
    if code in (404, 405) or 300 <= code < 400:  # Qdrant itself always names what is missing
        return "", f"{shown}; {_NOT_QDRANT}"
    return _STATUSES.get(code, "UNKNOWN"), shown


def _failure(source: BaseException) -> tuple[str, str]:
    """Return the status and the message of a request without an answer that fits."""
    kinds = {kind.__name__ for kind in type(source).__mro__}
    message = _one_line(str(source)) or type(source).__name__
    if "TimeoutException" in kinds:  # of httpx, whose message may be empty
        return "DEADLINE_EXCEEDED", "the request timed out"
    if kinds & {"NetworkError", "RemoteProtocolError", "ProxyError"}:
        return "UNAVAILABLE", message
    return "", _NOT_QDRANT if "ValidationError" in kinds else message


def _own_message(content: bytes) -> str:
    """Return the error in Qdrant's JSON answer, or "" if it is another's."""
    try:
        found = json.loads(content)
    except ValueError:
        return ""
    status = found.get("status") if isinstance(found, dict) else None
    return _one_line(str(status["error"])) if isinstance(status, dict) and "error" in status else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _is_malformed(exc: BaseException | None) -> bool:
    """True for an answer with a good status that is not JSON, or a malformed Retry-After."""
    return type(exc).__name__ in ("JSONDecodeError", "QdrantException")

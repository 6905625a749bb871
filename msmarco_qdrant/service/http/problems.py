"""Refusals as problem details for HTTP APIs (RFC 9457).

A problem shows what the caller can do. What happened inside goes to the log, under the request's
id (`instance`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    EncodingError,
    ModelError,
    MsmarcoQdrantError,
    PassageNotFoundError,
    SpoolError,
    SpoolFullError,
    StoreError,
    UnsupportedError,
    UsageError,
)
from msmarco_qdrant.service.interfaces import ShuttingDownError

MEDIA_TYPE: Final = "application/problem+json"
_TYPES: Final = "urn:problem-type:msmarco-qdrant:"
_SOON_S: Final = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its name at the end of the `type`, its status and its title."""

    name: str
    status: int
    title: str


MALFORMED: Final = Kind("malformed", 400, "The body cannot be read")
NO_TOKEN: Final = Kind("no-token", 401, "A bearer token is needed")
WRONG_TOKEN: Final = Kind("wrong-token", 403, "The token does not allow this")
NO_BATCH: Final = Kind("no-such-batch", 404, "The batch does not exist")
NO_PASSAGE: Final = Kind("no-such-passage", 404, "The passage does not exist")
SLOW_BODY: Final = Kind("body-too-slow", 408, "The body did not arrive in time")
TOO_LARGE: Final = Kind("body-too-large", 413, "The body is too large")
MEDIA: Final = Kind("unsupported-media", 415, "The body has an unsupported type")
MISDIRECTED: Final = Kind("misdirected", 421, "The request names another host")
INVALID: Final = Kind("invalid", 422, "The request is invalid")
BATCH_FAILED: Final = Kind("batch-failed", 422, "The batch failed and is not retried")
FULL: Final = Kind("spool-full", 429, "The sidecar cannot accept more passages at the moment")
INTERNAL: Final = Kind("internal", 500, "An internal error occurred")
BUSY: Final = Kind("too-many-searches", 503, "Too many searches are running")
NOT_READY: Final = Kind("not-ready", 503, "The sidecar is not ready")
CLOSING: Final = Kind("closing", 503, "The sidecar is shutting down")
NO_SPOOL: Final = Kind("spool-unavailable", 503, "The spool is unavailable")
NO_STORE: Final = Kind("store-unavailable", 503, "The collection cannot be searched at the moment")
TOO_SLOW: Final = Kind("too-slow", 504, "The answer took too long")

OF_TOKENS: Final = (NO_TOKEN, WRONG_TOKEN, MISDIRECTED)
OF_BODIES: Final = (MALFORMED, SLOW_BODY, TOO_LARGE, MEDIA, INVALID)


@dataclass(slots=True)
class ProblemError(Exception):
    """A request is refused.

    Attributes:
        kind: The kind of problem.
        detail: The rule, the value, and the next step.
        headers: Headers of the response.
        members: Further members of the problem.
    """

    kind: Kind
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, object] = field(default_factory=dict)


def later(kind: Kind, detail: str, retry_after_s: int) -> ProblemError:
    """Return a refusal for now, with the seconds until the next attempt."""
    return ProblemError(kind, detail, {"Retry-After": str(max(1, retry_after_s))})


def invalid(detail: str, errors: Sequence[Mapping[str, object]] = ()) -> ProblemError:
    """Return a refusal of an invalid request; `errors` have `where` and `reason`."""
    return ProblemError(INVALID, detail, {}, {"errors": list(errors)} if errors else {})


def to_response(problem: ProblemError, request_id: str) -> Response:
    """Return the response of a problem; a kind without a name has the type "about:blank"."""
    kind = problem.kind
    body = {
        "type": _TYPES + kind.name if kind.name else "about:blank",
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
        "instance": f"urn:uuid:{request_id}",
        **problem.members,
    }
    return Response(to_json(body), kind.status, dict(problem.headers), MEDIA_TYPE)


def to_problem(exc: Exception) -> ProblemError | None:
    """Return the problem of an error, None for an internal one."""
    match exc:
        case ProblemError():
            return exc
        case RequestValidationError():
            errors = [
                {"where": ".".join(map(str, error["loc"])), "reason": error["msg"]}
                for error in exc.errors()
            ]
            return invalid("A parameter is invalid: see errors.", errors)
        case HTTPException():
            return _of_router(exc)
        case UsageError() | UnsupportedError():
            is_missing = isinstance(exc, PassageNotFoundError)
            return ProblemError(NO_PASSAGE, str(exc)) if is_missing else invalid(str(exc))
        case EncodingError():
            # a failed forward pass has a cause; a query without a vector has none
            return None if exc.__cause__ else invalid(str(exc))
    return _of_unavailable(exc)


def _of_unavailable(exc: Exception) -> ProblemError | None:
    """Return the problem of what may work later; only the log shows paths and hosts."""
    match exc:
        case SpoolFullError():
            return later(FULL, str(exc), _SOON_S)
        case SpoolError():
            detail = "Its disk failed; the passages may be accepted or not: send them again later."
            return later(NO_SPOOL, detail, 30)
        case ShuttingDownError():
            return later(CLOSING, "It accepts no more passages: try again soon.", _SOON_S)
        case CollectionNotFoundError():
            detail = "The collection does not exist: the next passages create it."
            return later(NO_STORE, detail, _SOON_S)
        case StoreError() | ModelError():
            detail = "Its store or model cannot be reached: try again soon."
            return later(NO_STORE, detail, _SOON_S)
    return None


def handle_problems(app: FastAPI) -> None:
    """Make an app answer every refusal with a problem."""
    for error in (ProblemError, MsmarcoQdrantError, RequestValidationError, HTTPException):
        app.add_exception_handler(error, _respond)


async def _respond(request: Request, exc: Exception) -> Response:
    if isinstance(exc, HTTPException) and exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = {*(exc.headers or {}).get("Allow", "").split(", "), *_described(request)} - {""}
        exc = HTTPException(exc.status_code, headers={"Allow": ", ".join(methods)})
    problem = to_problem(exc)
    if problem is None:
        raise exc
    request_id = request.scope["state"]["request_id"]
    if isinstance(exc, MsmarcoQdrantError) and problem.kind.status >= 500:
        _log.warning("%s", exc, extra={"fields": {"id": request_id}})
    return to_response(problem, request_id)


def _described(request: Request) -> set[str]:
    """Return the methods of a path that has several routes: the router names those of the first."""
    path = getattr(request.scope.get("route"), "path_format", "")
    return {method.upper() for method in request.app.openapi()["paths"].get(path, ())}


def _of_router(exc: HTTPException) -> ProblemError:
    """Return the problem of an unknown path or method; HEAD is allowed wherever GET is."""
    status = HTTPStatus(exc.status_code)
    headers = dict(exc.headers or {})
    if methods := {method.strip() for method in headers.get("Allow", "").split(",")} - {""}:
        headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    kind = Kind("", status.value, status.phrase)
    return ProblemError(kind, f"{status.description or status.phrase}.", headers)

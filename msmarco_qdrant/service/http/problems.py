"""Every refusal as problem details for HTTP APIs (RFC 9457), and who makes what a problem.

A problem tells what the caller can do. What went on inside goes to the log, under the request's id
(`instance`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

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
WRONG_TOKEN: Final = Kind("wrong-token", 403, "This token does not allow that")
NO_BATCH: Final = Kind("no-such-batch", 404, "There is no such batch")
SLOW_BODY: Final = Kind("body-too-slow", 408, "The body did not arrive in time")
TOO_LARGE: Final = Kind("body-too-large", 413, "The body is too large")
MEDIA: Final = Kind("unsupported-media", 415, "A body of that form is not taken")
MISDIRECTED: Final = Kind("misdirected", 421, "Another host was asked for")
INVALID: Final = Kind("invalid", 422, "The request cannot be served as it is")
BATCH_FAILED: Final = Kind("batch-failed", 422, "The batch has failed for good")
FULL: Final = Kind("spool-full", 429, "No more passages can be taken in at the moment")
INSIDE: Final = Kind("internal", 500, "Something went wrong inside")
BUSY: Final = Kind("too-many-searches", 503, "Too many searches are waiting")
NOT_READY: Final = Kind("not-ready", 503, "The sidecar is not ready")
CLOSING: Final = Kind("closing", 503, "The sidecar is being shut down")
NO_SPOOL: Final = Kind("spool-unavailable", 503, "The spool cannot be used at the moment")
NO_STORE: Final = Kind("store-unavailable", 503, "The collection cannot be searched at the moment")
TOO_SLOW: Final = Kind("too-slow", 504, "There was no answer in time")

KINDS: Final = (
    MALFORMED,
    NO_TOKEN,
    WRONG_TOKEN,
    NO_BATCH,
    SLOW_BODY,
    TOO_LARGE,
    MEDIA,
    MISDIRECTED,
    INVALID,
    BATCH_FAILED,
    FULL,
    INSIDE,
    BUSY,
    NOT_READY,
    CLOSING,
    NO_SPOOL,
    NO_STORE,
    TOO_SLOW,
)

_PASSING: Final[Sequence[tuple[tuple[type[Exception], ...], Kind, str, int]]] = (
    (
        (SpoolError,),
        NO_SPOOL,
        "Its disk cannot be used; what was sent may be accepted or not: send it again later.",
        30,
    ),
    ((ShuttingDownError,), CLOSING, "It takes nothing in any more: try again soon.", _SOON_S),
    (
        (CollectionNotFoundError,),
        NO_STORE,
        "The collection is not there: it comes back with the next passages.",
        _SOON_S,
    ),
    (
        (StoreError, ModelError),
        NO_STORE,
        "Its store or model cannot be reached: try again soon.",
        _SOON_S,
    ),
)


@dataclass(slots=True)
class ProblemError(Exception):
    """A request is refused.

    Attributes:
        kind: What for.
        detail: What was found, what was expected, and the next step.
        headers: Headers of the answer.
        members: Further members of the problem.
    """

    kind: Kind
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, object] = field(default_factory=dict)


def later(kind: Kind, detail: str, retry_after_s: int) -> ProblemError:
    """A refusal for now, with the seconds after which to try again."""
    return ProblemError(kind, detail, {"Retry-After": str(max(1, retry_after_s))})


def invalid(detail: str, errors: Sequence[Mapping[str, object]] = ()) -> ProblemError:
    """A request that cannot be served as it is; `errors` tell `where` and `reason`."""
    return ProblemError(INVALID, detail, members={"errors": list(errors)} if errors else {})


def answer(problem: ProblemError, instance: str) -> Response:
    """The response that tells a problem; `instance` is the request's."""
    kind = problem.kind
    return _response(
        {
            "type": _TYPES + kind.name,
            "title": kind.title,
            "status": kind.status,
            "detail": problem.detail,
            "instance": instance,
            **problem.members,
        },
        problem.headers,
    )


def of_inside(instance: str) -> Response:
    """The response after an error that nobody foresaw; it tells nothing but where to look."""
    detail = "This was not your fault, and the log says more under this instance."
    return answer(ProblemError(INSIDE, detail), instance)


def of_error(exc: MsmarcoQdrantError) -> ProblemError | None:
    """The problem that an error of this package is to whoever asked; None if it is inside."""
    if isinstance(exc, EncodingError):
        # a forward pass that failed has a cause; a query without a vector has none
        return None if exc.__cause__ else invalid(str(exc))
    if isinstance(exc, UsageError | UnsupportedError):
        return invalid(str(exc))
    if isinstance(exc, SpoolFullError):
        return later(FULL, str(exc), _SOON_S)
    for errors, kind, detail, retry_after_s in _PASSING:
        if isinstance(exc, errors):
            return later(kind, detail, retry_after_s)
    return None


def handle_problems(app: FastAPI) -> None:
    """Let an app answer every refusal with a problem."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(MsmarcoQdrantError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)


def instance_of(request: Request) -> str:
    """The URN of the request's id, under which the log tells of it."""
    return f"urn:uuid:{request.scope['state']['request_id']}"


async def _on_problem(request: Request, exc: Exception) -> Response:
    if not isinstance(exc, ProblemError):
        raise exc
    return answer(exc, instance_of(request))


async def _on_error(request: Request, exc: Exception) -> Response:
    problem = of_error(exc) if isinstance(exc, MsmarcoQdrantError) else None
    if problem is None:
        raise exc
    if problem.kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        request_id = request.scope["state"]["request_id"]
        _log.warning("%s", exc, extra={"fields": {"id": request_id}})
    return answer(problem, instance_of(request))


async def _on_validation(request: Request, exc: Exception) -> Response:
    if not isinstance(exc, RequestValidationError):
        raise exc
    errors = [
        {"where": ".".join(str(part) for part in one["loc"]), "reason": one["msg"]}
        for one in exc.errors()
    ]
    return answer(invalid("A parameter is wrong.", errors), instance_of(request))


async def _on_http(request: Request, exc: Exception) -> Response:
    """What the router refuses: a path or a method that is not there."""
    if not isinstance(exc, HTTPException):
        raise exc
    status = HTTPStatus(exc.status_code)
    return _response(
        {
            "type": "about:blank",
            "title": status.phrase,
            "status": status.value,
            "detail": f"{status.description or status.phrase}.",
            "instance": instance_of(request),
        },
        {**(exc.headers or {}), **_allowed(exc)},
    )


def _allowed(exc: HTTPException) -> Mapping[str, str]:
    """Of a method that is not taken, those that are: HEAD wherever GET is."""
    methods = {one.strip() for one in (exc.headers or {}).get("Allow", "").split(",")} - {""}
    if "GET" in methods:
        methods.add("HEAD")
    return {"Allow": ", ".join(sorted(methods))} if methods else {}


def _response(problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    return Response(
        to_json(problem),
        status_code=problem["status"],
        media_type=MEDIA_TYPE,
        headers=dict(headers),
    )

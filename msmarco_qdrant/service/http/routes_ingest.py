"""Passages in and out by HTTP: what is answered with 202 is on disk for good."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic_core import to_json

from msmarco_qdrant.errors import SpoolError
from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.auth import allowing, needed
from msmarco_qdrant.service.http.body import JSON, NDJSON, media_type, parse_json, parse_lines
from msmarco_qdrant.service.http.body import read_body as read
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.limits import ConcurrencyLimit, LimitExceededError
from msmarco_qdrant.service.http.openapi import json_content, ref, responses
from msmarco_qdrant.service.http.problems import ProblemError, later
from msmarco_qdrant.service.http.schemas import Accepted, BatchOut, PassageIn
from msmarco_qdrant.service.http.validation import checked_pid, passages_of
from msmarco_qdrant.service.interfaces import (
    BatchState,
    Delete,
    Limits,
    Operation,
    ShuttingDownError,
    Tokens,
    counts_of,
)

_BATCH: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_OF_TOKENS: Final = (problems.NO_TOKEN, problems.WRONG_TOKEN, problems.MISDIRECTED)
_OF_SPOOL: Final = (
    problems.INVALID,
    problems.BATCH_FAILED,
    problems.FULL,
    problems.CLOSING,
    problems.NO_SPOOL,
)
_OF_BODIES: Final = (problems.MALFORMED, problems.SLOW_BODY, problems.TOO_LARGE, problems.MEDIA)
_IN_TIME: Final = {
    200: ("With `wait`: the batch is done, and searchable.", json_content(ref(BatchOut))),
    202: ("The batch is on disk.", json_content(ref(Accepted))),
}
_PASSAGE: Final = ref(PassageIn)


class IngestRoutes:
    """The handlers.

    Args:
        parts: What they work with.
    """

    def __init__(self, parts: AppDependencies) -> None:
        self._ingester = parts.ingester
        self._limits = parts.limits
        self._bodies = ConcurrencyLimit(parts.limits.bodies)
        self._writes = asyncio.Semaphore(parts.limits.writes)

    async def post_passages(self, request: Request, wait: bool = False) -> Response:  # noqa: FBT001, FBT002, RUF100
        """Put passages in, or in place of those of the same pid.

        The body is a JSON array, or one passage a line; `Content-Encoding: gzip` is taken. Either
        all of it is accepted or nothing. With `wait` the answer comes when the batch is searchable;
        if that takes too long it is the 202 that comes without, and if the batch fails for good it
        is a problem of the type `batch-failed` that names the batch.
        """
        with self._received():
            kind = media_type(request, (JSON, *NDJSON))
            limits = self._limits
            body = await read(request, max_bytes=limits.body_bytes, within_s=limits.body_s)
            async with self._writes:
                operations = await asyncio.to_thread(self._operations, kind, body)
                batch = await asyncio.to_thread(self._ingester.accept, operations)
        return await self._answer(batch, len(operations), wait=wait)

    async def delete_passage(self, request: Request, pid: str, wait: bool = False) -> Response:  # noqa: FBT001, FBT002, RUF100
        """Take a passage out, after everything that was accepted before."""
        _check_utf8(request)
        operation = Delete(checked_pid(pid, self._limits))
        async with self._writes:
            batch = await asyncio.to_thread(self._ingester.accept, [operation])
        return await self._answer(batch, 1, wait=wait)

    async def get_batch(self, batch: str) -> Response:
        """How far a batch is."""
        known = _BATCH.fullmatch(batch) is not None
        state = await asyncio.to_thread(self._ingester.state, batch) if known else None
        if state is None:
            raise ProblemError(
                problems.NO_BATCH, "Its id is wrong, or its report has been removed."
            )
        return _json(_told(state))

    def _operations(self, kind: str, body: bytes) -> Sequence[Operation]:
        """In a thread: others are answered meanwhile."""
        limits = self._limits
        if kind == JSON:
            return passages_of(parse_json(body, brackets=limits.brackets), limits)
        lines = parse_lines(body, most=limits.passages, brackets=limits.brackets)
        return passages_of([one.value for one in lines], limits, [one.number for one in lines])

    async def _answer(self, batch: str, accepted: int, *, wait: bool) -> Response:
        ended = await self._ended(batch) if wait else None
        place = {"Location": f"/batches/{batch}"}
        if ended is None:
            return _json({"batch": batch, "accepted": accepted}, 202, place)
        if ended.state == "failed":
            detail = f"It was accepted and is kept, but cannot be applied: {ended.reason}"
            raise ProblemError(problems.BATCH_FAILED, detail, place, {"batch": batch})
        return _json(_told(ended), 200, place)

    async def _ended(self, batch: str) -> BatchState | None:
        """How a batch has ended; None if that cannot be had, for it is on disk all the same."""
        try:
            async with asyncio.timeout(self._limits.wait_s):
                return await self._ingester.finished(batch)
        except (TimeoutError, ShuttingDownError, SpoolError):
            return None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # and not what it waited for
                raise
            return None

    @contextmanager
    def _received(self) -> Iterator[None]:
        try:
            with self._bodies.entered():
                yield
        except LimitExceededError:
            raise later(problems.FULL, "As many bodies as may be are being received.", 1) from None


def ingest_router(parts: AppDependencies) -> APIRouter:
    """The routes of passages and batches."""
    routes, tokens = IngestRoutes(parts), parts.tokens
    router = APIRouter(tags=["passages"], default_response_class=Response)
    described = {"security": needed(tokens, "write")}
    for path, handler, method, refused, more in (
        ("/passages", routes.post_passages, "POST", _OF_BODIES, _body(parts.limits)),
        ("/passages/{pid:path}", routes.delete_passage, "DELETE", (problems.MALFORMED,), {}),
    ):
        router.add_api_route(
            path,
            handler,
            methods=[method],
            status_code=202,
            dependencies=[Depends(allowing(tokens, "write"))],
            responses=responses(_IN_TIME, *_OF_TOKENS, *_OF_SPOOL, *refused),
            openapi_extra={**more, **described},
        )
    _add_batches(router, routes, tokens)
    return router


def _add_batches(router: APIRouter, routes: IngestRoutes, tokens: Tokens) -> None:
    router.add_api_route(
        "/batches/{batch}",
        routes.get_batch,
        methods=["GET"],
        dependencies=[Depends(allowing(tokens, "read", "write"))],
        responses=responses(
            {200: ("How far it is.", json_content(ref(BatchOut)))},
            *_OF_TOKENS,
            problems.NO_BATCH,
            problems.INVALID,
            problems.NO_SPOOL,
        ),
        openapi_extra={"security": needed(tokens, "read", "write")},
    )


def _body(limits: Limits) -> dict[str, Any]:
    """What is posted, as OpenAPI describes it."""
    passages = {"type": "array", "minItems": 1, "maxItems": limits.passages, "items": _PASSAGE}
    return {
        "requestBody": {
            "required": True,
            "description": (
                f"At most {limits.passages:,} passages, and {limits.body_bytes:,} bytes as sent "
                "and decompressed."
            ),
            "content": {**json_content(passages), NDJSON[0]: {"schema": _PASSAGE}},
        }
    }


def _told(state: BatchState) -> dict[str, object]:
    """A batch as `BatchOut` describes it."""
    report = state.report
    return {
        "batch": state.batch,
        "state": state.state,
        **counts_of(report),
        "rejects": [{"line": row.line, "reason": row.reason} for row in report.rejects],
        "reason": state.reason or None,
    }


def _check_utf8(request: Request) -> None:
    """Refuse a path of which the server has made something else to be able to decode it."""
    try:
        unquote_to_bytes(request.scope.get("raw_path") or b"").decode()
    except UnicodeDecodeError:
        raise ProblemError(problems.MALFORMED, "The path is not UTF-8.") from None


def _json(told: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(told), status, headers, media_type=JSON)

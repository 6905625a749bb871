"""Routes that write and delete passages: a batch that is answered with 202 is on disk."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic_core import to_json

from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.auth import require
from msmarco_qdrant.service.http.body import (
    JSON,
    NDJSON,
    media_type,
    parse_json,
    parse_lines,
    read_body,
)
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.openapi import Responses, header, problem_responses, ref
from msmarco_qdrant.service.http.problems import ProblemError, invalid, later
from msmarco_qdrant.service.http.schemas import (
    MAX_PASSAGES,
    Accepted,
    BatchesOut,
    BatchOut,
    PassageIn,
)
from msmarco_qdrant.service.http.validation import check_utf8, parse_passages, parse_pid
from msmarco_qdrant.service.http.waiting import finished_within
from msmarco_qdrant.service.interfaces import BatchState, Delete, Operation, counts_of

_MAX_BATCHES: Final = 100  # in a list: each is a file to read
_BATCH_ID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_REFUSALS: Final = (
    *problems.OF_TOKENS,
    problems.MALFORMED,
    problems.INVALID,
    problems.BATCH_FAILED,
    problems.FULL,
    problems.CLOSING,
    problems.NO_SPOOL,
)
_SUCCESS: Final[Responses] = {
    200: {"model": BatchOut, "description": "With `wait`: the batch is done, and searchable."},
    202: {"headers": header("Location", "The path of the batch's state.", "string")},
}


class IngestRoutes:
    """The handlers, over the parts that they use."""

    def __init__(self, dependencies: AppDependencies) -> None:
        self._ingester = dependencies.ingester
        self._limits = dependencies.limits
        self._bodies = asyncio.Semaphore(dependencies.limits.bodies)
        self._writes = asyncio.Semaphore(dependencies.limits.writes)

    async def post_passages(self, request: Request, wait: bool = False) -> Response:  # noqa: FBT001, FBT002, RUF100
        """Write passages; each replaces the one of the same pid.

        The body is a JSON array, or one passage per line; it may have `Content-Encoding: gzip`. All
        of it is accepted, or nothing. With `wait` the answer comes when the batch is searchable; if
        that takes too long the answer is 202 as without, and if the batch fails it is a problem of
        the type `batch-failed` that names the batch.
        """
        limits = self._limits
        if self._bodies.locked():
            detail = f"At most {limits.bodies} bodies are received at once: try again soon."
            raise later(problems.FULL, detail, 1)
        async with self._bodies:
            kind = media_type(request, (JSON, *NDJSON))
            body = await read_body(request, max_bytes=limits.body_bytes, timeout_s=limits.body_s)
            async with self._writes:
                operations = await asyncio.to_thread(self._parse, kind, body)
                batch = await asyncio.to_thread(self._ingester.accept, operations)
        return await self._answer(batch, len(operations), wait=wait)

    async def delete_passage(self, request: Request, pid: str, wait: bool = False) -> Response:  # noqa: FBT001, FBT002, RUF100
        """Delete a passage, after all batches that were accepted before."""
        check_utf8(request)
        operation = Delete(parse_pid(pid))
        async with self._writes:
            batch = await asyncio.to_thread(self._ingester.accept, [operation])
        return await self._answer(batch, 1, wait=wait)

    async def get_batch(self, batch: str) -> Response:
        """Return the state of a batch."""
        is_id = _BATCH_ID.fullmatch(batch) is not None
        state = await asyncio.to_thread(self._ingester.state, batch) if is_id else None
        if state is None:
            raise ProblemError(
                problems.NO_BATCH, "Its id is wrong, or its report has been removed."
            )
        return _batch_response(state)

    async def get_batches(self, limit: int = 20) -> Response:
        """Return the newest batches: those that have not ended, then those that ended last."""
        if not 1 <= limit <= _MAX_BATCHES:
            raise invalid(f"limit must be 1 to {_MAX_BATCHES}, got {limit}.")
        states = await asyncio.to_thread(self._ingester.recent, limit)
        return Response(to_json({"batches": [*map(_batch_line, states)]}), media_type=JSON)

    def _parse(self, kind: str, body: bytes) -> Sequence[Operation]:
        """Parse a body; for a thread, so that other requests are answered."""
        brackets = self._limits.brackets
        if kind == JSON:
            return parse_passages(parse_json(body, max_brackets=brackets))
        return parse_passages(*parse_lines(body, max_lines=MAX_PASSAGES, max_brackets=brackets))

    async def _answer(self, batch: str, accepted: int, *, wait: bool) -> Response:
        location = {"Location": f"/batches/{batch}"}
        wait_s = self._limits.wait_s
        state = await finished_within(self._ingester, batch, wait_s) if wait else None
        if state is None:
            body = to_json({"batch": batch, "accepted": accepted})
            return Response(body, 202, location, media_type=JSON)
        if state.state == "failed":
            detail = f"The batch was accepted and is kept, but cannot be applied: {state.reason}"
            raise ProblemError(problems.BATCH_FAILED, detail, location, {"batch": batch})
        return _batch_response(state, location)


def ingest_router(dependencies: AppDependencies) -> APIRouter:
    """Return the routes of passages and batches."""
    routes, tokens = IngestRoutes(dependencies), dependencies.tokens
    router = APIRouter(tags=["passages"])
    add_write = partial(
        router.add_api_route,
        status_code=202,
        response_model=Accepted,
        response_description="The batch is on disk.",
        dependencies=require(tokens, "write"),
    )
    add_write(
        "/passages",
        routes.post_passages,
        methods=["POST"],
        responses={**_SUCCESS, **problem_responses(*_REFUSALS, *problems.OF_BODIES)},
        openapi_extra=_describe_body(dependencies.limits),
    )
    responses = {**_SUCCESS, **problem_responses(*_REFUSALS)}
    path = "/passages/{pid:path}"
    add_write(path, routes.delete_passage, methods=["DELETE"], responses=responses)
    router.add_api_route(
        "/batches",
        routes.get_batches,
        methods=["GET"],
        response_model=BatchesOut,
        response_description="The newest batches.",
        dependencies=require(tokens, "read", "write"),
        responses=problem_responses(*problems.OF_TOKENS, problems.INVALID, problems.NO_SPOOL),
    )
    router.add_api_route(
        "/batches/{batch}",
        routes.get_batch,
        methods=["GET"],
        response_model=BatchOut,
        response_description="The state of the batch.",
        dependencies=require(tokens, "read", "write"),
        responses=problem_responses(
            *problems.OF_TOKENS, problems.NO_BATCH, problems.INVALID, problems.NO_SPOOL
        ),
    )
    return router


def _describe_body(limits: Limits) -> dict[str, Any]:
    """Return the body of `POST /passages` in OpenAPI; the route parses it itself."""
    passage = ref(PassageIn)
    passages = {"type": "array", "minItems": 1, "maxItems": MAX_PASSAGES, "items": passage}
    return {
        "requestBody": {
            "required": True,
            "description": (
                f"At most {MAX_PASSAGES:,} passages, and {limits.body_bytes:,} bytes as sent and "
                "decompressed."
            ),
            "content": {JSON: {"schema": passages}, NDJSON[0]: {"schema": passage}},
        }
    }


def _batch_line(state: BatchState) -> Mapping[str, object]:
    """Return a batch as `BatchLine` describes it."""
    return {
        "batch": state.batch,
        "source": state.source,
        "state": state.state,
        "accepted_at": _moment(state.accepted_at),
        "ended_at": None if state.ended_at is None else _moment(state.ended_at),
        **counts_of(state.report),
        "reason": state.reason or None,
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _batch_response(state: BatchState, headers: Mapping[str, str] | None = None) -> Response:
    """Return a batch as `BatchOut` describes it."""
    report = state.report
    body = {
        "batch": state.batch,
        "state": state.state,
        **counts_of(report),
        "rejects": report.rejects,
        "reason": state.reason or None,
    }
    return Response(to_json(body), headers=headers, media_type=JSON)

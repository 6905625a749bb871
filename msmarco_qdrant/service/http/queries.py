"""Requests to the search client: so many at once, each within a time, with its warnings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel
from pydantic_core import to_json

from msmarco_qdrant.collection.filter_notes import FILTER_NOTES
from msmarco_qdrant.core.hits import Hits, hit_to_dict
from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.auth import TENANT
from msmarco_qdrant.service.http.body import JSON, media_type, parse_json, read_body
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.openapi import describe_body, problem_responses
from msmarco_qdrant.service.http.problems import Kind, ProblemError, invalid, later
from msmarco_qdrant.service.http.tenants import TenantSearcher
from msmarco_qdrant.service.interfaces import Searcher

_T = TypeVar("_T")

REFUSALS: Final = (*problems.OF_TOKENS, problems.BUSY, problems.NOT_READY, problems.NO_STORE)
_MANY_HITS: Final = 100  # to JSON in a thread, so that other requests are answered


class Queries:
    """Runs requests with the search client, for all routes together.

    Args:
        dependencies: The parts of the app.
    """

    def __init__(self, dependencies: AppDependencies) -> None:
        self._searcher = dependencies.searcher
        self._limits = dependencies.limits
        self._metrics = dependencies.metrics
        self._running = asyncio.Semaphore(dependencies.limits.searches)

    async def read(self, request: Request) -> Any:
        """Return the parsed body of a request.

        Raises:
            ProblemError: If it is not JSON, or too large or too late.
        """
        limits = self._limits
        media_type(request, (JSON,))
        body = await read_body(request, max_bytes=limits.query_bytes, timeout_s=limits.body_s)
        return parse_json(body, max_brackets=limits.query_brackets)

    def check_ready(self) -> None:
        """Check that the client exists.

        Raises:
            ProblemError: If it does not.
        """
        if self._searcher() is None:
            raise _loading()

    async def run(self, call: Callable[[Searcher], Awaitable[_T]]) -> tuple[_T, Sequence[str]]:
        """Return the result of a call of the client, and the warnings of its filter.

        With the token of a tenant, the client has only the reads of its passages.

        Raises:
            ProblemError: If too many run, the client does not exist yet, or the call takes too
                long.
        """
        limits, tenant = self._limits, TENANT.get()
        if self._running.locked():
            detail = f"At most {limits.searches} searches run at once: try again soon."
            raise later(problems.BUSY, detail, 1)
        async with self._running:
            searcher = self._searcher()
            if searcher is None:
                raise _loading()
            if tenant is not None:
                searcher = cast("Searcher", TenantSearcher(searcher, tenant))
            notes: list[str] = []
            FILTER_NOTES.set(notes)
            try:
                with self._metrics.searching():
                    async with asyncio.timeout(limits.search_s):
                        found = await call(searcher)
            except TimeoutError:
                detail = f"A search must take at most {limits.search_s:g} seconds."
                raise ProblemError(problems.TOO_SLOW, detail) from None
        return found, list(dict.fromkeys(notes))

    async def to_json(self, answers: Sequence[Hits], notes: Sequence[str]) -> Sequence[bytes]:
        """Return each answer as a JSON object: `hits`, and a cursor and warnings if there are any.

        Raises:
            ProblemError: If the hits have too many bytes.
        """
        max_bytes = self._limits.answer_bytes
        if sum(map(len, answers)) <= _MANY_HITS:
            return _answers_to_json(answers, notes, max_bytes)
        return await asyncio.to_thread(_answers_to_json, answers, notes, max_bytes)


def _loading() -> ProblemError:
    """Return the refusal of a request before the client exists."""
    return later(problems.NOT_READY, "The model is loading: see /readyz.", 5)


def add_query(  # what a route is
    router: APIRouter,
    path: str,
    handler: Callable[[Request], Awaitable[Response]],
    request: type[BaseModel],
    answer: object,
    description: str,
    *refusals: Kind,
) -> None:
    """Add a route whose handler parses its body, with its description.

    Args:
        router: The router.
        path: The path.
        handler: The handler.
        request: The model of the body.
        answer: The model of the answer.
        description: The answer in words.
        refusals: Problems besides those that every query has.
    """
    router.add_api_route(
        path,
        handler,
        methods=["POST"],
        response_model=answer,
        response_description=description,
        responses=problem_responses(*REFUSALS, *problems.OF_BODIES, *refusals),
        openapi_extra=describe_body(request),
    )


def rows_to_json(rows: Sequence[object], max_bytes: int) -> bytes:
    """Return a list as JSON, made row by row.

    Raises:
        ProblemError: If it has more than `max_bytes` bytes.
    """
    parts, size = [], 0
    for row in rows:
        parts.append(to_json(row))
        size += len(parts[-1])
        if size > max_bytes:
            raise invalid(f"The answer must have at most {max_bytes:,} bytes: ask for fewer.")
    return b"[" + b",".join(parts) + b"]"


def json_response(content: bytes) -> Response:
    """Return a response of JSON that is made already."""
    return Response(content, media_type=JSON)


def with_warnings(answer: dict[str, object], notes: Sequence[str]) -> Response:
    """Return an object with the warnings of its filter, if there are any."""
    return json_response(to_json({**answer, "warnings": notes} if notes else answer))


def _answers_to_json(
    answers: Sequence[Hits], notes: Sequence[str], max_bytes: int
) -> Sequence[bytes]:
    """Return each answer as JSON, made hit by hit, so that other threads can run.

    Raises:
        ProblemError: If the hits have more than `max_bytes` bytes.
    """
    made, size = [], 0
    end = b',"warnings":' + to_json(notes) if notes else b""
    for hits in answers:
        parts = []
        for hit in hits:
            parts.append(to_json(hit_to_dict(hit)))
            size += len(parts[-1])
            if size > max_bytes:
                raise invalid(f"The hits must have at most {max_bytes:,} bytes: ask for fewer.")
        cursor = b',"cursor":' + to_json(hits.cursor) if hits.cursor is not None else b""
        made.append(b'{"hits":[' + b",".join(parts) + b"]" + cursor + end + b"}")
    return made

"""The route of searches: queries to ranked passages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic_core import to_json

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.search.filter_checks import FILTER_NOTES
from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.auth import require
from msmarco_qdrant.service.http.body import JSON, media_type, parse_json, read_body
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.openapi import problem_responses, ref
from msmarco_qdrant.service.http.problems import ProblemError, invalid, later
from msmarco_qdrant.service.http.schemas import HitsOut
from msmarco_qdrant.service.http.schemas_search import SearchIn
from msmarco_qdrant.service.http.validation import parse_search

_REFUSALS: Final = (
    *problems.OF_TOKENS,
    *problems.OF_BODIES,
    problems.BUSY,
    problems.NOT_READY,
    problems.NO_STORE,
)
_MANY_HITS: Final = 100  # to JSON in a thread, so that other requests are answered


class SearchRoutes:
    """The handler, over the parts that it uses."""

    def __init__(self, dependencies: AppDependencies) -> None:
        self._searcher = dependencies.searcher
        self._limits = dependencies.limits
        self._metrics = dependencies.metrics
        self._about = dependencies.about
        self._searches = asyncio.Semaphore(dependencies.limits.searches)

    async def post_search(self, request: Request) -> Response:
        """Return the passages that answer a query best, or each of several queries."""
        limits = self._limits
        begun = time.monotonic()
        media_type(request, (JSON,))
        body = await read_body(request, max_bytes=limits.query_bytes, timeout_s=limits.body_s)
        search = parse_search(parse_json(body, max_brackets=limits.query_brackets))
        self._check_reranker(search)
        if self._searches.locked():
            detail = f"At most {limits.searches} searches run at once: try again soon."
            raise later(problems.BUSY, detail, 1)
        async with self._searches:
            with self._metrics.searching():
                notes: list[str] = []
                FILTER_NOTES.set(notes)
                found = await self._search(search)
                answers = await self._to_json(found, list(dict.fromkeys(notes)))
        self._metrics.searched(search.mode, time.monotonic() - begun)
        content = answers[0] if search.query is not None else b"[" + b",".join(answers) + b"]"
        return Response(content, media_type=JSON)

    async def _search(self, search: SearchIn) -> Sequence[Sequence[Hit]]:
        searcher = self._searcher()
        if searcher is None:
            raise later(problems.NOT_READY, "The model is loading: see /readyz.", 5)
        try:
            async with asyncio.timeout(self._limits.search_s):
                return await searcher.search_many(
                    search.texts,
                    limit=search.limit,
                    mode=search.mode,
                    meta_filter=search.meta_filter,
                    rerank_depth=search.rerank_depth,
                )
        except TimeoutError:
            detail = f"A search must take at most {self._limits.search_s:g} seconds."
            raise ProblemError(problems.TOO_SLOW, detail) from None

    async def _to_json(
        self, found: Sequence[Sequence[Hit]], notes: Sequence[str]
    ) -> Sequence[bytes]:
        max_bytes = self._limits.answer_bytes
        if sum(map(len, found)) <= _MANY_HITS:
            return _answers_to_json(found, notes, max_bytes)
        return await asyncio.to_thread(_answers_to_json, found, notes, max_bytes)

    def _check_reranker(self, search: SearchIn) -> None:
        about = self._about()
        if search.rerank and about is not None and not about.rerank:
            raise invalid(
                "'rerank' needs a cross-encoder, and this sidecar has none: start it with "
                "--reranker ms-marco-MiniLM-L6-v2, or search without 'rerank'."
            )


def search_router(dependencies: AppDependencies) -> APIRouter:
    """Return the route of searches."""
    router = APIRouter(tags=["search"])
    router.add_api_route(
        "/search",
        SearchRoutes(dependencies).post_search,
        methods=["POST"],
        response_model=HitsOut | list[HitsOut],
        response_description="The answers; for `queries` a list of them, in the queries' order.",
        dependencies=require(dependencies.tokens, "read"),
        responses=problem_responses(*_REFUSALS),
        openapi_extra={
            "requestBody": {"required": True, "content": {JSON: {"schema": ref(SearchIn)}}}
        },
    )
    return router


def _answers_to_json(
    found: Sequence[Sequence[Hit]], notes: Sequence[str], max_bytes: int
) -> Sequence[bytes]:
    """Return each query's answer as JSON, made hit by hit, so that other threads can run.

    Every answer has the warnings of the filter, if there are any.

    Raises:
        ProblemError: If the hits have more than `max_bytes` bytes.
    """
    answers, size = [], 0
    end = b',"warnings":' + to_json(notes) if notes else b""
    for hits in found:
        parts = []
        for hit in hits:
            parts.append(to_json(hit))
            size += len(parts[-1])
            if size > max_bytes:
                raise invalid(f"The hits must have at most {max_bytes:,} bytes: ask for fewer.")
        answers.append(b'{"hits":[' + b",".join(parts) + b"]" + end + b"}")
    return answers

"""Queries to ranked passages by HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic_core import to_json

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.search.options import SearchOptions
from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.auth import allowing, needed
from msmarco_qdrant.service.http.body import JSON, media_type, parse_json, read_body
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.limits import ConcurrencyLimit, LimitExceededError
from msmarco_qdrant.service.http.openapi import json_content, ref, responses
from msmarco_qdrant.service.http.problems import ProblemError, invalid, later
from msmarco_qdrant.service.http.schemas import HitsOut, SearchIn
from msmarco_qdrant.service.http.validation import filter_of, queries_of, rerank_depth_of, search_of
from msmarco_qdrant.service.interfaces import Searcher

_ANSWERS: Final = {
    "oneOf": [ref(HitsOut), {"type": "array", "items": ref(HitsOut)}],
    "description": "For `queries`, a list of what one query gets, in their order.",
}
_REFUSED: Final = (
    problems.MALFORMED,
    problems.NO_TOKEN,
    problems.WRONG_TOKEN,
    problems.SLOW_BODY,
    problems.TOO_LARGE,
    problems.MEDIA,
    problems.MISDIRECTED,
    problems.INVALID,
    problems.BUSY,
    problems.NOT_READY,
    problems.NO_STORE,
    problems.TOO_SLOW,
)
_MANY: Final = 100  # hits of an answer, which take a while to become JSON


class SearchRoutes:
    """The handler.

    Args:
        parts: What it works with.
    """

    def __init__(self, parts: AppDependencies) -> None:
        self._searcher = parts.searcher
        self._limits = parts.limits
        self._metrics = parts.metrics
        self._about = parts.about
        self._under_way = ConcurrencyLimit(parts.limits.searches)

    async def post_search(self, request: Request) -> Response:
        """The passages that answer a query best, or each of several queries."""
        limits = self._limits
        begun = time.monotonic()
        media_type(request, (JSON,))
        body = await read_body(request, max_bytes=limits.query_bytes, within_s=limits.body_s)
        search = search_of(parse_json(body, brackets=limits.query_brackets), limits)
        self._check_reranker(search)
        with self._counted():
            told = await self._told(await self._found(search))
        self._metrics.searched(search.mode, time.monotonic() - begun)
        answer = told[0] if search.query is not None else b"[" + b",".join(told) + b"]"
        return Response(answer, media_type=JSON)

    async def _found(self, search: SearchIn) -> Sequence[Sequence[Hit]]:
        searcher, options = self._client(), _options(search, rerank_depth_of(search, self._limits))
        try:
            async with asyncio.timeout(self._limits.search_s):
                return await searcher.search_many(queries_of(search), **options)
        except TimeoutError:
            raise ProblemError(
                problems.TOO_SLOW, f"It was given up after {self._limits.search_s:g} seconds."
            ) from None

    async def _told(self, found: Sequence[Sequence[Hit]]) -> Sequence[bytes]:
        """What each query gets, as JSON; of many hits in a thread, so that others are answered."""
        most = self._limits.answer_bytes
        if sum(map(len, found)) <= _MANY:
            return _told(found, most)
        return await asyncio.to_thread(_told, found, most)

    def _check_reranker(self, search: SearchIn) -> None:
        about = self._about()
        if search.rerank and about is not None and not about.rerank:
            raise invalid(
                "'rerank' needs a cross-encoder, and this sidecar has none: start it with "
                "--reranker ms-marco-MiniLM-L6-v2, or search without 'rerank'."
            )

    def _client(self) -> Searcher:
        searcher = self._searcher()
        if searcher is None:
            raise later(problems.NOT_READY, "Its model is being loaded: see /readyz.", 5)
        return searcher

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            with self._under_way.entered():
                self._metrics.searching(self._under_way.inside)
                yield
        except LimitExceededError:
            raise later(problems.BUSY, "As many as may be are under way.", 1) from None
        finally:
            self._metrics.searching(self._under_way.inside)


def search_router(parts: AppDependencies) -> APIRouter:
    """The route of searches."""
    router = APIRouter(tags=["search"], default_response_class=Response)
    router.add_api_route(
        "/search",
        SearchRoutes(parts).post_search,
        methods=["POST"],
        dependencies=[Depends(allowing(parts.tokens, "read"))],
        responses=responses({200: ("The answers.", json_content(_ANSWERS))}, *_REFUSED),
        openapi_extra={
            "requestBody": {"required": True, "content": json_content(ref(SearchIn))},
            "security": needed(parts.tokens, "read"),
        },
    )
    return router


def _options(search: SearchIn, rerank_depth: int | None) -> SearchOptions:
    return {
        "limit": search.limit,
        "mode": search.mode,
        "meta_filter": filter_of(search.filter),
        "rerank_depth": rerank_depth,
    }


def _told(found: Sequence[Sequence[Hit]], most: int) -> Sequence[bytes]:
    """What each query gets, as JSON, hit by hit, so that a thread leaves others their turn.

    Raises:
        ProblemError: If the hits have more than `most` bytes.
    """
    answers, room = [], most
    for hits in found:
        told = []
        for hit in hits:
            told.append(_hit(hit))
            room -= len(told[-1])
            if room < 0:
                raise invalid(f"The hits have more than {most:,} bytes: ask for fewer at once.")
        answers.append(b'{"hits":[' + b",".join(told) + b"]}")
    return answers


def _hit(hit: Hit) -> bytes:
    return to_json(
        {
            "rank": hit.rank,
            "pid": hit.pid,
            "score": hit.score,
            "text": hit.text,
            "meta": hit.meta,
        }
    )

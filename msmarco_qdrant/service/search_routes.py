"""Phrases to ranked passages by HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic_core import to_json

from msmarco_qdrant.search_records import Hit
from msmarco_qdrant.search_request import SearchOptions
from msmarco_qdrant.service import problems
from msmarco_qdrant.service.bodies import JSON, media_type, parse_json, read_body
from msmarco_qdrant.service.limits import Gate, TooManyError
from msmarco_qdrant.service.openapi import json_content, ref, responses
from msmarco_qdrant.service.parts import Parts
from msmarco_qdrant.service.ports import Searcher
from msmarco_qdrant.service.problems import ProblemError, later
from msmarco_qdrant.service.requested import (
    filter_of,
    phrases_of,
    rerank_depth_of,
    search_of,
)
from msmarco_qdrant.service.schemas import HitsOut, SearchIn
from msmarco_qdrant.service.security import allowing, needed

_ANSWERS: Final = {
    "oneOf": [ref(HitsOut), {"type": "array", "items": ref(HitsOut)}],
    "description": "For `phrases`, a list of what one phrase gets, in their order.",
}


class SearchRoutes:
    """The handler.

    Args:
        parts: What it works with.
    """

    def __init__(self, parts: Parts) -> None:
        self._searcher = parts.searcher
        self._limits = parts.limits
        self._metrics = parts.metrics
        self._under_way = Gate(parts.limits.searches)

    async def post_search(self, request: Request) -> Response:
        """The passages that answer a phrase best, or each of several phrases."""
        limits = self._limits
        begun = time.monotonic()
        media_type(request, (JSON,))
        body = await read_body(request, max_bytes=limits.query_bytes, within_s=limits.body_s)
        search = search_of(parse_json(body), limits)
        with self._counted():
            found = [_told(hits) for hits in await self._found(search)]
        self._metrics.searched(search.mode, time.monotonic() - begun)
        return Response(to_json(found[0] if search.phrase is not None else found), media_type=JSON)

    async def _found(self, search: SearchIn) -> Sequence[Sequence[Hit]]:
        searcher, options = self._client(), _options(search, rerank_depth_of(search, self._limits))
        try:
            async with asyncio.timeout(self._limits.search_s):
                return await searcher.search_many(phrases_of(search), **options)
        except TimeoutError:
            raise ProblemError(
                problems.TOO_SLOW, f"It was given up after {self._limits.search_s:g} seconds."
            ) from None

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
        except TooManyError:
            raise later(problems.BUSY, "As many as may be are under way.", 1) from None
        finally:
            self._metrics.searching(self._under_way.inside)


def search_router(parts: Parts) -> APIRouter:
    """The route of searches."""
    router = APIRouter(tags=["search"], default_response_class=Response)
    router.add_api_route(
        "/search",
        SearchRoutes(parts).post_search,
        methods=["POST"],
        dependencies=[Depends(allowing(parts.tokens, "read"))],
        responses=responses(
            {200: ("The answers.", json_content(_ANSWERS))},
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
        ),
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


def _told(hits: Sequence[Hit]) -> dict[str, object]:
    return {
        "hits": [
            {
                "rank": hit.rank,
                "pid": hit.pid,
                "score": hit.score,
                "text": hit.text,
                "meta": hit.meta,
            }
            for hit in hits
        ]
    }

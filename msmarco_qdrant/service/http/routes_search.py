"""Routes of searches: queries to ranked passages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from msmarco_qdrant.search.options import RERANK_DEPTH
from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.auth import require
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.problems import invalid
from msmarco_qdrant.service.http.queries import Queries, add_query, json_response
from msmarco_qdrant.service.http.schemas import HitsOut
from msmarco_qdrant.service.http.schemas_search import RankIn, SearchIn
from msmarco_qdrant.service.http.schemas_similar import SimilarIn
from msmarco_qdrant.service.http.validation import parse_request

_ANSWERS: Final = "The answers; for `queries` a list of them, in the queries' order."


class SearchRoutes:
    """The handlers, over the parts that they use."""

    def __init__(self, dependencies: AppDependencies, queries: Queries) -> None:
        self._queries = queries
        self._metrics = dependencies.metrics
        self._about = dependencies.about
        self._permitted = dependencies.collections

    async def post_search(self, request: Request) -> Response:
        """Return the passages that answer a query best, or each of several queries."""
        begun = time.monotonic()
        search = parse_request(SearchIn, await self._queries.read(request))
        self._check_reranker(needed=search.depth is not None)
        self._check_pairs(search)
        self._check_collections(search.collections or ())
        texts, options = search.texts, search.options
        found, notes = await self._queries.run(lambda client: client.search_many(texts, **options))
        answers = await self._queries.to_json(found, notes)
        self._metrics.searched(search.mode, time.monotonic() - begun)
        content = answers[0] if search.query is not None else b"[" + b",".join(answers) + b"]"
        return json_response(content)

    async def post_rank(self, request: Request) -> Response:
        """Rank given passages for a query; those that the collection lacks are omitted."""
        given = parse_request(RankIn, await self._queries.read(request))
        self._check_reranker(needed=given.rerank)
        self._check_collections(given.collections or ())
        pids = [*map(str, given.pids)]
        found, _ = await self._queries.run(
            lambda client: client.rank(given.query, pids, **given.options)
        )
        return json_response((await self._queries.to_json([found], ()))[0])

    async def post_similar(self, request: Request) -> Response:
        """Return the passages most similar to some examples, and less similar to others."""
        given = parse_request(SimilarIn, await self._queries.read(request))
        self._check_collections(given.collections or ())
        positive, negative = given.examples, given.counterexamples
        found, notes = await self._queries.run(
            lambda client: client.similar(positive=positive, negative=negative, **given.options)
        )
        return json_response((await self._queries.to_json([found], notes))[0])

    def _check_pairs(self, search: SearchIn) -> None:
        about = self._about()
        try:
            search.check_pairs(about.rerank_depth if about is not None else RERANK_DEPTH)
        except ValueError as exc:
            raise invalid(f"The search is invalid: {exc}.") from None

    def _check_collections(self, names: Sequence[str]) -> None:
        if names:  # before the model is there, the own collection is not known
            self._queries.check_ready()
        about = self._about()
        own = () if about is None else (about.collection,)
        known = [*dict.fromkeys([*own, *self._permitted])]
        for name in names:
            if name not in known:
                raise invalid(
                    f"'collections' may name {', '.join(known)} here, got {name!r}: start the "
                    "sidecar with --search-collections to permit others of its store."
                )

    def _check_reranker(self, *, needed: bool) -> None:
        about = self._about()
        if needed and about is not None and not about.rerank:
            raise invalid(
                "'rerank' needs a cross-encoder, and this sidecar has none: start it with "
                "--reranker ms-marco-MiniLM-L6-v2, or search without 'rerank'."
            )


def search_router(dependencies: AppDependencies, queries: Queries) -> APIRouter:
    """Return the routes of searches."""
    routes = SearchRoutes(dependencies, queries)
    router = APIRouter(
        tags=["search"], dependencies=require(dependencies.tokens, "read", tenants=True)
    )
    many, best = HitsOut | list[HitsOut], "The passages, the best first."
    add_query(router, "/search", routes.post_search, SearchIn, many, _ANSWERS)
    add_query(router, "/rank", routes.post_rank, RankIn, HitsOut, best)
    add_query(
        router,
        "/similar",
        routes.post_similar,
        SimilarIn,
        HitsOut,
        "The passages, the most similar first.",
        problems.NO_PASSAGE,
    )
    return router

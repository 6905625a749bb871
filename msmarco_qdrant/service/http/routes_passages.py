"""Routes that read passages: one by its pid, and counts."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic_core import to_json

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.auth import require
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.openapi import problem_responses
from msmarco_qdrant.service.http.problems import ProblemError
from msmarco_qdrant.service.http.queries import (
    REFUSALS,
    Queries,
    add_query,
    json_response,
    rows_to_json,
    with_warnings,
)
from msmarco_qdrant.service.http.schemas import CountOut, FacetsOut, PageOut, PassageOut
from msmarco_qdrant.service.http.schemas_filter import to_meta_filter
from msmarco_qdrant.service.http.schemas_search import CountIn, FacetsIn, ScrollIn
from msmarco_qdrant.service.http.validation import check_utf8, parse_pid, parse_request
from msmarco_qdrant.service.interfaces import Searcher


class PassageRoutes:
    """The handlers, over the parts that they use."""

    def __init__(self, dependencies: AppDependencies, queries: Queries) -> None:
        self._queries = queries
        self._answer_bytes = dependencies.limits.answer_bytes

    async def get_passage(
        self,
        request: Request,
        pid: str,
        tenant: Annotated[str | None, Query(min_length=1, max_length=256)] = None,
    ) -> Response:
        """Return a passage."""
        check_utf8(request)
        wanted = parse_pid(pid)
        found, _ = await self._queries.run(lambda client: client.get([wanted], tenant=tenant))
        passage = found.get(wanted)
        if passage is None:
            detail = "No passage has that pid: batches that wait may write it, see /status."
            raise ProblemError(problems.NO_PASSAGE, detail)
        row = {"pid": passage.pid, "text": passage.text, "meta": passage.meta}
        return json_response(to_json(row))

    async def post_count(self, request: Request) -> Response:
        """Return the number of passages, or of those that a filter matches."""
        given = parse_request(CountIn, await self._queries.read(request))
        count, notes = await self._queries.run(
            lambda client: client.count(
                meta_filter=to_meta_filter(given.filter), tenant=given.tenant, exact=given.exact
            )
        )
        return with_warnings({"count": count}, notes)

    async def post_scroll(self, request: Request) -> Response:
        """Return passages without a query, page by page; `next` is null at the end."""
        given = parse_request(ScrollIn, await self._queries.read(request))
        after = None if given.after is None else str(given.after)

        async def read(client: Searcher) -> list[Passage]:
            found: list[Passage] = []
            async for passage in client.scroll(
                meta_filter=to_meta_filter(given.filter),
                tenant=given.tenant,
                order_by=given.order_by,
                after=after,
            ):
                found.append(passage)
                if len(found) > given.limit:
                    break
            return found

        found, notes = await self._queries.run(read)
        page = found[: given.limit]
        rows = [{"pid": one.pid, "text": one.text, "meta": one.meta} for one in page]
        content = await asyncio.to_thread(rows_to_json, rows, self._answer_bytes)
        following = to_json(page[-1].pid if len(found) > len(page) else None)
        warnings = b',"warnings":' + to_json(notes) if notes else b""
        return json_response(b'{"passages":' + content + b',"next":' + following + warnings + b"}")

    async def post_facets(self, request: Request) -> Response:
        """Return the most frequent values of a field, each with its number of passages."""
        given = parse_request(FacetsIn, await self._queries.read(request))
        facets, notes = await self._queries.run(
            lambda client: client.facets(
                given.field,
                limit=given.limit,
                meta_filter=to_meta_filter(given.filter),
                tenant=given.tenant,
                exact=given.exact,
            )
        )
        return with_warnings({"facets": facets}, notes)


def passage_router(dependencies: AppDependencies, queries: Queries) -> APIRouter:
    """Return the routes that read passages."""
    routes = PassageRoutes(dependencies, queries)
    router = APIRouter(
        tags=["passages"], dependencies=require(dependencies.tokens, "read", tenants=True)
    )
    router.add_api_route(
        "/passages/{pid:path}",
        routes.get_passage,
        methods=["GET"],
        response_model=PassageOut,
        response_description="The passage.",
        responses=problem_responses(
            *REFUSALS, problems.MALFORMED, problems.INVALID, problems.NO_PASSAGE
        ),
    )
    add_query(router, "/count", routes.post_count, CountIn, CountOut, "The number.")
    add_query(router, "/scroll", routes.post_scroll, ScrollIn, PageOut, "A page.")
    add_query(router, "/facets", routes.post_facets, FacetsIn, FacetsOut, "The values.")
    return router

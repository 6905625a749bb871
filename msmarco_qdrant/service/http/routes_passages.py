"""Routes that read passages: one by its pid, and counts."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic_core import to_json

from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.auth import require
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.openapi import describe_body, problem_responses
from msmarco_qdrant.service.http.problems import ProblemError
from msmarco_qdrant.service.http.queries import (
    REFUSALS,
    REFUSALS_OF_BODIES,
    Queries,
    json_response,
    with_warnings,
)
from msmarco_qdrant.service.http.schemas import CountOut, FacetsOut, PassageOut
from msmarco_qdrant.service.http.schemas_search import CountIn, FacetsIn
from msmarco_qdrant.service.http.validation import check_utf8, parse_pid, parse_request


class PassageRoutes:
    """The handlers, over the requests to the client."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def get_passage(self, request: Request, pid: str) -> Response:
        """Return a passage."""
        check_utf8(request)
        wanted = parse_pid(pid)
        found, _ = await self._queries.run(lambda client: client.get([wanted]))
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
            lambda client: client.count(meta_filter=given.meta_filter, exact=given.exact)
        )
        return with_warnings({"count": count}, notes)

    async def post_facets(self, request: Request) -> Response:
        """Return the most frequent values of a field, each with its number of passages."""
        given = parse_request(FacetsIn, await self._queries.read(request))
        facets, notes = await self._queries.run(
            lambda client: client.facets(
                given.field, limit=given.limit, meta_filter=given.meta_filter, exact=given.exact
            )
        )
        return with_warnings({"facets": facets}, notes)


def passage_router(dependencies: AppDependencies, queries: Queries) -> APIRouter:
    """Return the routes that read passages."""
    routes = PassageRoutes(queries)
    router = APIRouter(tags=["passages"], dependencies=require(dependencies.tokens, "read"))
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
    router.add_api_route(
        "/count",
        routes.post_count,
        methods=["POST"],
        response_model=CountOut,
        response_description="The number.",
        responses=problem_responses(*REFUSALS_OF_BODIES),
        openapi_extra=describe_body(CountIn),
    )
    router.add_api_route(
        "/facets",
        routes.post_facets,
        methods=["POST"],
        response_model=FacetsOut,
        response_description="The values.",
        responses=problem_responses(*REFUSALS_OF_BODIES),
        openapi_extra=describe_body(FacetsIn),
    )
    return router

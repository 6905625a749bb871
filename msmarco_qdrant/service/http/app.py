"""The HTTP app: the routes, inside the middleware that every request passes."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from msmarco_qdrant import __version__
from msmarco_qdrant.service.http.cors import CORS
from msmarco_qdrant.service.http.dependencies import AppDependencies, MountedApp
from msmarco_qdrant.service.http.middleware import RequestMiddleware
from msmarco_qdrant.service.http.openapi import DescribedApp, problem_responses
from msmarco_qdrant.service.http.problems import INTERNAL, TOO_SLOW, handle_problems
from msmarco_qdrant.service.http.queries import Queries
from msmarco_qdrant.service.http.routes_ingest import ingest_router
from msmarco_qdrant.service.http.routes_passages import passage_router
from msmarco_qdrant.service.http.routes_search import search_router
from msmarco_qdrant.service.http.routes_status import status_router


def create_app(
    dependencies: AppDependencies,
    queries: Queries | None = None,
    mounted: Sequence[MountedApp] = (),
) -> FastAPI:
    """Make the app; it opens and closes nothing.

    Args:
        dependencies: Its parts.
        queries: Runs the searches of all routes and apps.
        mounted: Apps of other protocols, which the caller runs.
    """
    app = DescribedApp(
        title="msmarco-qdrant",
        version=__version__,
        description="Passages in by HTTP, searchable soon after, even if a process crashes.",
        docs_url=None,  # these pages load scripts of other sites
        redoc_url=None,
        redirect_slashes=False,
        responses=problem_responses(INTERNAL, TOO_SLOW),
    )
    app.add_middleware(
        RequestMiddleware, metrics=dependencies.metrics, timeout_s=dependencies.limits.request_s
    )
    if dependencies.origins:
        app.add_middleware(CORSMiddleware, allow_origins=dependencies.origins, **CORS)
    handle_problems(app)
    queries = queries or Queries(dependencies)
    app.include_router(ingest_router(dependencies))
    app.include_router(search_router(dependencies, queries))
    app.include_router(passage_router(dependencies, queries))
    app.include_router(status_router(dependencies))
    app.router.routes.extend(Route(one.path, endpoint=one) for one in mounted)
    return app

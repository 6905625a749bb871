"""The HTTP app: the routes, behind one layer that every request passes.

It opens and closes nothing: whoever makes it brings the parts.
"""

from __future__ import annotations

from msmarco_qdrant import __version__
from msmarco_qdrant.service.http.auth import schemes_of
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.middleware import RequestMiddleware
from msmarco_qdrant.service.http.openapi import DescribedApp
from msmarco_qdrant.service.http.problems import handle_problems
from msmarco_qdrant.service.http.routes_ingest import ingest_router
from msmarco_qdrant.service.http.routes_search import search_router
from msmarco_qdrant.service.http.routes_status import state_router


def create_app(parts: AppDependencies) -> DescribedApp:
    """Make the app.

    Args:
        parts: What it works with; all of them stay the caller's.
    """
    app = DescribedApp(
        security_schemes=schemes_of(parts.tokens),
        limits=parts.limits,
        title="msmarco-qdrant",
        version=__version__,
        description="Passages in by HTTP, searchable soon after, whatever crashes.",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(RequestMiddleware, metrics=parts.metrics, within_s=parts.limits.request_s)
    handle_problems(app)
    for router in (ingest_router, search_router, state_router):
        app.include_router(router(parts))
    return app

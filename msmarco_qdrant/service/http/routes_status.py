"""Routes of the sidecar's state: probes, metrics, and the search page."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException

from msmarco_qdrant import __version__
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.auth import require
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.openapi import problem_responses
from msmarco_qdrant.service.http.schemas import HealthOut, ModelOut, ReadyOut, StatusOut
from msmarco_qdrant.service.interfaces import Check, Readiness

_PAGE: Final = Path(__file__).parent / "page"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_log = logging.getLogger(__name__)


class StatusRoutes:
    """The handlers, over the parts whose state they show."""

    def __init__(self, dependencies: AppDependencies) -> None:
        self._readiness = dependencies.readiness
        self._checks_s = dependencies.limits.checks_s
        self._metrics = dependencies.metrics
        self._about = dependencies.about
        self._backlog = dependencies.ingester.backlog
        # read once: no request reaches the file system
        self._files = {
            path.name: path.read_bytes() for path in _PAGE.iterdir() if path.suffix in _TYPES
        }

    async def get_healthz(self) -> HealthOut:
        """Return 200 while the process runs."""
        return HealthOut()

    async def get_readyz(self) -> ReadyOut:
        """Return 200 if the model is loaded, the store reachable, and the collection current."""
        return ReadyOut(checks=await _run_checks(self._readiness, timeout_s=self._checks_s))

    async def get_status(self) -> StatusOut:
        """Return what is searched, the search modes, and what waits to be written."""
        about, backlog = self._about(), self._backlog()
        spool = replace(backlog, oldest_s=round(backlog.oldest_s, 1))
        if about is None:
            return StatusOut(version=__version__, spool=spool)
        return StatusOut(
            version=__version__,
            collection=about.collection,
            model=ModelOut(name=about.model, dimension=about.dimension),
            passages=about.passages,
            modes=list(about.modes),
            rerank=about.rerank,
            fields=dict(about.fields),
            tenant_field=about.tenant_field,
            spool=spool,
        )

    async def get_metrics(self) -> Response:
        """Return counters and timings in Prometheus's text format."""
        # a header, as Starlette would add a second charset to the media type
        return Response(self._metrics.text(), headers={"Content-Type": self._metrics.media_type})

    async def get_page(self) -> Response:
        """Return the search page."""
        return await self.get_page_file("index.html")

    async def get_page_file(self, name: str) -> Response:
        """Return a file of the search page."""
        if name not in self._files:
            raise HTTPException(404)
        headers = {"Content-Type": _TYPES[Path(name).suffix], "Cache-Control": "no-cache"}
        return Response(self._files[name], headers=headers)


def status_router(dependencies: AppDependencies) -> APIRouter:
    """Return the routes of probes, state, metrics and the page; probes and page need no token."""
    routes = StatusRoutes(dependencies)
    read = require(dependencies.tokens, "read")
    refusals = problem_responses(*problems.OF_TOKENS)
    probe, state = APIRouter(tags=["state"]), APIRouter(tags=["state"], dependencies=read)
    probe.add_api_route("/healthz", routes.get_healthz)
    not_ready = problem_responses(problems.NOT_READY)
    probe.add_api_route("/readyz", routes.get_readyz, responses=not_ready)
    state.add_api_route("/status", routes.get_status, responses=refusals)
    state.add_api_route(
        "/metrics", routes.get_metrics, responses=refusals, response_class=PlainTextResponse
    )
    probe.include_router(state)
    for path, handler in (("/", routes.get_page), ("/page/{name}", routes.get_page_file)):
        probe.add_api_route(path, handler, include_in_schema=False)
    return probe


async def _run_checks(readiness: Readiness, *, timeout_s: float) -> dict[str, str]:
    """Return every check by its name, each "ok", possibly with a note.

    Raises:
        ProblemError: If one fails, or they take too long; it names the check.
    """
    try:
        async with asyncio.timeout(timeout_s):
            found = await readiness.checks()
    except TimeoutError:
        found = [Check("checks", f"took more than {timeout_s:g} s")]
    except MsmarcoQdrantError as exc:
        _log.warning("the checks of /readyz failed: %s", exc)
        found = [Check("checks", "failed; the log has the cause")]
    checks = {
        check.name: check.problem or (f"ok, but {check.note}" if check.note else "ok")
        for check in found
    }
    failed = [check.name for check in found if check.problem]
    if failed:
        detail = f"Not ready yet: {', '.join(failed)}."
        members = {"checks": checks}
        raise problems.ProblemError(problems.NOT_READY, detail, {"Retry-After": "5"}, members)
    return checks

"""How the sidecar is, for probes, for Prometheus, and for people: the search page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from msmarco_qdrant import __version__
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.auth import allowing, needed
from msmarco_qdrant.service.http.body import JSON
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.openapi import json_content, ref, responses
from msmarco_qdrant.service.http.schemas import HealthOut, ReadyOut, StatusOut, status_of
from msmarco_qdrant.service.interfaces import Readiness, Tokens

_log = logging.getLogger(__name__)
_INDEX: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_REFUSED: Final = (
    problems.NO_TOKEN,
    problems.WRONG_TOKEN,
    problems.MISDIRECTED,
    problems.INSIDE,
)
_NO_PAGE: Final = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>msmarco-qdrant</title>
<p>The sidecar answers; its interface is described in <a href="/openapi.json">openapi.json</a>.
"""


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page, as it is sent."""

    content: bytes
    media_type: str


def page_files(folder: Path) -> Mapping[str, PageFile]:
    """The files of the page by name, read once: no request reaches the file system."""
    found = {"": PageFile(_NO_PAGE, _TYPES[".html"])}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix in _TYPES:
            found[path.name] = PageFile(path.read_bytes(), _TYPES[path.suffix])
    return found


class StateRoutes:
    """The handlers.

    Args:
        parts: What they tell of.
    """

    def __init__(self, parts: AppDependencies) -> None:
        self._readiness = parts.readiness
        self._checks_s = parts.limits.checks_s
        self._metrics = parts.metrics
        self._about = parts.about
        self._backlog = parts.ingester.backlog
        self._files = page_files(parts.page)

    async def get_healthz(self) -> Response:
        """The process turns."""
        return Response(to_json({"status": "ok"}), media_type=JSON)

    async def get_readyz(self) -> Response:
        """Whether the model is loaded, the store reachable, and the collection up to date."""
        checks = await _ready_checks(self._readiness, within_s=self._checks_s)
        return Response(to_json({"status": "ready", "checks": checks}), media_type=JSON)

    async def get_status(self) -> Response:
        """What is searched, how it can be, and how much waits to be written."""
        status = status_of(self._about(), self._backlog(), __version__)
        return Response(status.model_dump_json(), media_type=JSON)

    async def get_metrics(self) -> Response:
        """Counters and timings in Prometheus's text format."""
        # the text format's type has its charset already
        return Response(self._metrics.text(), headers={"Content-Type": self._metrics.media_type})

    async def get_page(self) -> Response:
        """The search page."""
        return _sent(self._files.get(_INDEX, self._files[""]))

    async def get_page_file(self, name: str) -> Response:
        """A file of the search page."""
        if name not in self._files:
            raise HTTPException(404)
        return _sent(self._files[name])


def state_router(parts: AppDependencies) -> APIRouter:
    """The routes of probes, state, metrics and the page."""
    routes, router = StateRoutes(parts), APIRouter(default_response_class=Response)
    _add_probes(router, routes)
    _add_state(router, routes, parts.tokens)
    for path, handler in (("/", routes.get_page), ("/page/{name}", routes.get_page_file)):
        router.add_api_route(path, handler, methods=["GET"], include_in_schema=False)
    return router


def _add_probes(router: APIRouter, routes: StateRoutes) -> None:
    """They need no token."""
    for path, handler, told, model, refused in (
        ("/healthz", routes.get_healthz, "It does.", HealthOut, ()),
        ("/readyz", routes.get_readyz, "It is ready.", ReadyOut, (problems.NOT_READY,)),
    ):
        router.add_api_route(
            path,
            handler,
            methods=["GET"],
            tags=["state"],
            responses=responses({200: (told, json_content(ref(model)))}, problems.INSIDE, *refused),
        )


def _add_state(router: APIRouter, routes: StateRoutes, tokens: Tokens) -> None:
    """They need the token to read."""
    text = {"text/plain": {"schema": {"type": "string"}}}
    for path, handler, told, content in (
        ("/status", routes.get_status, "The state.", json_content(ref(StatusOut))),
        ("/metrics", routes.get_metrics, "The metrics.", text),
    ):
        router.add_api_route(
            path,
            handler,
            methods=["GET"],
            tags=["state"],
            dependencies=[Depends(allowing(tokens, "read"))],
            responses=responses({200: (told, content)}, *_REFUSED),
            openapi_extra={"security": needed(tokens, "read")},
        )


def _sent(file: PageFile) -> Response:
    headers = {"Content-Type": file.media_type, "Cache-Control": "no-cache"}
    return Response(file.content, headers=headers)


async def _ready_checks(readiness: Readiness, *, within_s: float) -> Mapping[str, str]:
    """Every check by its name, each "ok".

    Raises:
        ProblemError: If one is not, or they do not end in time; it tells which.
    """
    try:
        async with asyncio.timeout(within_s):
            checks = await readiness.checks()
    except TimeoutError:
        raise _not_ready({"checks": f"not done within {within_s:g} s"}) from None
    except MsmarcoQdrantError as exc:
        _log.warning("the checks of /readyz failed: %s", exc)
        raise _not_ready({"checks": "failed; the log tells why"}) from exc
    told = {check.name: check.problem or "ok" for check in checks}
    if any(check.problem for check in checks):
        raise _not_ready(told)
    return told


def _not_ready(checks: Mapping[str, str]) -> problems.ProblemError:
    missing = [name for name, told in checks.items() if told != "ok"]
    return problems.ProblemError(
        problems.NOT_READY,
        f"Not ready yet: {', '.join(missing)}.",
        {"Retry-After": "5"},
        {"checks": dict(checks)},
    )

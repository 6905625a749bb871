"""The server inside of a sidecar: searches as its HTTP routes do, writes through its spool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar, cast

from mcp.server.mcpserver.exceptions import ToolError

from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.reports import UpsertReport
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.integrations.mcp.http import McpApp
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.problems import ProblemError, to_problem
from msmarco_qdrant.service.http.queries import Queries
from msmarco_qdrant.service.http.validation import parse_passages
from msmarco_qdrant.service.http.waiting import finished_within
from msmarco_qdrant.service.interfaces import About, BatchReport, Delete, Operation, Searcher

_T = TypeVar("_T")


def mount_mcp(dependencies: AppDependencies, queries: Queries, *, write: bool) -> McpApp:
    """Make the app that a sidecar serves at `/mcp`.

    Args:
        dependencies: The parts of the sidecar's app.
        queries: Runs its searches.
        write: True to offer the tools that write.
    """
    return McpApp(
        SidecarBackend(dependencies, queries),
        dependencies.tokens,
        write=write,
        origins=dependencies.origins,
        limits=dependencies.limits,
    )


class SidecarBackend:
    """Implements `Backend` over the parts of a sidecar's app.

    Args:
        dependencies: The parts.
        queries: Runs the searches.
    """

    def __init__(self, dependencies: AppDependencies, queries: Queries) -> None:
        self.collections = dependencies.collections
        self._about = dependencies.about
        self._ingester = dependencies.ingester
        self._wait_s = dependencies.limits.wait_s
        self._writes = asyncio.Semaphore(dependencies.limits.writes)
        self._queries = queries

    async def about(self) -> About:
        """Describe the collection.

        Raises:
            ToolError: While the model loads.
        """
        about = self._about()
        if about is None:
            raise ToolError("the model is loading: try again soon")
        return about

    async def run(self, call: Callable[[Searcher], Awaitable[_T]]) -> tuple[_T, Sequence[str]]:
        """Return the result of a call, and the warnings of its filter.

        Raises:
            ToolError: If the sidecar refuses it, such as for too many searches.
        """
        try:
            return await self._queries.run(call)
        except ProblemError as exc:
            raise ToolError(exc.detail) from exc

    async def add(self, passages: Sequence[Passage]) -> UpsertReport | None:
        """Write passages; return None if they are on disk and not written in time."""
        rows = [{"pid": one.pid, "text": one.text, "meta": one.meta} for one in passages]
        report = await self._apply(lambda: parse_passages(rows))
        if report is None:
            return None
        rejects = tuple(Reject("mcp", one.line, one.reason, b"", 0) for one in report.rejects)
        return UpsertReport(
            written=report.written,
            unchanged=report.unchanged,
            superseded=report.superseded,
            rejected=report.rejected,
            rejects=rejects,
        )

    async def delete(self, pids: Sequence[str], tenant: str | None) -> int | None:
        """Delete passages; return None if that is on disk and not done in time.

        Raises:
            ToolError: For a tenant: the sidecar's tokens of tenants only read.
        """
        if tenant is not None:
            raise ToolError("a token of a tenant only reads")
        report = await self._apply(lambda: [Delete(pid) for pid in pids])
        return None if report is None else report.deleted

    async def _apply(self, make: Callable[[], Sequence[Operation]]) -> BatchReport | None:
        """Accept operations as a batch and wait for its end; None if that takes too long."""
        try:
            async with self._writes:
                batch = await asyncio.to_thread(lambda: self._ingester.accept(make()))
        except (ProblemError, MsmarcoQdrantError) as exc:
            problem = to_problem(exc)
            if problem is None:
                raise
            raise ToolError(_reason(problem)) from exc
        state = await finished_within(self._ingester, batch, self._wait_s)
        if state is not None and state.state == "failed":
            raise ToolError(
                f"the batch was accepted and is kept, but cannot be applied: {state.reason}"
            )
        return None if state is None else state.report


def _reason(problem: ProblemError) -> str:
    errors = cast("Sequence[Mapping[str, str]]", problem.members.get("errors", ()))
    listed = "; ".join(f"{one['where']}: {one['reason']}" for one in errors)
    return listed or problem.detail

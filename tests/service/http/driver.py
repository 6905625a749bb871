"""The app over small real parts, and requests to it without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, Unpack

import httpx

from msmarco_qdrant.core.example import Example
from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Facet, Hit
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.options import RankOptions, SearchOptions, SimilarOptions
from msmarco_qdrant.service.http.app import create_app
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import Tokens
from msmarco_qdrant.service.interfaces import (
    About,
    Backlog,
    BatchReport,
    BatchState,
    Check,
    Operation,
    Searcher,
)
from msmarco_qdrant.service.metrics import Metrics
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker

_T = TypeVar("_T")
Problem = dict[str, Any]


@dataclass
class KeepingIngester:
    """Keeps what it accepts; a batch ends when `ends` says so."""

    ends: bool = True
    error: Exception | None = None
    waited: BatchState | BaseException | None = None
    batches: list[Sequence[Operation]] = field(default_factory=list)

    def accept(self, operations: Sequence[Operation]) -> str:
        """Keep a batch, or raise what is to be raised."""
        if self.error is not None:
            raise self.error
        self.batches.append(operations)
        return f"b-{len(self.batches)}"

    def state(self, batch: str) -> BatchState | None:
        """Of a batch that was accepted."""
        if batch not in {f"b-{number + 1}" for number in range(len(self.batches))}:
            return None
        return BatchState(batch, "done" if self.ends else "queued", 0.0)

    def recent(self, limit: int) -> Sequence[BatchState]:
        """The newest of them."""
        ids = [f"b-{number + 1}" for number in reversed(range(len(self.batches)))]
        return [state for id_ in ids[:limit] if (state := self.state(id_))]

    async def finished(self, batch: str) -> BatchState:
        """At once, or never; or what is to come of it."""
        if isinstance(self.waited, BaseException):
            raise self.waited
        if self.waited is not None:
            return self.waited
        if not self.ends:
            await asyncio.Event().wait()
        return BatchState(batch, "done", 0.0, 1.0, BatchReport(written=1))

    def backlog(self) -> Backlog:
        """As many as it keeps."""
        return Backlog(len(self.batches), 1.5)


@dataclass
class GivenChecks:
    """Says what it is told to."""

    given: Sequence[Check] = (Check("model"), Check("store"))

    async def checks(self) -> Sequence[Check]:
        """The given ones."""
        return self.given


class NoSearcher:
    """Answers nothing; each searcher of a test overrides what it answers."""

    async def search_many(
        self, queries: Sequence[str], **options: Unpack[SearchOptions]
    ) -> Sequence[Hits]:
        """Refuse."""
        raise NotImplementedError(queries, options)

    async def rank(self, query: str, pids: Sequence[str], **options: Unpack[RankOptions]) -> Hits:
        """Refuse."""
        raise NotImplementedError(query, pids, options)

    async def similar(
        self,
        *,
        positive: Sequence[str | Example] = (),
        negative: Sequence[str | Example] = (),
        **options: Unpack[SimilarOptions],
    ) -> Hits:
        """Refuse."""
        raise NotImplementedError(positive, negative, options)

    async def get(self, pids: Iterable[str], *, tenant: str | None = None) -> Mapping[str, Passage]:
        """Refuse."""
        raise NotImplementedError(pids, tenant)

    async def count(
        self,
        *,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        exact: bool = True,
    ) -> int:
        """Refuse."""
        raise NotImplementedError(meta_filter, tenant, exact)

    def scroll(
        self,
        *,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        order_by: str | None = None,
        after: str | None = None,
    ) -> AsyncIterator[Passage]:
        """Refuse."""
        raise NotImplementedError(meta_filter, tenant, order_by, after)

    async def facets(
        self,
        field: str,
        *,
        limit: int = 10,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        exact: bool = True,
    ) -> Sequence[Facet]:
        """Refuse."""
        raise NotImplementedError(field, limit, meta_filter, tenant, exact)


@dataclass
class RaisingSearcher(NoSearcher):
    """Fails each search in one way."""

    error: Exception

    async def search_many(
        self,
        queries: Sequence[str],  # noqa: ARG002
        **options: Unpack[SearchOptions],  # noqa: ARG002
    ) -> list[Hits]:
        """Raise it."""
        raise self.error


@dataclass
class GivenHits(NoSearcher):
    """Answers every query with the same hits."""

    hits: Sequence[Hit]

    async def search_many(
        self,
        queries: Sequence[str],
        **options: Unpack[SearchOptions],  # noqa: ARG002
    ) -> list[Hits]:
        """Them, for each."""
        return [Hits(self.hits) for _ in queries]


class WaitingSearcher(NoSearcher):
    """Answers once it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let = asyncio.Event()

    async def search_many(
        self,
        queries: Sequence[str],
        **options: Unpack[SearchOptions],  # noqa: ARG002
    ) -> list[Hits]:
        """No hits."""
        self.asked.set()
        await self.let.wait()
        return [Hits() for _ in queries]


@dataclass
class Driver:
    """What a test holds: the parts it may change, and a client."""

    client: httpx.AsyncClient
    ingester: KeepingIngester
    metrics: Metrics
    checks: GivenChecks


def drive(
    use: Callable[[Driver], Coroutine[Any, Any, _T]],
    *,
    searcher: Callable[[], Searcher | None] = lambda: None,
    tokens: Tokens | None = None,
    limits: Limits | None = None,
    ingester: KeepingIngester | None = None,
    about: Callable[[], About | None] = lambda: None,
    origins: Sequence[str] = (),
) -> _T:
    """Use the app in an event loop."""
    given = (tokens or Tokens(), limits or Limits(), origins)
    return asyncio.run(_use(use, searcher, ingester or KeepingIngester(), *given, about=about))


async def _use(
    use: Callable[[Driver], Coroutine[Any, Any, _T]],
    searcher: Callable[[], Searcher | None],
    ingester: KeepingIngester,
    *given: Any,
    **more: Any,
) -> _T:
    checks, metrics = GivenChecks(), Metrics(ingester.backlog)
    app = create_app(AppDependencies(ingester, searcher, checks, metrics, *given, **more))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await use(Driver(client, ingester, metrics, checks))


def drive_search(
    use: Callable[[Driver], Coroutine[Any, Any, _T]], passages: Sequence[Passage]
) -> _T:
    """Use the app over a real client on a store in memory."""

    async def main() -> _T:
        encoder = HashingEncoder()
        from msmarco_qdrant.stores import open_store

        store = open_store(":memory:", create=True)
        try:
            ingest_passages(passages, store, collection="msmarco", encoder=encoder)
            async with await AsyncSearchClient.open(
                store, encoder=encoder, reranker=WordOverlapReranker()
            ) as searcher:
                return await _use(use, lambda: searcher, KeepingIngester())
        finally:
            store.close()

    return asyncio.run(main())


def exchange(
    method: str, path: str, *, app: dict[str, Any] | None = None, **request: Any
) -> httpx.Response:
    """Return the answer to a request."""

    async def use(driver: Driver) -> httpx.Response:
        return await driver.client.request(method, path, **request)

    return drive(use, **(app or {}))


def problem_of(response: httpx.Response) -> tuple[int, str]:
    """The status of a problem, and its kind."""
    assert "application/problem+json" == response.headers["content-type"]
    problem = response.json()
    assert {"type", "title", "status", "detail", "instance"} <= set(problem)
    assert response.status_code == problem["status"]
    return response.status_code, problem["type"].rpartition(":")[2]

"""Values and Protocols that the parts of the sidecar exchange.

The HTTP app depends on these alone, not on the spool, the worker or an engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias, Unpack

from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.example import Example
from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.records import Meta, Passage
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.core.search_types import Facet, SearchMode
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.search.options import (
    RERANK_DEPTH,
    RankOptions,
    SearchOptions,
    SimilarOptions,
)

BatchId: TypeAlias = str
"""32 hexadecimal digits."""

Phase: TypeAlias = Literal["queued", "working", "done", "failed"]

COUNTS: Final = ("written", "unchanged", "rejected", "deleted", "superseded")
"""Counters of a batch report, in the order of output."""


class ShuttingDownError(MsmarcoQdrantError):
    """The sidecar is shutting down and accepts no more batches."""


@dataclass(frozen=True, slots=True)
class Write:
    """Add a passage, or replace the one of that pid."""

    pid: str
    text: str
    meta: Meta = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a passage, if it exists."""

    pid: str


Operation: TypeAlias = Write | Delete


@dataclass(frozen=True, slots=True)
class RowReject:
    """A row of a batch that could not be applied.

    Attributes:
        line: Its line or row in the batch, from 1.
        reason: A sentence for people.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class BatchReport:
    """The effect of a batch.

    After a crash or a failed attempt, passages that an earlier attempt wrote may count as
    unchanged, and passages that it deleted may not count.

    Attributes:
        written: Passages stored or rewritten.
        unchanged: Passages that were stored with the same text and meta before.
        rejected: Rows that could not be applied.
        deleted: Passages that were stored and are removed.
        superseded: Rows that a later row of the same pid replaced.
        seconds: Wall time of the last attempt.
        rejects: The first hundred rejected rows.
    """

    written: int = 0
    unchanged: int = 0
    rejected: int = 0
    deleted: int = 0
    superseded: int = 0
    seconds: float = 0.0
    rejects: tuple[RowReject, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchState:
    """State of a batch.

    Attributes:
        batch: Its id.
        state: "queued", "working", "done" (its passages are durable and searchable) or "failed".
        accepted_at: Seconds since 1970 at which it was accepted or, after a restart, queued again.
        ended_at: Seconds since 1970 at which it was done or failed, None before.
        report: Its effect; all zero before it has ended.
        reason: Reason of the failure, "" otherwise.
        source: "http", or the name of the inbox's file; its form, such as "tsv", if the sidecar
            was restarted before it ended.
    """

    batch: BatchId
    state: Phase
    accepted_at: float
    ended_at: float | None = None
    report: BatchReport = BatchReport()
    reason: str = ""
    source: str = ""


def counts_of(report: BatchReport) -> dict[str, int]:
    """Return the counters of a report by the names of `COUNTS`, in their order."""
    return {name: getattr(report, name) for name in COUNTS}


@dataclass(frozen=True, slots=True)
class Backlog:
    """Batches of the spool that have not ended, and the age of the oldest in seconds."""

    batches: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class SpoolUse:
    """Use of the spool's disk.

    Attributes:
        bytes: Bytes of all batches, with ended ones.
        failed: Failed batches that are kept.
        dropped: Failed batches removed because of the size limit, since the start.
    """

    bytes: int = 0
    failed: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """One readiness check; `problem` is a few words, "" if the check passed.

    `note` is what should be repaired although the check passed. Anybody may read both at
    `/readyz`: they must contain no path, URL or name.
    """

    name: str
    problem: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """Description of the collection that is searched.

    Attributes:
        collection: Name of the collection.
        model: Name of its bi-encoder.
        dimension: Length of that model's vectors.
        modes: Search modes that are available.
        rerank: True if a cross-encoder can rerank hits.
        passages: Number of passages, None if unknown.
        rerank_depth: Number of hits that a search reranks by default.
        fields: Fields of `meta` that a payload index serves, each with its kind.
        tenant_field: The field of the tenants, one of which each request names; None without.
    """

    collection: str
    model: str
    dimension: int
    modes: Sequence[SearchMode]
    rerank: bool = False
    passages: int | None = None
    rerank_depth: int = RERANK_DEPTH
    fields: Mapping[str, PayloadIndex] = field(default_factory=dict)
    tenant_field: str | None = None


class Ingester(Protocol):
    """Accepts batches of operations and reports their state."""

    def accept(self, operations: Sequence[Operation]) -> str:
        """Store operations durably as one batch; called in a thread.

        Returns:
            The batch's id: at most 64 letters, digits and hyphens.

        Raises:
            SpoolFullError: If the spool's quota is exceeded.
            ShuttingDownError: During the shutdown.
        """

    def state(self, batch: str) -> BatchState | None:
        """Return the state of a batch, None for an unknown id; called in a thread."""

    def recent(self, limit: int) -> Sequence[BatchState]:
        """Return the newest batches, those that have not ended first; called in a thread."""

    async def finished(self, batch: str) -> BatchState:
        """Wait until a batch is done or failed; the wait may be cancelled.

        Raises:
            ShuttingDownError: If the sidecar shuts down first; the batch is kept.
        """

    def backlog(self) -> Backlog:
        """Return the backlog from memory, without blocking or reading the disk."""


class WorkerEvents:
    """Receives events of a worker in its thread, and ignores them. No method may raise."""

    def ended(self, state: BatchState, stages: Sequence[StageTiming]) -> None:
        """Receive the end of a batch: done or failed."""

    def failing(self, batch: BatchId, attempt: int, error: BaseException) -> None:
        """Receive a failed attempt that will be retried."""

    def optimized(self, seconds: float) -> None:
        """Receive the seconds of an index build."""


class Searcher(Protocol):
    """Answers queries and reads passages, as `AsyncSearchClient` does."""

    async def search_many(
        self, queries: Sequence[str], **options: Unpack[SearchOptions]
    ) -> Sequence[Hits]:
        """Return the hits of each query."""

    async def rank(self, query: str, pids: Sequence[str], **options: Unpack[RankOptions]) -> Hits:
        """Return the hits of given passages."""

    async def similar(
        self,
        *,
        positive: Sequence[str | Example] = (),
        negative: Sequence[str | Example] = (),
        **options: Unpack[SimilarOptions],
    ) -> Hits:
        """Return the hits most similar to examples."""

    async def get(self, pids: Iterable[str], *, tenant: str | None = None) -> Mapping[str, Passage]:
        """Return passages by pid."""

    async def count(
        self,
        *,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        exact: bool = True,
    ) -> int:
        """Return the number of passages."""

    def scroll(
        self,
        *,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        order_by: str | None = None,
        after: str | None = None,
    ) -> AsyncIterator[Passage]:
        """Return passages one after the other."""

    async def facets(
        self,
        field: str,
        *,
        limit: int = 10,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        exact: bool = True,
    ) -> Sequence[Facet]:
        """Return the values of a field, each with its number of passages."""


class Readiness(Protocol):
    """Runs the readiness checks."""

    async def checks(self) -> Sequence[Check]:
        """Run every check."""

"""Values and Protocols that the parts of the sidecar exchange.

The HTTP app depends on these alone, not on the spool, the worker or an engine.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final, Literal, Protocol, TypeAlias, Unpack

from msmarco_qdrant.core.records import Meta
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.core.search_types import Hit, SearchMode
from msmarco_qdrant.errors import MsmarcoQdrantError, UsageError
from msmarco_qdrant.search.options import SearchOptions

Scope: TypeAlias = Literal["read", "write"]

SCOPES: Final[tuple[Scope, ...]] = ("read", "write")
MIB: Final = 2**20
_VISIBLE_ASCII: Final = re.compile(r"[!-~]{16,}")

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
    """

    batch: BatchId
    state: Phase
    accepted_at: float
    ended_at: float | None = None
    report: BatchReport = BatchReport()
    reason: str = ""


def counts_of(report: BatchReport) -> dict[str, int]:
    """Return the counters of a report by the names of `COUNTS`, in their order."""
    return {name: getattr(report, name) for name in COUNTS}


@dataclass(frozen=True, slots=True)
class Backlog:
    """Batches of the spool that have not ended, and the age of the oldest in seconds."""

    batches: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class Check:
    """One readiness check; `problem` is a few words, "" if the check passed.

    Anybody may read it at `/readyz`: it must contain no path, URL or name.
    """

    name: str
    problem: str = ""


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
    """

    collection: str
    model: str
    dimension: int
    modes: Sequence[SearchMode]
    rerank: bool = False
    passages: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of requests and connections; `http.schemas` has those of passages and searches.

    Attributes:
        body_bytes: Bytes of a batch of passages, as sent and decompressed alike.
        query_bytes: Bytes of a search's body.
        answer_bytes: Bytes of the answer to a search.
        brackets: `[` and `{` in a batch, those in texts too: a list or an object takes far more
            time and memory than its three bytes.
        query_brackets: `[` and `{` in a search.
        searches: Searches that run at once; more are answered 503.
        bodies: Batches that are received at once; more are answered 429.
        writes: Batches that are parsed and written to disk at once; others wait.
        body_s: Seconds within which a body must arrive.
        search_s: Seconds within which a search must be answered.
        wait_s: Seconds that `?wait=true` waits for a batch.
        checks_s: Seconds within which the checks of `/readyz` must end.
        request_s: Seconds within which any request must be answered, and its answer taken.
        head_s: Seconds within which the head of a request must arrive.
        connections: Connections at once; one more closes the one that was silent longest. A process
            has 1,024 files by default.

    Raises:
        UsageError: For a bound that is not more than 0.
    """

    body_bytes: int = 16 * MIB
    query_bytes: int = MIB
    answer_bytes: int = 16 * MIB
    brackets: int = 500_000
    query_brackets: int = 50_000
    searches: int = 256
    bodies: int = 16
    writes: int = 4
    body_s: float = 30.0
    search_s: float = 10.0
    wait_s: float = 30.0
    checks_s: float = 5.0
    request_s: float = 120.0
    head_s: float = 10.0
    connections: int = 800

    def __post_init__(self) -> None:
        for bound in fields(self):
            if not (value := getattr(self, bound.name)) > 0:
                raise UsageError(f"{bound.name} must be more than 0, got {value}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The bearer tokens; a scope without one is open to every client of the port.

    Attributes:
        read: The token to search, and to read metrics and batches.
        write: The token to write and delete passages, and to read batches.

    Raises:
        UsageError: For a token that is short, or has more than visible ASCII.
    """

    read: str | None = field(default=None, repr=False)
    write: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for scope in SCOPES:
            token = self.of(scope)
            if token is not None and not _VISIBLE_ASCII.fullmatch(token):
                raise UsageError(
                    f"the {scope} token must be 16 or more visible ASCII characters without "
                    "spaces, as `openssl rand -hex 32` makes them"
                )

    def of(self, scope: Scope) -> str | None:
        """Return the token of a scope, None if it is open."""
        return self.read if scope == "read" else self.write


def check_binding(host: str, tokens: Tokens) -> None:
    """Refuse to listen where other machines reach the port, unless both tokens are set.

    Raises:
        UsageError: If `host` is not this machine's loopback and a token is missing.
    """
    missing = [scope for scope in SCOPES if tokens.of(scope) is None]
    if not missing or is_loopback(host):
        return
    variables = " and ".join(f"MSMARCO_QDRANT_{scope.upper()}_TOKEN" for scope in missing)
    raise UsageError(
        f"host must be of this machine's loopback without both tokens, got {host or '(empty)'}: "
        f"set {variables}, or listen on 127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Return True for a loopback name or address of this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


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
    """Answers queries, as `AsyncSearchClient` does."""

    async def search_many(
        self, queries: Sequence[str], **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """Return the hits of each query."""


class Readiness(Protocol):
    """Runs the readiness checks."""

    async def checks(self) -> Sequence[Check]:
        """Run every check."""

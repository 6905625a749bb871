"""Values and Protocols that the parts of the sidecar exchange.

The HTTP app depends on these alone, not on the spool, the worker or an engine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final, Literal, Protocol, TypeAlias, Unpack

from msmarco_qdrant.core.records import Meta
from msmarco_qdrant.core.search_types import Hit, SearchMode
from msmarco_qdrant.errors import MsmarcoQdrantError, UsageError
from msmarco_qdrant.search.options import SearchOptions

Scope: TypeAlias = Literal["read", "write"]

SCOPES: Final[tuple[Scope, ...]] = ("read", "write")
MIB: Final = 2**20
_SHORTEST: Final = 16

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

    def ended(self, state: Phase, report: BatchReport, reason: str, at: float) -> BatchState:
        """Return the same batch at its end."""
        return replace(self, state=state, report=report, reason=reason, ended_at=at)


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
    """Bounds of requests; every one is more than zero.

    Attributes:
        body_bytes: Bytes of a batch of passages, as sent and decompressed alike.
        query_bytes: Bytes of a search's body.
        answer_bytes: Bytes of the answer to a search.
        passages: Passages of a batch.
        brackets: `[` and `{` in a batch, in its texts too: a value that is a list or an object
            takes far more time and memory than the three bytes that it may have.
        query_brackets: The same, in a search.
        text_chars: Characters of a passage's text.
        meta_bytes: Bytes of a passage's meta, as JSON: with text and pid it has to fit into a line
            of 1 MiB, which is what a batch's file holds at most.
        pid_chars: Characters of a pid.
        queries: Queries of a search.
        query_chars: Characters of a query.
        conditions: Values and bounds of a search's filter, of all its fields together.
        field_chars: Characters of the name of a filter's field.
        limit: Hits a query.
        hits: Hits of all queries of a search together.
        rerank_depth: Passages a query that a cross-encoder scores, unless more hits are wanted.
        pairs: Of all queries of a search, pairs that a cross-encoder scores.
        searches: Searches under way at once; more are answered 503.
        bodies: Batches being received at once; more are answered 429.
        writes: Batches being parsed and written to disk at once; others wait for their turn.
        body_s: Seconds in which a body has to arrive.
        search_s: Seconds in which a search has to be answered.
        wait_s: Seconds that `?wait=true` waits for a batch.
        checks_s: Seconds in which the checks of `/readyz` have to be done.
        request_s: Seconds in which any request has to be answered and its answer taken.
        head_s: Seconds in which the head of a request has to arrive.
        connections: Connections at once; for one more, the one that has been silent longest is
            closed. A process has 1,024 files, unless it was given more.

    Raises:
        UsageError: For a bound that is not more than zero.
    """

    body_bytes: int = 16 * MIB
    query_bytes: int = MIB
    answer_bytes: int = 16 * MIB
    passages: int = 10_000
    brackets: int = 500_000
    query_brackets: int = 50_000
    text_chars: int = 100_000
    meta_bytes: int = MIB // 4
    pid_chars: int = 1_024
    queries: int = 64
    query_chars: int = 2_000
    conditions: int = 1_000
    field_chars: int = 256
    limit: int = 1_000
    hits: int = 10_000
    rerank_depth: int = 100
    pairs: int = 2_000
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
        for one in fields(self):
            if not getattr(self, one.name) > 0:
                raise UsageError(
                    f"the limit {one.name}={getattr(self, one.name)} lets nothing through: "
                    "expected more than 0"
                )


@dataclass(frozen=True, slots=True)
class Tokens:
    """The bearer tokens; without one, that scope is open to whoever reaches the port.

    Attributes:
        read: Allows to search, and to read metrics and batches.
        write: Allows to bring and delete passages, and to read batches.

    Raises:
        UsageError: For a token that is short, or holds more than visible ASCII.
    """

    read: str | None = field(default=None, repr=False)
    write: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for scope, token in (("read", self.read), ("write", self.write)):
            if token is not None and not _usable(token):
                raise UsageError(
                    f"the token to {scope} cannot be used: expected {_SHORTEST} or more visible "
                    "ASCII characters without spaces, such as `openssl rand -hex 32` gives"
                )

    def of(self, scope: Scope) -> str | None:
        """The token of a scope, None if it is open."""
        return self.read if scope == "read" else self.write


def check_binding(host: str, tokens: Tokens) -> None:
    """Refuse to listen where others reach the port, unless both tokens are set.

    Raises:
        UsageError: If `host` is not this machine's loopback and a token is missing.
    """
    missing = [scope for scope in SCOPES if tokens.of(scope) is None]
    if not missing or is_loopback(host):
        return
    raise UsageError(
        f"without a token to {' and one to '.join(missing)} the sidecar listens on loopback only, "
        f"and {host or 'an empty host'} is reached from elsewhere: set "
        f"{' and '.join(f'MSMARCO_QDRANT_{scope.upper()}_TOKEN' for scope in missing)}, "
        "or listen on 127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Return True for a loopback name or address of this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _usable(token: str) -> bool:
    return len(token) >= _SHORTEST and all("!" <= character <= "~" for character in token)


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

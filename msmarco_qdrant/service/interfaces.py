"""What the HTTP app needs of the rest of the sidecar, as Protocols and the values they exchange.

The app knows neither the spool nor the worker nor an engine: tests hand it small classes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final, Literal, Protocol, TypeAlias, Unpack

from msmarco_qdrant.core.records import Meta
from msmarco_qdrant.core.search_types import Hit, SearchMode
from msmarco_qdrant.errors import MsmarcoQdrantError, UsageError
from msmarco_qdrant.search.options import SearchOptions
from msmarco_qdrant.service.spool.state import BatchState

Scope: TypeAlias = Literal["read", "write"]

SCOPES: Final[tuple[Scope, ...]] = ("read", "write")
MIB: Final = 2**20
_SHORTEST: Final = 16


class ShuttingDownError(MsmarcoQdrantError):
    """The sidecar is being shut down and takes nothing in any more."""


@dataclass(frozen=True, slots=True)
class Write:
    """Put a passage in, or in place of the one of that pid."""

    pid: str
    text: str
    meta: Meta = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """Take a passage out, if it is there."""

    pid: str


Operation: TypeAlias = Write | Delete


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in the spool: batches (the one in hand included), and the age of the oldest."""

    batches: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of being ready; `problem` says in a few words what is missing, "" if nothing.

    Whoever may ask for `/readyz` reads it: no path, URL or name belongs in it.
    """

    name: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What is searched, and how it can be.

    Attributes:
        collection: The collection's name.
        model: The name of its bi-encoder.
        dimension: The length of that model's vectors.
        modes: What can be compared.
        rerank: Whether a cross-encoder can score the best again.
        passages: How many there are, None if that is not known.
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
    """Whether a host name or address is this machine's own, and reached from nowhere else."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _usable(token: str) -> bool:
    return len(token) >= _SHORTEST and all("!" <= character <= "~" for character in token)


class Ingester(Protocol):
    """The spool and its worker, as the app sees them."""

    def accept(self, operations: Sequence[Operation]) -> str:
        """Put operations on disk for good, as one batch; called in a thread.

        Returns:
            The batch's id: letters, digits and hyphens, 64 at most.

        Raises:
            SpoolFullError: If there are too many.
            ShuttingDownError: During the shutdown.
        """

    def state(self, batch: str) -> BatchState | None:
        """How far a batch is, None if there is none of that id; called in a thread."""

    async def finished(self, batch: str) -> BatchState:
        """Wait until a batch is done or failed; a wait that is cancelled leaves nothing behind.

        Raises:
            ShuttingDownError: If the sidecar is shut down before; the batch is kept.
        """

    def backlog(self) -> Backlog:
        """What waits, from memory: it neither blocks nor reads the disk."""


class Searcher(Protocol):
    """What answers queries: `AsyncSearchClient`."""

    async def search_many(
        self, queries: Sequence[str], **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """The passages that answer each of several queries."""


class Readiness(Protocol):
    """What knows whether the sidecar can do its work."""

    async def checks(self) -> Sequence[Check]:
        """Look at everything that has to be there."""

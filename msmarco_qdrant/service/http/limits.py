"""How much a request may bring, ask for and take, and how many may be under way at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from msmarco_qdrant.errors import UsageError

MIB = 2**20


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


class LimitExceededError(Exception):
    """As many as may be are under way."""


class ConcurrencyLimit:
    """Lets so many through at once, and turns the others away instead of letting them queue.

    Of one event loop.

    Args:
        most: How many at once.

    Attributes:
        inside: How many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.inside = 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside meanwhile.

        Raises:
            LimitExceededError: If there are as many as may be.
        """
        if self.inside >= self._most:
            raise LimitExceededError
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

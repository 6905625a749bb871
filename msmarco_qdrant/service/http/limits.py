"""Bounds of requests and connections."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from msmarco_qdrant.errors import UsageError

_MIB: Final = 2**20


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

    body_bytes: int = 16 * _MIB
    query_bytes: int = _MIB
    answer_bytes: int = 16 * _MIB
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

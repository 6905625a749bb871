"""What the HTTP app needs of the rest of the sidecar, as Protocols and the values they exchange.

The app knows neither the spool nor the worker nor an engine: tests hand it small classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, Unpack

from msmarco_qdrant.core.records import Meta
from msmarco_qdrant.core.search_types import Hit, SearchMode
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.search.options import SearchOptions
from msmarco_qdrant.service.spool.state import BatchState


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

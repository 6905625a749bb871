"""What a sidecar is told when it is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from msmarco_qdrant.collection.create import check_collection_name
from msmarco_qdrant.core.records import StorageSettings
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.interfaces import Limits, Tokens, check_binding
from msmarco_qdrant.service.spool.spool import MAX_BATCHES, MAX_BYTES
from msmarco_qdrant.service.worker.indexing import IndexingSettings
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, check_creatable

HOST = "127.0.0.1"
PORT = 8080
GRACE_S = 15.0


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """Where a sidecar finds and keeps things, and how much it takes.

    Attributes:
        store: A directory for Qdrant Edge, or the URL of a Qdrant server.
        spool: The directory of accepted batches; it is made if there is none.
        collection: The collection's name; it is made if there is none.
        model: The model of a new collection.
        reranker: A cross-encoder, for searches that ask for it; None for none.
        inbox: A directory whose files are taken in; None for none.
        host: Name or address to listen on.
        port: Port to listen on; 0 for any that is free.
        tokens: Who may do what.
        limits: How much a request may bring and ask for.
        spool_bytes: Most bytes of accepted batches that have not ended.
        spool_batches: Most such batches.
        grace_s: Seconds in which, at the end, the batch in hand may still be finished.
        connection: How a server is spoken to.
        encoder_options: Where and how the models run.
        storage: How a new collection keeps its vectors; None for what the engine can.
        indexing: How often indexes are built, where the engine does not do that itself.

    Raises:
        UsageError: For what cannot be, or must not: listening where others reach the port, without
            tokens.
        StoreError: If the store's directory cannot be made or written, or holds something else.
    """

    store: str
    spool: Path
    collection: str = "msmarco"
    model: str = DEFAULT_MODEL
    reranker: str | None = None
    inbox: Path | None = None
    host: str = HOST
    port: int = PORT
    tokens: Tokens = field(default_factory=Tokens)
    limits: Limits = field(default_factory=Limits)
    spool_bytes: int = MAX_BYTES
    spool_batches: int = MAX_BATCHES
    grace_s: float = GRACE_S
    connection: Connection = DEFAULT_CONNECTION
    encoder_options: EncoderOptions = field(default_factory=EncoderOptions)
    storage: StorageSettings | None = None
    indexing: IndexingSettings = field(default_factory=IndexingSettings)

    def __post_init__(self) -> None:
        check_creatable(self.store, self.connection)
        check_binding(self.host, self.tokens)
        check_collection_name(self.collection)
        if self.grace_s < 0:
            raise UsageError(f"grace_s={self.grace_s} cannot be: expected 0 or more seconds")
        if self.inbox is not None and _one_in_the_other(self.inbox, self.spool):
            raise UsageError(
                f"the inbox {self.inbox} and the spool {self.spool} are one in the other: give "
                "each a directory of its own"
            )


def _one_in_the_other(first: Path, second: Path) -> bool:
    first, second = (path.expanduser().resolve() for path in (first, second))
    return first.is_relative_to(second) or second.is_relative_to(first)

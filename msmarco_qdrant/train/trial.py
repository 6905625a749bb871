"""A trial of a model: the collection's texts with its vectors, in a store of their own.

The live collection is only read. The trial is searched to measure the model before anything is
switched, and mined in the next round.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import IngestReport
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores.foreign import ForeignPoints
from msmarco_qdrant.stores.payload import HIT_FIELDS

COLLECTION = "trial"


def build_trial(
    client: SearchClient,
    encoder: Encoder,
    folder: Path,
    *,
    tenant: str | None = None,
    progress: bool = False,
) -> IngestReport:
    """Fill a store with the texts of a collection and the vectors of another model.

    Call it again to resume. BM25 and the storage of vectors are set as in the collection; `meta`
    is left out.

    Args:
        client: A client of the collection.
        encoder: The other model.
        folder: The directory of the store.
        tenant: Only this tenant's passages; the trial itself has no tenants.
        progress: Show it on standard error.

    Raises:
        IngestStoppedError: If it ended early.
        StoreError: If a store cannot be read or written.
    """
    return ingest_passages(
        _texts(client, tenant),
        folder,
        collection=COLLECTION,
        encoder=encoder,
        bm25=client.metadata.bm25,
        storage=client.store.collection(client.collection).spec().storage,
        progress=progress,
    )


@contextmanager
def open_trial(encoder: Encoder, folder: Path) -> Iterator[SearchClient]:
    """Yield a client of a trial, until the block ends."""
    with SearchClient.open(folder, collection=COLLECTION, encoder=encoder) as client:
        yield client


def _texts(client: SearchClient, tenant: str | None) -> Iterator[Passage]:
    source = client.store.collection(client.collection)
    foreign = ForeignPoints(client.collection, client.store.dsn)
    scope = client.session.current.scope(tenant)
    for id_, payload in source.scan(HIT_FIELDS, meta_filter=scope):
        passage = foreign.passage(id_, payload)
        if passage is not None:
            yield Passage(passage.pid, passage.text)

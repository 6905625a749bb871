"""Writes of documents: the policy for ids that exist, and batches with one vector per text."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import EncodingError, ModelMismatchError
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.given_vectors import upsert_with_vectors
from msmarco_qdrant.integrations.haystack.documents import (
    RESERVED,
    order_of,
    to_passage,
    unpack,
)
from msmarco_qdrant.integrations.haystack.given_model import GivenModel
from msmarco_qdrant.search.client import SearchClient

with imports_of("haystack", "the Haystack integration", "haystack"):
    from haystack.dataclasses import Document
    from haystack.document_stores.errors import DocumentStoreError, DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy


class OrderClock:
    """Numbers the writes of this process in ascending order; thread-safe.

    The numbers are microseconds since 1970, so those of several processes are in the order of
    their writes, too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0

    def take(self, count: int) -> range:
        """Return the next numbers."""
        with self._lock:
            start = max(self._next, time.time_ns() // 1000)
            self._next = start + count
        return range(start, self._next)


def check_documents(documents: object) -> list[Document]:
    """Check the argument of a write.

    Raises:
        ValueError: If it is not a list of documents; Haystack requires this class.
    """
    if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
        raise ValueError("documents must be a list of haystack.Document")
    return documents


def write_documents(
    client: SearchClient, documents: Sequence[Document], policy: DuplicatePolicy, clock: OrderClock
) -> int:
    """Write documents; see `MsmarcoDocumentStore.write_documents`."""
    _check_embeddings(client, documents)
    stored = client.get({document.id for document in documents})
    chosen = _choose(documents, stored, policy)
    passages = [
        to_passage(document, order_of(stored[document.id]) or number)
        if document.id in stored
        else to_passage(document, number)
        for document, number in zip(chosen, clock.take(len(chosen)), strict=True)
    ]
    # An upsert keeps the vector of a text that did not change, so it changes for a moment.
    replaced = [one for one in passages if _has_new_vector(one, stored.get(one.pid))]
    write_passages(client, [*map(_with_other_text, replaced)])
    write_passages(client, passages)
    return len(documents) if policy == DuplicatePolicy.OVERWRITE else len(chosen)


def write_passages(client: SearchClient, passages: Sequence[Passage]) -> None:
    """Write passages with their embeddings, in batches in which one text has one vector.

    Raises:
        DocumentStoreError: If the model has no vector for a document; the others are written.
    """
    for batch in _batches(passages):
        vectors = {one.pid: unpack(packed) for one in batch if (packed := _packed(one))}
        report = upsert_with_vectors(client, batch, vectors)
        if report.rejects:
            first = report.rejects[0]
            raise DocumentStoreError(
                f"{report.rejected:,} of {len(batch):,} documents cannot be written: "
                f"{first.reason}; the others are written"
            )


def _check_embeddings(client: SearchClient, documents: Sequence[Document]) -> None:
    """Check all embeddings before the first write.

    Raises:
        EncodingError: If the collection has no model, and a document no embedding.
        ModelMismatchError: If an embedding has another dimension than the collection.
    """
    encoder = client.encoder
    info = encoder.info
    for document in documents:
        if document.embedding is None:
            if isinstance(encoder, GivenModel):
                raise EncodingError(
                    f"document {document.id} must have an embedding of {info.model}: run the "
                    "documents through that embedder first"
                )
        elif len(document.embedding) != info.dimension:
            raise ModelMismatchError(
                f"an embedding must have {info.dimension} numbers, as those of {info.model} in "
                f"collection '{client.collection}', got {len(document.embedding)} in document "
                f"{document.id}"
            )


def _choose(
    documents: Sequence[Document], stored: Mapping[str, Passage], policy: DuplicatePolicy
) -> list[Document]:
    """Return the documents to write, each id once.

    Raises:
        DuplicateDocumentError: If the policy forbids an id that exists, or a second one.
    """
    chosen: dict[str, Document] = {}
    for document in documents:
        is_known = document.id in stored or document.id in chosen
        if is_known and policy in (DuplicatePolicy.NONE, DuplicatePolicy.FAIL):
            raise DuplicateDocumentError(
                f"document {document.id} exists; nothing was written: pass policy="
                "DuplicatePolicy.OVERWRITE or DuplicatePolicy.SKIP"
            )
        if not is_known or policy == DuplicatePolicy.OVERWRITE:
            chosen[document.id] = document
    return [*chosen.values()]


def _has_new_vector(passage: Passage, stored: Passage | None) -> bool:
    return (
        stored is not None and stored.text == passage.text and _packed(stored) != _packed(passage)
    )


def _with_other_text(passage: Passage) -> Passage:
    """Return a passage of another text, which is the same document."""
    extra = passage.meta[RESERVED]
    content = extra.get("content", passage.text)
    meta = {**passage.meta, RESERVED: {**extra, "content": content}}
    return replace(passage, text=f"{passage.text} ", meta=meta)


def _packed(passage: Passage) -> Mapping[str, str] | None:
    found: Mapping[str, str] | None = passage.meta.get(RESERVED, {}).get("embedding")
    return found


def _batches(passages: Sequence[Passage]) -> list[list[Passage]]:
    """Split passages so that those of a batch with the same text have the same embedding."""
    batches: list[list[Passage]] = []
    embeddings: list[dict[str, Mapping[str, str] | None]] = []
    for passage in passages:
        packed = _packed(passage)
        for batch, of_text in zip(batches, embeddings, strict=True):
            if of_text.setdefault(passage.text, packed) == packed:
                batch.append(passage)
                break
        else:
            batches.append([passage])
            embeddings.append({passage.text: packed})
    return batches

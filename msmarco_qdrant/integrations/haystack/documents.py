"""Documents of Haystack as passages, and the reverse, without loss.

One field of `meta` holds what a passage has no place for: the place in the order of writes, the
embedding as it was given (the stored vector is float32, and of unit length for cosine), blob,
sparse embedding, score, and a missing or blank content.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.sources.rejects import check_row

with imports_of("haystack", "the Haystack integration", "haystack"):
    from haystack.dataclasses import ByteStream, Document, SparseEmbedding
    from haystack.document_stores.errors import DocumentStoreError

RESERVED = "_haystack"
"""The field of `meta` with what only a document has."""


def to_passage(document: Document, order: int) -> Passage:
    """Return a document as a passage.

    Args:
        document: The document.
        order: Its place in the order of writes.

    Raises:
        DocumentStoreError: If it cannot be a passage.
    """
    _check_reserved(document.meta, document.id)
    extra = {"order": order, **_extra(document)}
    text = document.content
    if text is None or not text.strip():  # a document of an image, with an embedding
        extra["content"], text = text, document.id
    row = check_row(Passage(document.id, text, {**document.meta, RESERVED: extra}))
    if isinstance(row, Reject):
        raise DocumentStoreError(f"document {document.id} cannot be written: {row.reason}")
    return row


def to_document(
    found: Passage | Hit, *, score: float | None = None, with_embedding: bool = True
) -> Document:
    """Return a passage or a hit as a document, equal to the one that was written.

    Args:
        found: The passage or hit; of another program's, its pid, text and `meta`.
        score: Its score in a search; None for that of the written document.
        with_embedding: False to leave its embedding out.
    """
    meta = dict(found.meta)
    extra = meta.pop(RESERVED, {})
    embedding = extra.get("embedding") if with_embedding else None
    sparse = extra.get("sparse_embedding")
    return Document(
        id=found.pid,
        content=extra.get("content", found.text),
        blob=_to_blob(extra["blob"]) if "blob" in extra else None,
        meta=meta,
        score=extra.get("score") if score is None else score,
        embedding=None if embedding is None else unpack(embedding),
        sparse_embedding=None if sparse is None else SparseEmbedding(**sparse),
    )


def order_of(passage: Passage) -> int:
    """Return the place of a passage in the order of writes; 0 for another program's."""
    return int(passage.meta.get(RESERVED, {}).get("order", 0))


def with_meta(passage: Passage, fields: Mapping[str, Any]) -> Passage:
    """Return a passage whose `meta` has other values of some fields.

    Raises:
        DocumentStoreError: If a value cannot be stored, or a field is reserved.
    """
    _check_reserved(fields, passage.pid)
    row = check_row(replace(passage, meta={**passage.meta, **fields}))
    if isinstance(row, Reject):
        raise DocumentStoreError(f"document {passage.pid} cannot be updated: {row.reason}")
    return row


def pack(embedding: Sequence[float]) -> dict[str, str]:
    """Return an embedding in base64: as float32 if that loses nothing, else as float64.

    Raises:
        DocumentStoreError: If it is not one row of finite numbers that are not all zero.
    """
    import numpy as np

    try:
        wide = np.asarray(embedding, "<f8")
    except (TypeError, ValueError) as exc:
        raise DocumentStoreError(f"an embedding must be a list of numbers: {exc}") from exc
    if wide.ndim != 1 or not np.isfinite(wide).all() or not wide.any():
        raise DocumentStoreError(
            "an embedding must be a list of finite numbers that are not all zero, got "
            f"{str(embedding)[:80]}"
        )
    with np.errstate(over="ignore"):  # infinite, so not the same numbers
        narrow = wide.astype("<f4")
    kind, numbers = ("f4", narrow) if (narrow == wide).all() else ("f8", wide)
    return {kind: base64.b64encode(numbers.tobytes()).decode()}


def unpack(packed: Mapping[str, str]) -> list[float]:
    """Return the numbers of an embedding that `pack` made."""
    import numpy as np

    ((kind, text),) = packed.items()
    numbers: list[float] = np.frombuffer(base64.b64decode(text), f"<{kind}").tolist()
    return numbers


def _check_reserved(meta: Mapping[str, Any], id_: str) -> None:
    if RESERVED in meta:
        raise DocumentStoreError(
            f"meta must not have the field {RESERVED!r}, which is reserved: rename it in document "
            f"{id_}"
        )


def _extra(document: Document) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if document.embedding is not None:
        extra["embedding"] = pack(document.embedding)
    if document.blob is not None:
        blob = document.blob
        data = base64.b64encode(blob.data).decode()
        extra["blob"] = {"data": data, "meta": blob.meta, "mime_type": blob.mime_type}
    if document.sparse_embedding is not None:
        extra["sparse_embedding"] = document.sparse_embedding.to_dict()
    if document.score is not None:
        extra["score"] = document.score
    return extra


def _to_blob(stored: Mapping[str, Any]) -> ByteStream:
    data = base64.b64decode(stored["data"])
    return ByteStream(data, meta=stored["meta"], mime_type=stored["mime_type"])

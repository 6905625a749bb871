"""Documents of LangChain as passages, and the reverse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat

from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.sources.rejects import check_row

with imports_of("langchain_core", "the LangChain integration", "langchain"):
    from langchain_core.documents import Document


def to_document(found: Passage | Hit) -> Document:
    """Return a passage or a hit as a document."""
    return Document(id=found.pid, page_content=found.text, metadata=found.meta)


def to_passages(documents: Iterable[Document], ids: Sequence[str | None] | None) -> list[Passage]:
    """Return documents as passages. A document without an id gets one made from its content.

    Args:
        documents: The documents.
        ids: Their ids; None for those that they have.

    Raises:
        UsageError: For a document that cannot be a passage, or another number of ids.
    """
    given = [*documents]
    if ids is not None and len(ids) != len(given):
        raise UsageError(f"ids must be one for each document, got {len(ids)} for {len(given)}")
    pairs = zip(given, repeat(None) if ids is None else ids, strict=False)
    return [_to_passage(number, *pair) for number, pair in enumerate(pairs, start=1)]


def _to_passage(number: int, document: Document, id_: str | None) -> Passage:
    if not isinstance(document, Document):
        kind = with_article(type(document).__name__)
        raise UsageError(f"documents must be a list of Document, got {kind}")
    pid = document.id if id_ is None else id_
    row = check_row(Passage("0" if pid is None else pid, document.page_content, document.metadata))
    if isinstance(row, Reject):
        raise UsageError(f"document {number} cannot be added: {row.reason}; none was added")
    if pid is None:
        pid = text_digest(text_digest(row.text) + meta_digest(row.meta))
    return Passage(pid, row.text, row.meta)

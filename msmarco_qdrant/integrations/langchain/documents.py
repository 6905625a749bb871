"""Documents of LangChain as passages and hits, and the options of searches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.reports import UpsertReport
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.search.options import SearchOptions, SimilarOptions
from msmarco_qdrant.sources.rejects import check_row

with imports_of("langchain_core", "the LangChain integration", "langchain"):
    from langchain_core.documents import Document

MAX_K = 10_000
_WITHOUT_PLACE = ("snippets", "with_vectors")
"""Options whose results a document has no field for."""
_SIMILAR = frozenset(SimilarOptions.__annotations__)
_SEARCH = frozenset(SearchOptions.__annotations__)


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


def require_all(report: UpsertReport) -> None:
    """Refuse a write that left documents out.

    Raises:
        UsageError: With the reason of the first.
    """
    if report.rejects:
        first = report.rejects[0]
        raise UsageError(
            f"{report.rejected:,} documents cannot be added, the first is document {first.line}: "
            f"{first.reason}; the others are added"
        )


def to_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a search, in which `filter` is another name of `meta_filter`.

    Raises:
        UsageError: For an unknown option, or one that has no effect on documents.
    """
    options = {"meta_filter" if name == "filter" else name: given[name] for name in given}
    if len(options) < len(given):
        raise UsageError("pass either filter or meta_filter, they are the same")
    if "limit" in options:
        raise UsageError("pass k, the number of documents, instead of limit")
    if without := [name for name in _WITHOUT_PLACE if name in options]:
        raise UsageError(
            f"a document has no field for the results of {without[0]}: use SearchClient.search"
        )
    if unknown := options.keys() - _SEARCH:
        names = ", ".join(sorted(_SEARCH - {"limit", *_WITHOUT_PLACE}))
        raise UsageError(f"unknown search option {min(unknown)!r}; the options are filter, {names}")
    return options


def options_of_similar(options: Mapping[str, Any], called: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a search by a vector: its defaults, and those of the call.

    Raises:
        UsageError: If the call has an option of other searches.
    """
    if unknown := called.keys() - _SIMILAR:
        raise UsageError(f"a search by a vector has no option {min(unknown)!r}")
    return {**{name: options[name] for name in options if name in _SIMILAR}, **called}


def check_k(k: object, name: str = "k") -> None:
    """Check a number of documents.

    Raises:
        UsageError: If it is not an integer of 1 to 10,000.
    """
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MAX_K:
        raise UsageError(f"{name} must be 1 to {MAX_K:,}, got {k!r}")

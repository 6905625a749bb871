"""Checks of arguments that the integrations share: options of searches, and rows left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msmarco_qdrant.core.reports import UpsertReport
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.search.options import SearchOptions, SimilarOptions

MAX_K = 10_000
_WITHOUT_PLACE = ("snippets", "with_vectors")
"""Options whose results a document or node has no field for."""
_SIMILAR = frozenset(SimilarOptions.__annotations__)
_SEARCH = frozenset(SearchOptions.__annotations__)


def require_all(report: UpsertReport, kind: str) -> None:
    """Refuse a write that left rows out.

    Args:
        report: The report of the write.
        kind: The framework's word for a row: "document" or "node".

    Raises:
        UsageError: With the reason of the first.
    """
    if report.rejects:
        first = report.rejects[0]
        raise UsageError(
            f"{report.rejected:,} {kind}s cannot be added, the first is {kind} {first.line}: "
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
        raise UsageError("limit is set by the framework's own argument, such as k or top_k")
    if without := [name for name in _WITHOUT_PLACE if name in options]:
        raise UsageError(f"the results of {without[0]} have no field here: use SearchClient.search")
    if unknown := options.keys() - _SEARCH:
        names = ", ".join(sorted(_SEARCH - {"limit", *_WITHOUT_PLACE}))
        raise UsageError(f"unknown search option {min(unknown)!r}; the options are filter, {names}")
    return options


def is_of_similar(options: Mapping[str, Any]) -> bool:
    """True if `SearchClient.similar` has all these options, too."""
    return options.keys() <= _SIMILAR


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

"""Facets: the values of a `meta` field, each with the number of passages that have it.

An engine counts the values that a payload index of kind keyword, integer or bool has. Without such
an index the field of every passage is read, and the values are counted here.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from os import PathLike
from typing import TypeAlias

from msmarco_qdrant.collection.filter_notes import log_filter_notes
from msmarco_qdrant.collection.tenants import tenant_filter
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.field_path import (
    check_field,
    field_values,
    flatten,
    payload_keys,
    root_key,
)
from msmarco_qdrant.core.search_types import Facet
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import Exists, SearchFilter, check_filter
from msmarco_qdrant.stores import (
    DEFAULT_CONNECTION,
    AliasedCollection,
    Collection,
    Connection,
    Store,
    use_store,
)
from msmarco_qdrant.stores.filters import combine

_log = logging.getLogger(__name__)

MAX_FACETS = 10_000
_MANY_POINTS = 10_000  # a scan of fewer takes some milliseconds
_FACET_TYPES = (bool, int, str)  # in the order of equal counts
_KINDS = {bool: "bool", int: "integer", str: "keyword"}
_MORE = 4  # the factor of another request for more values

_Counts: TypeAlias = Counter[tuple[int, bool | int | str]]
"""Counts by the position of the type in `_FACET_TYPES`, as True equals 1, and the value."""


@dataclass(frozen=True, slots=True)
class FacetRequest:
    """A checked request for facets, among the passages of a scope.

    Raises:
        UsageError: For an invalid field, limit or filter.
    """

    field: str
    limit: int = 10
    meta_filter: SearchFilter | None = None
    exact: bool = True
    scope: SearchFilter | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.field, str) or self.field == "":
            raise UsageError(f"field must be the name of a field of meta, got {self.field!r}")
        check_field(self.field)
        is_count = isinstance(self.limit, Integral) and not isinstance(self.limit, bool)
        if not is_count or not 1 <= self.limit <= MAX_FACETS:
            raise UsageError(f"limit must be 1 to {MAX_FACETS:,}, got {self.limit!r}")
        check_exact(self.exact)
        check_filter(self.meta_filter)

    @property
    def chosen(self) -> SearchFilter | None:
        """The filter of the passages to count."""
        return combine(self.scope, self.meta_filter)


def check_exact(exact: object) -> None:
    """Check the argument `exact` of a count.

    Raises:
        UsageError: If it is not a boolean.
    """
    if not isinstance(exact, bool):
        raise UsageError(f"exact must be True or False, got {exact!r}")


@suggest_keywords
def count_facets(
    store: Store | str | PathLike[str],
    field: str,
    *,
    limit: int = 10,
    meta_filter: SearchFilter | None = None,
    tenant: str | None = None,
    exact: bool = True,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
) -> list[Facet]:
    """Count the passages of each value of a `meta` field.

    Strings, integers and booleans are counted. A payload index of the field makes it fast, such as
    by `add_index(store, "msmarco", "lang", "keyword")`; without one every passage is read.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        field: The field; dots go into objects, also those of a list.
        limit: Maximum number of values, 1 to 10,000.
        meta_filter: Count only passages that match, as in `SearchClient.search`.
        tenant: Only this tenant's; see `set_tenant_field`.
        exact: False to estimate the counts of an indexed field, which is faster.
        collection: The collection's name.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        The most frequent values, the most frequent first; equal counts in the order of the values.

    Raises:
        UsageError: For an invalid field, limit or filter, or a field of other values.
        StoreError: If the store cannot be opened or read, or has no such collection.
    """
    request = FacetRequest(field, limit, meta_filter, exact)
    with use_store(store, connection) as opened:
        metadata = opened.metadata(collection)  # raises for another program's collection
        scope = tenant_filter(metadata, collection, tenant, opened.dsn)
        request = replace(request, scope=scope)
        return read_facets(opened, AliasedCollection(opened, collection), collection, request)


def read_facets(
    store: Store, source: Collection | AliasedCollection, name: str, request: FacetRequest
) -> list[Facet]:
    """Count the passages of each value; see `count_facets`.

    Args:
        store: The store.
        source: The collection.
        name: The collection's name.
        request: The checked request.
    """
    bound = store.request_limits(name).points
    if bound is not None and request.limit > bound:
        raise UsageError(
            f"limit must be at most {bound:,} by the strict mode of collection '{name}' "
            f"(max_query_limit), got {request.limit:,}"
        )
    found = _ask_engine(source, request, bound)
    if found is None:
        found, scanned = _scan(source, request)
        if scanned >= _MANY_POINTS and store.capabilities.payload_indexes:
            _advise_index(store, name, request.field, found)
    if not found:
        _note_absence(source, request)
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [Facet(value, count) for (_, value), count in ranked[: request.limit]]


def _ask_engine(
    source: Collection | AliasedCollection, request: FacetRequest, bound: int | None
) -> _Counts | None:
    """Return the engine's counts, None if they are not those of the passages.

    A field of an object is two keys for an engine, outside and inside of a list. A passage has
    values at one of them; with more keys it may have the same value at several.
    """
    keys, limit = payload_keys(request.field), request.limit
    if len(keys) > 2:
        return None
    while bound is None or limit <= bound:
        answers: list[Sequence[Facet]] = []
        for key in keys:
            facets = source.facet(key, limit=limit, meta_filter=request.chosen, exact=request.exact)
            if facets is None:
                return None
            answers.append(facets)
        if sum(map(bool, answers)) <= 1 or all(len(answer) < limit for answer in answers):
            return _add_up(answers)
        limit *= _MORE  # a value may be frequent in the sum only
    return None


def _add_up(answers: Iterable[Sequence[Facet]]) -> _Counts:
    counts: _Counts = Counter()
    for facet in (facet for answer in answers for facet in answer):
        counts[_typed(facet.value)] += facet.count
    return counts


def _typed(value: bool | int | str) -> tuple[int, bool | int | str]:
    return _FACET_TYPES.index(type(value)), value


def _scan(source: Collection | AliasedCollection, request: FacetRequest) -> tuple[_Counts, int]:
    """Count the values in the field of each passage; return the number of passages, too."""
    counts: _Counts = Counter()
    other, scanned = None, 0
    for _, payload in source.scan((root_key(request.field),), meta_filter=request.chosen):
        scanned += 1
        meta = payload.get("meta")
        if not isinstance(meta, dict):
            continue
        values = flatten(field_values(meta, request.field))
        counts.update({_typed(value) for value in values if type(value) in _FACET_TYPES})
        if other is None:
            others = (v for v in values if v is not None and type(v) not in _FACET_TYPES)
            other = next(others, None)
    if other is not None and not counts:
        raise UsageError(
            f"the field must have strings, integers or booleans, to count the passages of each; "
            f"'{request.field}' has values such as {str(other)[:80]}"
        )
    return counts, scanned


def _advise_index(store: Store, name: str, field: str, found: _Counts) -> None:
    kinds = sorted({_KINDS[_FACET_TYPES[kind]] for kind, _ in found})
    if len(kinds) == 1:
        word = f"{field}={kinds[0]}"
        command = advised_command("index", "add", word, collection=name, store=store.dsn)
        _log.warning(
            "the field '%s' has no payload index: every passage is read to count its values; add "
            "the index with %s",
            *(field, command),
        )


def _note_absence(source: Collection | AliasedCollection, request: FacetRequest) -> None:
    """Warn of fields that no passage has."""
    scope = request.scope
    log_filter_notes(source, {request.field: Exists()}, has_match=False, scope=scope)
    if request.meta_filter is not None:
        log_filter_notes(source, request.meta_filter, has_match=False, scope=scope)

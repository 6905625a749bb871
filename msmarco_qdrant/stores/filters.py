"""Filters on `meta` fields: their keys, their form in qdrant-client, and the index that each needs.

An index of another type than the values changes what a condition finds, as observed on Edge 0.9. A
range of numbers over a datetime index, or of datetimes over a numeric one, compares microseconds
since 1970; an integer index does not find 1.5. `index_refusal` reports these. Without an index,
Edge and the local mode agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.field_path import payload_keys
from msmarco_qdrant.core.search_types import PointQuery
from msmarco_qdrant.filters import (
    Condition,
    Exists,
    Not,
    Plain,
    Range,
    SearchFilter,
    list_values,
    to_utc,
)

if TYPE_CHECKING:
    from qdrant_client import models

    from msmarco_qdrant.core.collection_types import PayloadIndex


_QUOTED_WORD = re.compile(r'"([\w-]+)"')
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_US = 6 * 10**16  # the years 69 to 3871
_FRACTION = "a match of fractions"
_NUMBERS = ("a range of numbers", "a match of integers", "a match of numbers", _FRACTION)
_DATES = "a range of datetimes"
# Pairs of an index and a condition that the engines compare wrongly, with the rule.
_REFUSALS = {
    **{
        ("datetime", of): "compare it with dates such as 2024-05-01, not with numbers"
        for of in _NUMBERS
    },
    ("integer", _DATES): "compare it with numbers, not with dates, or index it as datetime",
    ("float", _DATES): "compare it with numbers, not with dates, or index it as datetime",
    ("integer", _FRACTION): "it finds no fractions; index it as float",
}
# The kinds of index that this package creates; a number is more often meant than a text.
_KINDS = ("integer", "float", "datetime", "bool", "keyword")


def meta_key(field: str) -> str:
    """Return the payload key of a `meta` field, not inside of lists: `year` is at `meta.year`."""
    return payload_keys(field)[0]


def canonical_key(key: str) -> str:
    """Return a payload key as engines report it: `meta."größe"` becomes `meta.größe`."""
    return _QUOTED_WORD.sub(r"\1", key)


def outside_lists(key: str) -> str:
    """Return the payload key of a field outside of lists: of `meta.a[].b` it is `meta.a.b`."""
    return canonical_key(key).replace("[].", ".")


def index_keys(fields: Mapping[str, PayloadIndex]) -> Mapping[str, PayloadIndex]:
    """Return the payload keys to index for `meta` fields; `indexes_by_field` is its inverse."""
    return {key: kind for field, kind in fields.items() for key in payload_keys(field)}


def indexes_by_field(indexes: Mapping[str, PayloadIndex]) -> Mapping[str, PayloadIndex]:
    """Return payload indexes with one key a field, sorted: the one outside of lists.

    An index of the field `a.b` is two for the engine, of `meta.a.b` and of `meta.a[].b`.
    """
    keys = {canonical_key(key): indexes[key] for key in sorted(indexes)}
    return {
        key: kind
        for key, kind in keys.items()
        if (plain := outside_lists(key)) == key or keys.get(plain) != kind
    }


def index_kind(indexes: Mapping[str, PayloadIndex], key: str) -> PayloadIndex | None:
    """Return the kind of a payload key's index, None without one, however the keys are quoted."""
    kinds = {canonical_key(indexed): kind for indexed, kind in indexes.items()}
    return kinds.get(canonical_key(key))


# ---- conversion to qdrant-client -----------------------------------------------------------


def point_filter(query: PointQuery) -> models.Filter | None:
    """Return the ids and the conditions of a query as one filter; None for every point.

    The query's filter is nested whole: engines merge the filter of a query into those of its
    prefetches, and would count the conditions of a `min_should` twice.
    """
    if query.ids is None and query.meta_filter is None:
        return None
    from qdrant_client import models

    must: list[models.Condition] = []
    if query.ids is not None:
        must.append(models.HasIdCondition(has_id=[from_id(id_) for id_ in query.ids]))
    if query.meta_filter is not None:
        must.append(to_qdrant(query.meta_filter))
    return models.Filter(must=must)


def without_points(given: SearchFilter | None, ids: Sequence[PointId]) -> SearchFilter | None:
    """Return a filter that also leaves out points."""
    if not ids:
        return given
    from qdrant_client import models

    excluded: list[models.Condition] = [models.HasIdCondition(has_id=[*map(from_id, ids)])]
    must: list[models.Condition] | None = None if given is None else [to_qdrant(given)]
    return models.Filter(must=must, must_not=excluded)


def from_id(point: PointId) -> int | str:
    """Return a point id as qdrant-client takes it."""
    return point if isinstance(point, int) else str(point)


def to_qdrant(given: SearchFilter) -> models.Filter:
    """Convert a checked filter; a filter of qdrant-client is returned unchanged."""
    from qdrant_client import models

    if isinstance(given, models.Filter):
        return given
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    for field, condition in given.items():
        clause, negated = _clause(field, condition)
        (must_not if negated else must).append(clause)
    return models.Filter(must=must or None, must_not=must_not or None)


def combine(*given: SearchFilter | None) -> models.Filter:
    """Return the filter of the points that match each of some filters."""
    from qdrant_client import models

    return models.Filter(must=[to_qdrant(one) for one in given if one is not None])


def has_ids(ids: Sequence[PointId]) -> models.Filter:
    """Return the filter of some points."""
    from qdrant_client import models

    return models.Filter(must=[models.HasIdCondition(has_id=[from_id(id_) for id_ in ids])])


def has_order_value(key: str, value: float, kind: PayloadIndex | None) -> models.Filter:
    """Return the filter of the points with a value of a key, as `OrderedPoint` has it.

    Args:
        key: The payload key.
        value: The value.
        kind: The kind of the key's index; None without one, where it may be any of these.
    """
    from qdrant_client import models

    found: list[models.Condition] = []
    if kind == "integer":
        match = models.MatchValue(value=int(value))
        return models.Filter(must=[models.FieldCondition(key=key, match=match)])
    if kind != "datetime":
        number = models.Range(gte=value, lte=value)
        found.append(models.FieldCondition(key=key, range=number))
    if kind != "float" and isinstance(value, int) and abs(value) < _LATEST_US:
        moment = _EPOCH + timedelta(microseconds=value)
        span = models.DatetimeRange(gte=moment, lte=moment)
        found.append(models.FieldCondition(key=key, range=span))
    return models.Filter(should=found)


def has_key(key: str) -> models.Filter:
    """Return the filter of the points that have a payload key."""
    from qdrant_client import models

    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    return models.Filter(must_not=[empty])


def _clause(field: str, given: Condition) -> tuple[models.Condition, bool]:
    """Convert a condition; True if it must not hold."""
    from qdrant_client import models

    if isinstance(given, Not):
        clause, negated = _clause(field, given.condition)
        return clause, not negated
    keys = payload_keys(field)
    if isinstance(given, Exists):
        empty: list[models.Condition] = [
            models.IsEmptyCondition(is_empty=models.PayloadField(key=key)) for key in keys
        ]
        return empty[0] if len(empty) == 1 else models.Filter(must=empty), True
    if isinstance(given, Range):
        span = _range(given)
        found: list[models.Condition] = [models.FieldCondition(key=k, range=span) for k in keys]
    else:
        values = list_values(field, given)
        found = [each for key in keys for each in _alternatives(key, values)]
    return found[0] if len(found) == 1 else models.Filter(should=found), False


def _alternatives(key: str, values: Sequence[Plain]) -> list[models.Condition]:
    """Return one condition for all strings, one for all integers, one for each other value."""
    from qdrant_client import models

    strings = [value for value in values if isinstance(value, str)]
    integers = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
    matches: list[models.Condition] = [
        models.FieldCondition(key=key, match=_match_any(alike))
        for alike in (strings, integers)
        if alike
    ]
    for value in values:
        if isinstance(value, bool):
            matches.append(models.FieldCondition(key=key, match=models.MatchValue(value=value)))
        elif isinstance(value, float | date):  # Qdrant has no equality of these
            same = Range(gte=value, lte=value)
            matches.append(models.FieldCondition(key=key, range=_range(same)))
    return matches


def _match_any(values: list[Any]) -> models.MatchValue | models.MatchAny:
    from qdrant_client import models

    return models.MatchValue(value=values[0]) if len(values) == 1 else models.MatchAny(any=values)


def _range(given: Range) -> models.Range | models.DatetimeRange:
    from qdrant_client import models

    bounds: dict[str, Any] = {
        name: to_utc(bound) if isinstance(bound, date) else float(bound)
        for name in ("gt", "gte", "lt", "lte")
        if (bound := getattr(given, name)) is not None
    }
    is_numeric = all(isinstance(bound, float) for bound in bounds.values())
    return models.Range(**bounds) if is_numeric else models.DatetimeRange(**bounds)


# ---- advice on payload indexes -------------------------------------------------------------


def filter_keys(given: models.Filter) -> Sequence[str]:
    """Return the payload keys of a filter."""
    return list(dict.fromkeys(need.key for need in _needs(given, "")))


def index_refusal(given: models.Filter, indexes: Mapping[str, PayloadIndex]) -> str | None:
    """Return the reason why an index would compare the values of a filter wrongly, else None.

    Args:
        given: The filter.
        indexes: See `index_advice`.
    """
    for need in _needs(given, ""):
        kind = index_kind(indexes, need.key)
        rule = _REFUSALS.get((kind or "", need.purpose))
        if rule is not None:
            return f"the field '{_field_of(need.key)}' has a payload index of kind {kind}: {rule}"
    return None


def index_advice(given: models.Filter, indexes: Mapping[str, PayloadIndex]) -> list[str]:
    """Return a warning for each field of a filter that no payload index serves.

    Every alternative needs an index: with an integer index, "7" or 7 took as long as 7 without one
    (28 and 24 ms; 0.06 ms for 7 alone; Edge 0.9, 30,000 points).

    Args:
        given: The filter.
        indexes: The kind of each payload key's index, such as `{"meta.year": "integer"}`.

    Returns:
        Sentences in the filter's order. Without indexes, one for each field of the filter.
    """
    by_key: dict[str, list[_Need]] = {}
    for need in _needs(given, ""):
        by_key.setdefault(canonical_key(need.key), []).append(need)
    advice = {key: _advice(needs, index_kind(indexes, key)) for key, needs in by_key.items()}
    return [
        sentence
        for key, sentence in advice.items()
        if sentence and not (key != (plain := outside_lists(key)) and advice.get(plain))
    ]


def first_unindexed(
    given: models.Filter, indexes: Mapping[str, PayloadIndex]
) -> tuple[str, Sequence[str]] | None:
    """Return the first key of a filter that no payload index serves, and the kinds that would.

    Args:
        given: The filter.
        indexes: See `index_advice`.
    """
    needs = [*_needs(given, "")]
    for need in needs:
        if not need.is_served_by(index_kind(indexes, need.key)):
            alike = [other.kinds for other in needs if other.key == need.key]
            kinds = [kind for each in alike for kind in (("keyword",) if each is None else each)]
            return need.key, kinds
    return None


def unindexed_step(collection: str, key: str, kinds: Sequence[str], dsn: str | None) -> str:
    """Return the step that gives a payload key its index, for messages.

    Args:
        collection: The collection's name.
        key: The key of a filter.
        kinds: Kinds of index that serve it, in any form that a server reports.
        dsn: The path or URL of the store.
    """
    kind = next((kind for kind in _KINDS if kind in kinds), None)
    if not key.startswith("meta.") or kind is None:
        return "filter by a field of meta that has an index"
    word = f"{_field_of(key)}={kind}"
    command = advised_command("index", "add", word, collection=collection, store=dsn)
    return f"add the index with {command}"


def _field_of(key: str) -> str:
    """Return the `meta` field of a payload key; its dots go through lists, too."""
    return outside_lists(key).removeprefix("meta.")


@dataclass(frozen=True, slots=True)
class _Need:
    """The purpose of a condition on a key, and the kinds of index that serve it; None for any."""

    key: str
    purpose: str
    kinds: tuple[str, ...] | None

    def is_served_by(self, kind: str | None) -> bool:
        alike = "keyword" if kind == "tenant" else kind  # one index, apart from its segments
        return kind is not None and (self.kinds is None or alike in self.kinds)


def _advice(needs: Sequence[_Need], kind: str | None) -> str | None:
    """Return a warning for one key, None if its index serves all needs.

    It names the strictest need, whose index serves the others, too. `--filter year=2001` has no
    such need: it matches a string or a number, and an index of the wrong kind finds nothing.
    """
    unserved = [need for need in needs if not need.is_served_by(kind)]
    if not unserved:
        return None
    choosy = [need for need in unserved if need.kinds] or unserved[:1]
    wanted = [{*(need.kinds or ())} for need in choosy]
    strictest = next(
        (i for i, kinds in enumerate(wanted) if all(map(kinds.issubset, wanted))), None
    )
    name = f"the filter's field '{needs[0].key}'"
    if strictest is None:
        *others, last = dict.fromkeys(each for need in needs for each in need.kinds or ())
        advice = f"index it as the type of its values: {', '.join(others)} or {last}"
    elif choosy[strictest].kinds == ():
        purpose = choosy[strictest].purpose
        return f"{name}: no payload index serves {purpose}, so every passage is scanned"
    else:
        kinds = " or ".join(choosy[strictest].kinds or ["any kind"])
        advice = f"{choosy[strictest].purpose} needs {kinds}"
    if kind is None:
        return f"{name} has no payload index ({advice}): every passage is scanned"
    return f"{name} has a payload index of kind {kind} ({advice}): every passage is scanned"


def _needs(given: models.Filter, prefix: str) -> Iterator[_Need]:
    """Yield the needs of each condition; `prefix` is the path of a nested object."""
    counted = given.min_should.conditions if given.min_should else []
    for clause in (given.must, given.must_not, given.should, counted):
        for condition in list_conditions(clause):
            yield from _needs_of(condition, prefix)


def _needs_of(given: models.Condition, prefix: str) -> Iterator[_Need]:
    from qdrant_client import models

    if isinstance(given, models.Filter):
        yield from _needs(given, prefix)
    elif isinstance(given, models.NestedCondition):
        inner = f"{prefix}{given.nested.key.removesuffix('[]')}[]."
        yield from _needs(given.nested.filter, inner)
    elif isinstance(given, models.FieldCondition):
        for purpose, kinds in _field_needs(given):
            yield _Need(prefix + given.key, purpose, kinds)
    elif isinstance(given, models.IsEmptyCondition):
        yield _Need(prefix + given.is_empty.key, "a check for empty values", None)
    elif isinstance(given, models.IsNullCondition):
        yield _Need(prefix + given.is_null.key, "a check for null", None)


def _field_needs(given: models.FieldCondition) -> Iterator[tuple[str, tuple[str, ...] | None]]:
    from qdrant_client import models

    if given.match is not None:
        yield _match_need(given.match)
    if isinstance(given.range, models.DatetimeRange):
        yield _DATES, ("datetime",)
    elif given.range is not None:
        yield _range_need(given.range)
    if given.geo_bounding_box or given.geo_radius or given.geo_polygon:
        yield "a geo condition", ("geo",)
    if given.values_count is not None:
        yield "a count of values", ()
    if given.is_empty is not None or given.is_null is not None:
        yield "a check for empty values", None


def _range_need(given: models.Range) -> tuple[str, tuple[str, ...]]:
    if given.gte is None or given.gte != given.lte:
        return "a range of numbers", ("integer", "float")
    if given.gte.is_integer():
        return "a match of numbers", ("integer", "float")
    return _FRACTION, ("float",)


def _match_need(match: models.Match) -> tuple[str, tuple[str, ...]]:
    """Return the need by the type of `value`, or of the first of `any` or `except`."""
    values = [getattr(match, name) for name in ("value", "any", "except_") if hasattr(match, name)]
    if not values:
        inside = type(match).__name__ in ("MatchPrefix", "MatchSubstring")
        return "a text match", ("keyword",) if inside else ("text",)
    first = values[0][0] if isinstance(values[0], list) and values[0] else values[0]
    if isinstance(first, bool):
        return "a match of booleans", ("bool",)
    if isinstance(first, int):
        return "a match of integers", ("integer",)
    return "a match of strings", ("keyword",)


def list_conditions(
    given: list[models.Condition] | models.Condition | None,
) -> list[models.Condition]:
    """Return conditions as a list; qdrant-client also takes a single one without a list."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]

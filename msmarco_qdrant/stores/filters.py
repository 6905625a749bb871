"""Filters on `meta` fields: their keys, and their form in qdrant-client."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.field_path import payload_keys
from msmarco_qdrant.core.filter_values import Plain, list_values, split_words, to_utc
from msmarco_qdrant.core.search_types import PointQuery
from msmarco_qdrant.filters import (
    All,
    Exists,
    GeoRadius,
    MetaFilter,
    Not,
    Range,
    SearchFilter,
    Text,
)
from msmarco_qdrant.filters import Any as EitherOf

if TYPE_CHECKING:
    from qdrant_client import models

    from msmarco_qdrant.core.collection_types import PayloadIndex


_QUOTED_WORD = re.compile(r'"([\w-]+)"')
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN = frozenset({str, int, bool})
_MOST_PLAIN = 8  # fields
_LATEST_US = 6 * 10**16  # the years 69 to 3871
_LAST_LIST = re.compile(r'((?:"[^"]*"|[^"])*\[\])((?:"[^"]*"|[^"])*)')  # quotation marks keep names


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

    With candidates, the query's filter is nested whole: engines merge the filter of a query into
    those of its prefetches, and would count the conditions of a `min_should` twice.
    """
    if query.ids is None and not query.candidates:
        return None if query.meta_filter is None else to_qdrant(query.meta_filter)
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
    """Convert a checked filter; a filter of qdrant-client is returned unchanged.

    The result for a filter by plain values is hashable, so that callers can remember what they
    made of it: nobody may change it.
    """
    key = _plain_key(given)
    return _to_qdrant(given) if key is None else _fixed(key)


def has_plain_values(given: SearchFilter) -> bool:
    """True for a filter of a string, an integer or a boolean for each of a few fields."""
    return _plain_key(given) is not None


def is_fixed(given: models.Filter) -> bool:
    """True for a filter that nobody changes; it is hashable."""
    return type(given).__hash__ is not None


def _plain_key(given: object) -> tuple[tuple[str, type, Plain], ...] | None:
    if type(given) is not dict or len(given) > _MOST_PLAIN:
        return None
    if not all(type(value) in _PLAIN for value in given.values()):
        return None
    return tuple((name, type(value), value) for name, value in given.items())


@lru_cache(maxsize=256)
def _fixed(key: tuple[tuple[str, type, Plain], ...]) -> models.Filter:
    """Return the filter of plain values; the last ones are kept."""
    converted = _fields({name: value for name, _, value in key}, "meta.")
    return _fixed_type()(must=converted.must, must_not=converted.must_not)


@lru_cache(maxsize=1)
def _fixed_type() -> type[models.Filter]:
    from qdrant_client import models

    class FixedFilter(models.Filter):
        """A filter that nobody changes, equal to one with the same conditions."""

        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            return isinstance(other, models.Filter) and dict(self) == dict(other)

    return FixedFilter


def _to_qdrant(given: Any) -> models.Filter:
    from qdrant_client import models

    match given:
        case models.Filter():
            return given
        case EitherOf():
            return models.Filter(should=[*map(_to_qdrant, given.conditions)])
        case All():
            return models.Filter(must=[*map(_to_qdrant, given.conditions)])
        case Not():
            return models.Filter(must_not=[_to_qdrant(given.condition)])
    return _fields(given, "meta.")


def has_condition(given: models.Filter) -> bool:
    """True if a filter has a condition, also inside of other filters; else it may match all."""
    from qdrant_client import models

    counted = given.min_should.conditions if given.min_should else []
    return any(
        not isinstance(condition, models.Filter) or has_condition(condition)
        for clause in (given.must, given.must_not, given.should, counted)
        for condition in list_conditions(clause)
    )


def combine(*given: SearchFilter | None) -> SearchFilter | None:
    """Return the filter of the points that match each of some filters; None for all points."""
    found = [one for one in given if one is not None]
    if len(found) <= 1:
        return found[0] if found else None
    from qdrant_client import models

    return models.Filter(must=[to_qdrant(one) for one in found])


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


def _fields(given: MetaFilter, inside: str) -> models.Filter:
    """Convert conditions on the fields of an object; `inside` is the start of their keys."""
    from qdrant_client import models

    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    for field, condition in given.items():
        clause, negated = _clause(field, condition, inside)
        (must_not if negated else must).append(clause)
    return models.Filter(must=must or None, must_not=must_not or None)


def _clause(field: str, given: Any, inside: str) -> tuple[models.Condition, bool]:
    """Convert a condition; True if it must not hold."""
    from qdrant_client import models

    if isinstance(given, Not):
        clause, negated = _clause(field, given.condition, inside)
        return clause, not negated
    if isinstance(given, Exists):
        empty: list[models.Condition] = [
            models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
            for key in payload_keys(field, inside)
        ]
        return empty[0] if len(empty) == 1 else models.Filter(must=empty), True
    return _positive(field, given, inside), False


def _positive(field: str, given: Any, inside: str) -> models.Condition:
    """Convert a condition that is none of `Not` and `Exists`."""
    from qdrant_client import models

    keys = payload_keys(field, inside)
    if isinstance(given, All):
        return models.Filter(must=_parts(field, given.conditions, inside))
    if isinstance(given, EitherOf):
        return _any_of(_parts(field, given.conditions, inside))
    if isinstance(given, Text):
        words = [_any_of(_words(keys, word)) for word in split_words(given.words)]
        return words[0] if len(words) == 1 else models.Filter(must=words)
    if isinstance(given, Mapping):
        return _any_of([each for key in keys for each in _objects(key, given)])
    return _any_of([each for key in keys for each in _values(key, field, given)])


def _parts(field: str, given: Sequence[Any], inside: str) -> list[models.Condition]:
    """Convert conditions on one field."""
    from qdrant_client import models

    parts = [_clause(field, condition, inside) for condition in given]
    return [models.Filter(must_not=[clause]) if negated else clause for clause, negated in parts]


def _any_of(found: list[models.Condition]) -> models.Condition:
    from qdrant_client import models

    return found[0] if len(found) == 1 else models.Filter(should=found)


def _words(keys: Sequence[str], word: str) -> list[models.Condition]:
    """Return a condition for each key: an index has the words of all of a field's values together.

    So a condition on several words would be met by another list with an index than without one.
    """
    from qdrant_client import models

    return [models.FieldCondition(key=key, match=models.MatchText(text=word)) for key in keys]


def _objects(key: str, given: MetaFilter) -> Iterator[models.Condition]:
    """Yield the conditions on the objects in the list at a key, and on the object there."""
    yield _nested(f"{key}[]", given, "")
    if (last := _LAST_LIST.fullmatch(key)) is None:
        yield _fields(given, f"{key}.")
    else:  # one object of each item of a list
        yield _nested(last[1], given, f"{last[2]}.".removeprefix("."))


def _nested(items: str, given: MetaFilter, inside: str) -> models.NestedCondition:
    from qdrant_client import models

    nested = models.Nested(key=items, filter=_fields(given, inside))
    return models.NestedCondition(nested=nested)


def _values(key: str, field: str, given: Any) -> Sequence[models.Condition]:
    """Return the conditions of values, a range or a place."""
    from qdrant_client import models

    if isinstance(given, Range):
        return [models.FieldCondition(key=key, range=_range(given))]
    if isinstance(given, GeoRadius):
        center = models.GeoPoint(lat=given.lat, lon=given.lon)
        circle = models.GeoRadius(center=center, radius=given.radius_m)
        return [models.FieldCondition(key=key, geo_radius=circle)]
    return _alternatives(key, list_values(field, given))


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


def list_conditions(
    given: list[models.Condition] | models.Condition | None,
) -> list[models.Condition]:
    """Return conditions as a list; qdrant-client also takes a single one without a list."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]

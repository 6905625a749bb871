"""Conditions on `meta` fields in Qdrant's words, and which payload index each of them needs.

An index changes what a condition means where the values are not of its kind, as was seen on Edge
0.9. It holds the values of its own kind alone: by an integer index 1.5 is not found, and 1.0 is 1.
A range of numbers over a datetime index, or of moments over a numeric one, compares with
microseconds since 1970; `unserved` names these.

Names of payload fields as Qdrant's JSON paths.

Which points a query is about, as one filter of Qdrant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.records import PointId
from msmarco_qdrant.core.search_types import PointQuery
from msmarco_qdrant.filters import (
    Bound,
    Condition,
    Exists,
    Not,
    Range,
    Scalar,
    SearchFilter,
    as_moment,
    values_of,
)

if TYPE_CHECKING:
    from datetime import date

    from qdrant_client import models

    from msmarco_qdrant.core.records import PayloadIndex


_QUOTED_WORD = re.compile(r'"([\w-]+)"')


def meta_key(field: str) -> str:
    """The payload key of a `meta` field: `year` is at `meta.year`."""
    return f"meta.{json_path(field)}"


def canonical_key(key: str) -> str:
    """A payload key as engines tell it back: `meta."größe"` is `meta.größe` to them."""
    return _QUOTED_WORD.sub(r"\1", key)


# ---- our conditions as Qdrant's ------------------------------------------------------------


def to_qdrant(given: SearchFilter) -> models.Filter:
    """A checked filter in Qdrant's words; Qdrant's own is handed back as it is."""
    from qdrant_client import models

    if isinstance(given, models.Filter):
        return given
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    for field, condition in given.items():
        clause, holds = _clause(meta_key(field), condition)
        (must if holds else must_not).append(clause)
    return models.Filter(must=must or None, must_not=must_not or None)


def _clause(key: str, given: Condition) -> tuple[models.Condition, bool]:
    """What Qdrant looks for, and whether it shall hold or not."""
    from qdrant_client import models

    if isinstance(given, Not):
        clause, holds = _clause(key, given.condition)
        return clause, not holds
    if isinstance(given, Exists):
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=key)), False
    if isinstance(given, Range):
        return models.FieldCondition(key=key, range=_range(given)), True
    alternatives = _alternatives(key, values_of(given))
    return alternatives[0] if len(alternatives) == 1 else models.Filter(should=alternatives), True


def _alternatives(key: str, values: Sequence[Scalar]) -> list[models.Condition]:
    """One condition for all strings, one for all integers, one for each other value."""
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
        elif isinstance(value, float):  # Qdrant matches the other types alone by equality
            same = models.Range(gte=value, lte=value)
            matches.append(models.FieldCondition(key=key, range=same))
    return matches


def _match_any(values: list[Any]) -> models.MatchValue | models.MatchAny:
    from qdrant_client import models

    return models.MatchValue(value=values[0]) if len(values) == 1 else models.MatchAny(any=values)


def _range(given: Range) -> models.Range | models.DatetimeRange:
    from qdrant_client import models

    bounds: dict[str, Any] = {
        name: _bound(bound)
        for name in ("gt", "gte", "lt", "lte")
        if (bound := getattr(given, name)) is not None
    }
    moments = any(not isinstance(bound, float) for bound in bounds.values())
    return models.DatetimeRange(**bounds) if moments else models.Range(**bounds)


def _bound(given: Bound) -> float | date:
    return float(given) if isinstance(given, int | float) else as_moment(given)


# ---- which indexes serve them --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Need:
    """What a condition looks for at a key, and the kinds of index that serve it; None for any."""

    key: str
    what: str
    kinds: tuple[str, ...] | None

    def served_by(self, kind: str | None) -> bool:
        return kind is not None and (self.kinds is None or kind in self.kinds)

    def told(self, kind: str | None) -> str:
        if self.kinds == ():
            return (
                f"'{self.key}' is asked for {self.what}, which no payload index serves: every "
                "passage is looked at"
            )
        wanted = " or ".join(self.kinds or ["any kind"])
        if kind is None:
            return (
                f"'{self.key}' has no payload index ({wanted} would serve {self.what}): every "
                "passage is looked at"
            )
        return (
            f"'{self.key}' has a payload index of kind {kind}, and {self.what} needs {wanted}: it "
            "may find less than there is"
        )


def unserved(given: models.Filter, indexes: Mapping[str, PayloadIndex]) -> list[str]:
    """The fields of a filter that no payload index serves: passage after passage is read for them.

    Each alternative counts: with an integer index, "7" or 7 took as long as 7 without an index
    (28 and 24 ms, and 0.06 ms for 7 alone; Edge 0.9, 30,000 points).

    Args:
        given: The filter.
        indexes: The kind of each payload key's index, such as `{"meta.year": "integer"}`.

    Returns:
        A sentence for each such field, in the filter's order.
    """
    kinds = {canonical_key(key): kind for key, kind in indexes.items()}
    found: dict[str, list[_Need]] = {}
    for need in _needs(given, ""):
        key = canonical_key(need.key)
        found.setdefault(key, []).append(need)
    told = (_told(needs, kinds.get(key)) for key, needs in found.items())
    return [sentence for sentence in told if sentence]


def _told(needs: Sequence[_Need], kind: str | None) -> str | None:
    """What is told of a key, None if its index serves all needs.

    That is the need whose index would serve the others, too, if there is one. `--filter year=2001`
    has none: it asks for a string or a number, and an index of the wrong one would find nothing.
    """
    lacking = [need for need in needs if not need.served_by(kind)]
    choosy = [need for need in lacking if need.kinds] or lacking[:1]
    for need in choosy:
        if all({*(need.kinds or ())} <= {*(other.kinds or ())} for other in choosy):
            return need.told(kind)
    return _told_of_several(needs, kind) if choosy else None


def _told_of_several(needs: Sequence[_Need], kind: str | None) -> str:
    *others, last = dict.fromkeys(one for need in needs for one in need.kinds or ())
    advice = f"index it as what it holds: {', '.join(others)} or {last}"
    if kind is None:
        return f"'{needs[0].key}' has no payload index ({advice}): every passage is looked at"
    return (
        f"'{needs[0].key}' has a payload index of kind {kind} ({advice}): it may find less than "
        "there is"
    )


def _needs(given: models.Filter, prefix: str) -> Iterator[_Need]:
    """What each condition needs; `prefix` leads to the objects that it is about."""
    counted = given.min_should.conditions if given.min_should else []
    for clause in (given.must, given.must_not, given.should, counted):
        for condition in _listed(clause):
            yield from _needs_of(condition, prefix)


def _needs_of(given: models.Condition, prefix: str) -> Iterator[_Need]:
    from qdrant_client import models

    if isinstance(given, models.Filter):
        yield from _needs(given, prefix)
    elif isinstance(given, models.NestedCondition):
        inner = f"{prefix}{given.nested.key.removesuffix('[]')}[]."
        yield from _needs(given.nested.filter, inner)
    elif isinstance(given, models.FieldCondition):
        for what, kinds in _field_needs(given):
            yield _Need(prefix + given.key, what, kinds)
    elif isinstance(given, models.IsEmptyCondition):
        yield _Need(prefix + given.is_empty.key, "a look for what is empty", None)
    elif isinstance(given, models.IsNullCondition):
        yield _Need(prefix + given.is_null.key, "a look for what is null", None)


def _field_needs(given: models.FieldCondition) -> Iterator[tuple[str, tuple[str, ...] | None]]:
    from qdrant_client import models

    if given.match is not None:
        yield _match_need(given.match)
    if isinstance(given.range, models.DatetimeRange):
        yield "a range of moments", ("datetime",)
    elif given.range is not None:
        yield "a range of numbers", ("integer", "float")
    if given.geo_bounding_box or given.geo_radius or given.geo_polygon:
        yield "a place", ("geo",)
    if given.values_count is not None:
        yield "a count of values", ()
    if given.is_empty is not None or given.is_null is not None:
        yield "a look for what is empty", None


def _match_need(match: models.Match) -> tuple[str, tuple[str, ...]]:
    """By what it compares: `value`, the first of `any` or `except`, or else a part of a string."""
    values = [getattr(match, name) for name in ("value", "any", "except_") if hasattr(match, name)]
    if not values:
        inside = type(match).__name__ in ("MatchPrefix", "MatchSubstring")
        return "a look inside strings", ("keyword",) if inside else ("text",)
    first = values[0][0] if isinstance(values[0], list) and values[0] else values[0]
    if isinstance(first, bool):
        return "a match of booleans", ("bool",)
    if isinstance(first, int):
        return "a match of integers", ("integer",)
    return "a match of strings", ("keyword",)


def _listed(given: list[models.Condition] | models.Condition | None) -> list[models.Condition]:
    """Conditions, of which qdrant-client takes the only one without a list, too."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]


_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+(\[[0-9]*\])*", re.ASCII)


def json_path(field: str) -> str:
    """A field as a JSON path: dots nest, and a name that is no plain word is quoted."""
    parts = field.split(".")
    return ".".join(part if _PLAIN_NAME.fullmatch(part) else f'"{part}"' for part in parts)


def point_filter(query: PointQuery) -> models.Filter | None:
    """The ids and the conditions of a query; None for every point.

    A filter stands inside another one, whole: engines merge the filter of a query into those of
    its prefetches, and conditions of which some number must hold (`min_should`) would be counted
    twice.
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


def from_id(point: PointId) -> int | str:
    """A point id as the client takes it."""
    return point if isinstance(point, int) else str(point)

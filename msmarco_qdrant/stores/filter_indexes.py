"""Payload indexes that filters need: refusals, warnings, and the step that adds one.

An index of another type than the values changes what a condition finds, as observed on Edge 0.9. A
range of numbers over a datetime index, or of datetimes over a numeric one, compares microseconds
since 1970; an integer index does not find 1.5. `index_refusal` reports these. Without an index,
Edge and the local mode agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.stores.filters import (
    canonical_key,
    index_kind,
    list_conditions,
    outside_lists,
)

if TYPE_CHECKING:
    from qdrant_client import models

    from msmarco_qdrant.core.collection_types import PayloadIndex


_FRACTION = "a match of fractions"
_NUMBERS = ("a range of numbers", "a match of integers", "a match of numbers", _FRACTION)
_DATES = "a range of datetimes"
_WORDS = "a text match"
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
_KINDS = ("integer", "float", "datetime", "bool", "keyword", "text", "geo")


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


def has_words(given: models.Filter) -> bool:
    """True if a filter compares words of a text."""
    return any(need.purpose == _WORDS and need.kinds == ("text",) for need in _needs(given, ""))


def refuse_unindexed_words(
    given: models.Filter, indexes: Mapping[str, PayloadIndex], collection: str, dsn: str | None
) -> None:
    """Refuse a filter whose words an engine that needs an index for them compares wrongly.

    Args:
        given: The filter.
        indexes: See `index_advice`.
        collection: The collection's name.
        dsn: The path or URL of the store.

    Raises:
        UsageError: If no index of kind text serves one of its fields.
    """
    for need in _needs(given, ""):
        is_text = need.purpose == _WORDS and need.kinds == ("text",)
        if is_text and not need.is_served_by(index_kind(indexes, need.key)):
            step = unindexed_step(collection, need.key, ("text",), dsn)
            raise UsageError(
                f"Text on '{_field_of(need.key)}' needs an index of kind text, as the server is "
                f"older than 1.19.1 and would find words inside of others: {step}"
            )


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
        return _WORDS, ("keyword",) if inside else ("text",)
    first = values[0][0] if isinstance(values[0], list) and values[0] else values[0]
    if isinstance(first, bool):
        return "a match of booleans", ("bool",)
    if isinstance(first, int):
        return "a match of integers", ("integer",)
    return "a match of strings", ("keyword",)

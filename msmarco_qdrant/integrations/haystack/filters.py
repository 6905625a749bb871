"""Filters of Haystack as filters on `meta` and on pids.

A missing field is None, as Haystack has it. Numbers are equal across types, and text that is a
moment equals other text of the same moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import All, Exists, Not, Range, SearchFilter, check_filter
from msmarco_qdrant.filters import Any as EitherOf
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.stores.filters import has_ids
from msmarco_qdrant.stores.payload import point_id

with imports_of("haystack", "the Haystack integration", "haystack"):
    from haystack.errors import FilterError

_NOTHING: SearchFilter = {"_haystack": All([Exists(), Not(Exists())])}
_EVERYTHING: SearchFilter = Not(_NOTHING)
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_NEGATED = {"!=": "==", "not in": "in"}
_OTHER_FIELDS = ("content", "blob", "score", "embedding", "sparse_embedding")
_EXACT = 2**53
"""Up to here an integer and the float of the same value are one number."""


def to_filter(filters: Mapping[str, Any] | None) -> SearchFilter | None:
    """Return a filter of Haystack as a filter of this package; None for an empty one.

    Raises:
        FilterError: If it has no operator, field, conditions or value, an unknown operator, or a
            value that its operator does not compare.
    """
    if not filters:
        return None
    try:
        found = _convert(filters)
        check_filter(found)
    except UsageError as exc:
        raise FilterError(str(exc)) from exc
    return found


def _convert(given: Mapping[str, Any]) -> SearchFilter:
    if not isinstance(given, Mapping):
        raise FilterError(f"a filter must be a dictionary, got {given!r}")
    operator = _required(given, "operator")
    if "field" not in given:
        return _combine(operator, _required(given, "conditions"))
    if operator in _NEGATED:
        return Not(_compare(given["field"], _NEGATED[operator], _required(given, "value")))
    return _compare(given["field"], operator, _required(given, "value"))


def _required(given: Mapping[str, Any], key: str) -> Any:
    if key not in given:
        raise FilterError(f"a filter must have the key {key!r}, got {dict(given)}")
    return given[key]


def _combine(operator: str, conditions: Any) -> SearchFilter:
    if not isinstance(conditions, list):
        raise FilterError(f"conditions must be a list of filters, got {conditions!r}")
    parts = [_convert(condition) for condition in conditions]
    if operator == "AND":
        return All(parts) if parts else _EVERYTHING
    if operator == "OR":
        return EitherOf(parts) if parts else _NOTHING
    if operator == "NOT":
        return Not(All(parts)) if parts else _NOTHING
    raise FilterError(f"an operator of conditions must be AND, OR or NOT, got {operator!r}")


def _compare(field: Any, operator: str, value: Any) -> SearchFilter:
    if not isinstance(field, str):
        raise FilterError(f"field must be a string, got {field!r}")
    if operator not in ("==", "in", *_BOUNDS):
        known = "==, !=, >, >=, <, <=, in or not in"
        raise FilterError(f"an operator of a field must be {known}, got {operator!r}")
    if operator == "in" and not isinstance(value, list):
        raise FilterError(f"'in' and 'not in' need a list, got {value!r}")
    if field == "id":
        return _ids(operator, value)
    if field in _OTHER_FIELDS:
        raise FilterError(f"a filter must be on id or a field of meta, got {field!r}")
    name = field.removeprefix("meta.")
    if operator in _BOUNDS:
        return _ordered(name, operator, value)
    return _one_of(name, value) if operator == "in" else _equal(name, value)


def _ids(operator: str, value: Any) -> SearchFilter:
    if operator in _BOUNDS:
        raise FilterError(f"an id is compared by ==, !=, in and not in, got {operator!r}")
    pids = [pid for pid in (value if operator == "in" else [value]) if pid is not None]
    if wrong := [pid for pid in pids if not isinstance(pid, str) or not pid]:
        raise FilterError(f"an id must be a non-empty string, got {wrong[0]!r}")
    ids: Sequence[PointId] = [point_id(pid) for pid in pids]
    return has_ids(ids) if ids else _NOTHING


def _equal(field: str, value: Any) -> SearchFilter:
    if value is None:
        return {field: Not(Exists())}
    if isinstance(value, list | dict | tuple | set):
        raise FilterError(f"'==' and '!=' compare one value, got {value!r}: use 'in' for several")
    equal = _equal_values(value)
    return {field: equal[0] if len(equal) == 1 else EitherOf(equal)}


def _one_of(field: str, values: list[Any]) -> SearchFilter:
    parts = [_equal(field, value) for value in values]
    return EitherOf(parts) if parts else _NOTHING


def _equal_values(value: Any) -> list[Any]:
    """Return the conditions that a value equal to this one meets."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _EXACT:
        return [Range(gte=value, lte=value)]
    if isinstance(value, str) and (moment := _moment(value)) is not None:
        return [value, Range(gte=moment, lte=moment)]
    return [value]


def _moment(text: str) -> datetime | None:
    """Return the moment of text with a whole date."""
    try:
        return datetime.fromisoformat(text) if text[4:5] == "-" else None
    except ValueError:
        return None


def _ordered(field: str, operator: str, value: Any) -> SearchFilter:
    if value is None:
        return _NOTHING
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise FilterError(
                f"{operator!r} compares numbers and moments in ISO 8601, got the string {value!r}"
            ) from None
    if isinstance(value, bool) or not isinstance(value, int | float | datetime):
        raise FilterError(f"{operator!r} compares numbers and moments in ISO 8601, got {value!r}")
    bound: Callable[..., Range] = Range
    return {field: bound(**{_BOUNDS[operator]: value})}

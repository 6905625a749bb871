"""Filters of LlamaIndex as filters of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import All, Condition, Exists, Not, Range, SearchFilter, Text
from msmarco_qdrant.filters import Any as EitherOf
from msmarco_qdrant.integrations.extras import imports_of

with imports_of("llama_index", "the LlamaIndex integration", "llamaindex"):
    from llama_index.core.vector_stores.types import (
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
    )


def to_filter(given: Any) -> SearchFilter | None:
    """Return filters of LlamaIndex as one of this package; None if they have no condition.

    Args:
        given: `MetadataFilters`, or None.

    Raises:
        UsageError: For another object, or a value that its operator does not take.
    """
    if given is None:
        return None
    if not isinstance(given, MetadataFilters):
        kind = with_article(type(given).__name__)
        raise UsageError(f"filters must be MetadataFilters of LlamaIndex, got {kind}")
    parts = [
        part
        for one in given.filters
        if (part := to_filter(one) if isinstance(one, MetadataFilters) else _to_field(one))
        is not None
    ]
    if not parts:
        return None
    if given.condition == FilterCondition.NOT:
        return Not(EitherOf(parts))
    return EitherOf(parts) if given.condition == FilterCondition.OR else All(parts)


def _to_field(given: MetadataFilter) -> SearchFilter:
    try:
        return {given.key: _CONDITIONS[given.operator](given.value)}
    except UsageError as exc:
        raise UsageError(
            f"the filter on '{given.key}' with the operator {given.operator.value!r} must have "
            f"another value than {given.value!r}: {exc}"
        ) from exc


def _to_value(given: Any) -> Condition:
    """Return one value; LlamaIndex compares no list with `==`."""
    if given is None or isinstance(given, list):
        raise UsageError("it takes one string or number")
    value: Condition = given
    return value


def _to_values(given: Any) -> list[Any]:
    values = given if isinstance(given, list) else [_to_value(given)]
    if not values:
        raise UsageError("it takes a list of one value or more")
    return values


def _to_bound(given: Any) -> Any:
    """Return the end of a range: a number, or the moment that a string is."""
    if not isinstance(given, str):
        return _to_value(given)
    try:
        return datetime.fromisoformat(given)
    except ValueError:
        raise UsageError("it takes a number, or a date such as '2024-05-01'") from None


_CONDITIONS: Mapping[Any, Callable[[Any], Condition]] = {
    FilterOperator.EQ: _to_value,
    FilterOperator.NE: lambda given: Not(_to_value(given)),
    FilterOperator.GT: lambda given: Range(gt=_to_bound(given)),
    FilterOperator.GTE: lambda given: Range(gte=_to_bound(given)),
    FilterOperator.LT: lambda given: Range(lt=_to_bound(given)),
    FilterOperator.LTE: lambda given: Range(lte=_to_bound(given)),
    FilterOperator.IN: _to_values,
    FilterOperator.NIN: lambda given: Not(_to_values(given)),
    FilterOperator.ANY: _to_values,
    FilterOperator.ALL: lambda given: All(_to_values(given)),
    FilterOperator.CONTAINS: _to_value,
    FilterOperator.TEXT_MATCH: Text,
    FilterOperator.TEXT_MATCH_INSENSITIVE: Text,
    FilterOperator.IS_EMPTY: lambda _: Not(Exists()),
}

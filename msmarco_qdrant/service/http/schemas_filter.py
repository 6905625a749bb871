"""The JSON form of filters, in every request that has one.

A filter has the form of `msmarco_qdrant.filters`, in JSON::

    {
        "lang": ["en", "de"],                 any one of these
        "year": {"gte": 2001, "lt": 2010},    a range; of moments with strings
        "author.name": {"exists": true},      dots go into objects, also those of a list
        "tags": {"not": "draft"}              of a list, none of its values
    }
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date, datetime
from typing import Annotated, Any, Final, TypeAlias, cast

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from msmarco_qdrant.filters import Exists, MetaFilter, Not, Range
from msmarco_qdrant.service.http.schemas import Integer, RequestModel

MAX_CONDITIONS: Final = 1_000  # values and bounds of a filter, of all its fields together
MAX_FIELD_CHARS: Final = 256  # of the name of a filter's field
_LONG_INDEX: Final = re.compile(r"\[[0-9]{10,}")  # no engine counts list items that far


def _refuse_integer(given: object) -> object:
    """Refuse an integer of more than 64 bits: as a float it would be another number."""
    if isinstance(given, int):
        raise ValueError("an integer must fit into 64 bits with a sign")  # noqa: TRY004  # pydantic's
    return given


def _parse_moment(given: object) -> date:
    for parse in (date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError, TypeError):  # a TypeError for what is not a string
            return parse(given)  # type: ignore[arg-type]
    raise ValueError("a bound must be a number, a date or a moment")


def _check_field(name: str) -> str:
    if _LONG_INDEX.search(name):
        raise ValueError("an index of a list must have at most 9 digits")
    return name


Fraction: TypeAlias = Annotated[float, BeforeValidator(_refuse_integer)]
Value: TypeAlias = bool | Integer | Fraction | str
Bound: TypeAlias = (
    Integer | Fraction | Annotated[date, PlainValidator(_parse_moment, json_schema_input_type=str)]
)
FieldName: TypeAlias = Annotated[
    str, Field(max_length=MAX_FIELD_CHARS), AfterValidator(_check_field)
]


class RangeIn(RequestModel):
    """The field's number or moment lies between bounds: RFC 3339 strings are moments."""

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None


class ExistsIn(RequestModel):
    """The field exists and is neither null nor empty; with false, it does not."""

    exists: bool


PositiveCondition: TypeAlias = (
    Value
    | Annotated[list[Value], Field(min_length=1)]
    | Annotated[RangeIn, AfterValidator(lambda given: Range(**dict(given)))]
    | Annotated[ExistsIn, AfterValidator(lambda given: Exists() if given.exists else Not(Exists()))]
)


class NotIn(RequestModel):
    """The condition does not hold."""

    condition: PositiveCondition = Field(alias="not")


AnyCondition: TypeAlias = (
    PositiveCondition | Annotated[NotIn, AfterValidator(lambda given: Not(given.condition))]
)


def _limit_conditions(given: object) -> object:
    """Refuse many conditions at once: each would be checked against every form."""
    if (count := _count_conditions(given)) > MAX_CONDITIONS:
        raise ValueError(f"must have at most {MAX_CONDITIONS:,} values and bounds, got {count:,}")
    return given


FilterIn: TypeAlias = (
    Annotated[dict[FieldName, AnyCondition], BeforeValidator(_limit_conditions)] | None
)
"""The field `filter` of a request."""


def filter_field() -> Any:
    """Return the description of the field `filter`."""
    return Field(default=None, description="Conditions on fields of `meta`, all of which hold.")


def to_meta_filter(given: FilterIn) -> MetaFilter | None:
    """Return a filter in the package's own form, which validation made; None for none."""
    return cast("MetaFilter", given) or None


def _count_conditions(condition: object) -> int:
    """Count values and bounds in a filter or a part of it."""
    if isinstance(condition, dict):
        return max(1, sum(map(_count_conditions, condition.values())))
    return max(1, len(condition)) if isinstance(condition, list) else 1

"""The JSON form of filters, in every request that has one.

A filter has the form of `msmarco_qdrant.filters`, in JSON::

    {
        "lang": ["en", "de"],                 any one of these
        "year": {"gte": 2001, "lt": 2010},    a range; of moments with strings
        "author.name": {"exists": true},      dots go into objects, also those of a list
        "tags": {"not": "draft"},             of a list, none of its values
        "title": {"text": "sea music"},       both words
        "place": {"geo_radius": {"lat": 52.5, "lon": 13.4, "radius_m": 5000}},
        "authors": {"object": {"name": "Ada", "born": {"lt": 1900}}},     both of one object
        "price": {"any": [{"lt": 5}, {"gt": 50}]}                         or "all"
    }

Filters are combined by `{"$any": [...]}`, `{"$all": [...]}` and `{"$not": {...}}`. The name of a
field may stand in quotation marks, also one that is `$any`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Annotated, Final, Self, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    model_validator,
)

from msmarco_qdrant.core.filter_values import split_words
from msmarco_qdrant.filters import All, Exists, GeoRadius, Not, Range, SearchFilter, Text
from msmarco_qdrant.filters import Any as EitherOf
from msmarco_qdrant.service.http.schemas import Integer, RequestModel

MAX_CONDITIONS: Final = 1_000  # values, bounds and words of a filter, all together
MAX_TEXT_CHARS: Final = 2_000  # of the words of a condition
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


class NotIn(RequestModel):
    """The condition does not hold."""

    condition: Condition = Field(alias="not")


class AnyIn(RequestModel):
    """At least one of the conditions holds."""

    conditions: list[Condition] = Field(alias="any", min_length=1)


class AllIn(RequestModel):
    """Each of the conditions holds; of a list, each for any of its values."""

    conditions: list[Condition] = Field(alias="all", min_length=1)


class TextIn(RequestModel):
    """The field has all these words, in any order."""

    text: str = Field(max_length=MAX_TEXT_CHARS)


class CircleIn(RequestModel):
    """The center of a circle in degrees, and its radius in meters."""

    lat: float = Field(ge=-90, le=90)
    lon: float = Field(ge=-180, le=180)
    radius_m: float = Field(gt=0)


class GeoRadiusIn(RequestModel):
    """The field's place is inside of a circle."""

    geo_radius: CircleIn


class ObjectIn(RequestModel):
    """One object of the field meets all these conditions on its own fields."""

    conditions: dict[FieldName, Condition] = Field(alias="object", min_length=1)


_OPERATORS: Final = ("not", "any", "all", "text", "geo_radius", "object", "exists")
_COMBINATIONS: Final = frozenset({"$any", "$all", "$not"})


def _form_of(given: object) -> str:
    """Return the tag of a condition's form, so that errors are those of one form."""
    if not isinstance(given, dict):
        return "[list]" if isinstance(given, list) else "[value]"
    return next((f"[{name}]" for name in _OPERATORS if name in given), "[range]")


def _kind_of(given: object) -> str:
    """Return the tag of a filter's form."""
    is_combined = isinstance(given, dict) and not _COMBINATIONS.isdisjoint(given)
    return "[combined]" if is_combined else "[fields]"


Condition: TypeAlias = Annotated[
    Annotated[Value, Tag("[value]")]
    | Annotated[list[Value], Field(min_length=1), Tag("[list]")]
    | Annotated[RangeIn, AfterValidator(lambda given: Range(**dict(given))), Tag("[range]")]
    | Annotated[
        ExistsIn,
        AfterValidator(lambda given: Exists() if given.exists else Not(Exists())),
        Tag("[exists]"),
    ]
    | Annotated[NotIn, AfterValidator(lambda given: Not(given.condition)), Tag("[not]")]
    | Annotated[AnyIn, AfterValidator(lambda given: EitherOf(given.conditions)), Tag("[any]")]
    | Annotated[AllIn, AfterValidator(lambda given: All(given.conditions)), Tag("[all]")]
    | Annotated[TextIn, AfterValidator(lambda given: Text(given.text)), Tag("[text]")]
    | Annotated[
        GeoRadiusIn,
        AfterValidator(lambda given: GeoRadius(**dict(given.geo_radius))),
        Tag("[geo_radius]"),
    ]
    | Annotated[ObjectIn, AfterValidator(lambda given: given.conditions), Tag("[object]")],
    Discriminator(_form_of),
]


class CombinedIn(RequestModel):
    """A combination of filters: any of them, all of them, or not the one."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    any_of: list[FilterForm] | None = Field(default=None, alias="$any", min_length=1)
    all_of: list[FilterForm] | None = Field(default=None, alias="$all", min_length=1)
    none_of: FilterForm | None = Field(default=None, alias="$not")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if [self.any_of, self.all_of, self.none_of].count(None) + 1 != len(_COMBINATIONS):
            raise ValueError("must have one of $any, $all and $not")
        return self

    @property
    def combined(self) -> SearchFilter:
        """The filter in the package's own form."""
        if self.any_of is not None:
            return EitherOf(cast("Sequence[SearchFilter]", self.any_of))
        if self.all_of is not None:
            return All(cast("Sequence[SearchFilter]", self.all_of))
        return Not(cast("SearchFilter", self.none_of))


FilterForm: TypeAlias = Annotated[
    Annotated[dict[FieldName, Condition], Tag("[fields]")]
    | Annotated[CombinedIn, AfterValidator(lambda given: given.combined), Tag("[combined]")],
    Discriminator(_kind_of),
]

for _model in (NotIn, AnyIn, AllIn, ObjectIn, CombinedIn):
    _model.model_rebuild()


def _limit_conditions(given: object) -> object:
    """Refuse many conditions at once: each is checked, and each is sent to the engine."""
    if (count := _count_conditions(given)) > MAX_CONDITIONS:
        raise ValueError(f"must have at most {MAX_CONDITIONS:,} values and bounds, got {count:,}")
    return given


FilterField: TypeAlias = Annotated[
    Annotated[FilterForm, BeforeValidator(_limit_conditions)] | None,
    Field(description="Conditions on fields of `meta`, all of which hold."),
]
"""The field `filter` of a request."""


def to_meta_filter(given: FilterField) -> SearchFilter | None:
    """Return a filter in the package's own form, which validation made; None for none."""
    return cast("SearchFilter", given) or None


def _count_conditions(condition: object, name: str = "") -> int:
    """Count values, bounds and words in a filter or a part of it."""
    if isinstance(condition, dict):
        return max(1, sum(_count_conditions(part, str(key)) for key, part in condition.items()))
    if isinstance(condition, list):
        return max(1, sum(map(_count_conditions, condition)))
    return len(split_words(condition)) if name == "text" and isinstance(condition, str) else 1

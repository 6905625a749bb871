"""Conditions on the `meta` fields of passages, as values.

A filter maps fields to conditions; a passage must meet all of them::

    {
        "lang": ["en", "de"],                       # any one of these values
        "year": Range(gte=2001, lt=2010),
        "published": Range(gt=date(2001, 1, 1)),    # over RFC 3339 strings in `meta`
        "seen": datetime(2024, 5, 1, 12, 30),       # the same moment, however it is written
        "author.name": Exists(),                    # a dot goes into objects, also those of a list
        '"first.name"': "Ada",                      # the field whose name has a dot
        "tags": Not("draft"),                       # no value of a list is "draft"
        "title": Text("sea music"),                 # both words, in any order
        "place": GeoRadius(lat=52.52, lon=13.4, radius_m=5_000),
        "authors": {"name": "Ada", "born": Range(lt=1900)},  # both of one object of the list
    }

`Any`, `All` and `Not` combine conditions on one field, and whole filters::

    {"year": Any([Range(lt=1950), Range(gte=2000)])}
    Any([{"lang": "de"}, {"year": Range(gte=2000), "tags": All(["sea", "music"])}])
    All([{"lang": "de"}, Not({"tags": "draft", "year": 2001})])

Types differ: 1, "1" and True are three values. Both 1 and 1.0 match an integer; only a float or
a range matches a fractional number. A list in `meta` matches by any one of its values. Values of
NumPy, `Decimal`, `UUID` and others mean what they mean in `meta` (`core/meta_values.py`).
Qdrant's own `Filter` is accepted instead of a mapping.
"""

from __future__ import annotations

import inspect
import math
import sys
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from enum import Enum
from functools import wraps
from typing import TYPE_CHECKING, TypeAlias, TypeGuard
from uuid import UUID

from msmarco_qdrant.core.field_path import check_field, check_object_field
from msmarco_qdrant.core.filter_values import (
    is_several,
    list_values,
    plain_bound,
    plain_number,
    split_words,
)
from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from qdrant_client import models

Scalar: TypeAlias = str | int | float | bool | date | time | Decimal | UUID | Enum
"""A value to compare with; scalars of NumPy, pandas and Arrow are accepted, too.

A `date` or `datetime` means its moment, which strings such as "2024-05-01" are compared with.
"""

Bound: TypeAlias = int | float | Decimal | date
"""The end of a range: a number, or a moment (a `datetime` is a `date` in Python)."""


MAX_DEPTH = 12
"""The most levels of `Any`, `All`, `Not` and objects in a filter; gRPC takes 100 of its own."""

_T = typing.TypeVar("_T")


def _takes_one(example: str) -> Callable[[type[_T]], type[_T]]:
    """Make a class refuse any other number of arguments than one with an example of its use."""

    def decorate(kind: type[_T]) -> type[_T]:
        create: Callable[..., None] = kind.__init__
        name = next(iter(inspect.signature(kind).parameters))

        @wraps(create)
        def create_of_one(self: _T, *args: typing.Any, **kwargs: typing.Any) -> None:
            if len(args) + len(kwargs) != 1 or not kwargs.keys() <= {name}:
                given = ", ".join([*map(repr, args), *(f"{key}={kwargs[key]!r}" for key in kwargs)])
                raise UsageError(f"{kind.__name__} takes one argument: {example}, got ({given})")
            create(self, *args, **kwargs)

        setattr(kind, "__init__", create_of_one)  # noqa: B010  # mypy allows no assignment
        return kind

    return decorate


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Condition that the field's number or moment lies between bounds.

    Numbers are compared as float64, exactly up to 2**53. Moments are compared with strings such as
    "2024-05-01", "2024-05-01T12:30:00" and "2024-05-01T12:30:00.5+02:00". Without an offset it is
    UTC, and a date is its first moment, in `meta` and in bounds: `lte=date(2024, 12, 31)` excludes
    that day's noon, `lt=date(2025, 1, 1)` includes it.

    Attributes:
        gt: Greater than this.
        gte: Greater than or equal to this.
        lt: Less than this.
        lte: Less than or equal to this.

    Raises:
        UsageError: Without a bound, for both `gt` and `gte` or both `lt` and `lte`, for numbers
            mixed with moments, and for a bound that is not a finite number or 64-bit integer.
    """

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    def __post_init__(self) -> None:
        names = ("gt", "gte", "lt", "lte")
        bounds = {name: bound for name in names if (bound := getattr(self, name)) is not None}
        if not bounds:
            raise UsageError("a Range must have a bound: pass gt, gte, lt or lte")
        for strict, other in (("gt", "gte"), ("lt", "lte")):
            if strict in bounds and other in bounds:  # indexes of the engines use one of them
                raise UsageError(f"a Range takes {strict} or {other}, not both, got {self}")
        bounds = {name: plain_bound(name, bound) for name, bound in bounds.items()}
        for name, bound in bounds.items():
            object.__setattr__(self, name, bound)
        if len({isinstance(bound, date) for bound in bounds.values()}) > 1:
            raise UsageError(f"the bounds of a Range must be all numbers or all dates, got {self}")


@dataclass(frozen=True, slots=True)
class Exists:
    """Condition that the field is present, and neither null nor an empty list."""


@dataclass(frozen=True, slots=True)
class Text:
    """Condition that the field has all these words, in any order.

    Words are runs of letters and digits, compared in lower case and as a whole. Of a list, the
    words may be in several of its values. An index of kind `text` makes it fast.

    Attributes:
        words: One word or more.

    Raises:
        UsageError: If it is not a string with a letter or digit.
    """

    words: str

    def __post_init__(self) -> None:
        if not isinstance(self.words, str) or not split_words(self.words):
            raise UsageError(f"a Text must be a string with a letter or digit, got {self.words!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoRadius:
    """Condition that the field's place is nearer than a distance, along the surface of the Earth.

    A place in `meta` is an object such as `{"lat": 52.52, "lon": 13.4}`, in degrees; a list of
    places matches by any one of them. The Earth is a sphere with a radius of 6,371,008.8 m.

    Attributes:
        lat: The latitude of the center, -90 to 90.
        lon: The longitude of the center, -180 to 180.
        radius_m: The distance in meters, more than 0.

    Raises:
        UsageError: For another number.
    """

    lat: float
    lon: float
    radius_m: float

    def __post_init__(self) -> None:
        most = {"lat": 90.0, "lon": 180.0, "radius_m": math.inf}
        for name, limit in most.items():
            number = plain_number(getattr(self, name))
            rule = f"be -{limit:g} to {limit:g}" if limit < math.inf else "be more than 0"
            if number is None or abs(number) > limit or (limit == math.inf and number <= 0):
                raise UsageError(f"{name} of a GeoRadius must {rule}, got {getattr(self, name)!r}")
            object.__setattr__(self, name, float(number))


@_takes_one("a condition or filter, such as Not({'lang': 'de'})")
@dataclass(frozen=True, slots=True)
class Not:
    """Condition or filter that another one does not hold.

    A passage without the field matches, also for `Not(Exists())`; `Not(Not(x))` is `x`. A list in
    `meta` matches if none of its values meets the inner condition.

    Raises:
        UsageError: If it is not one condition or filter.
    """

    condition: Condition | SearchFilter = field(hash=False)


@_takes_one("a list of conditions or filters, such as Any([a, b])")
@dataclass(frozen=True, slots=True)
class Any:
    """Condition or filter that at least one of several holds.

    Raises:
        UsageError: If it is not a list of one or more.
    """

    conditions: Sequence[Condition | SearchFilter] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", _several("Any", self.conditions))


@_takes_one("a list of conditions or filters, such as All([a, b])")
@dataclass(frozen=True, slots=True)
class All:
    """Condition or filter that each of several holds.

    On a field whose value is a list, each may hold for another value: `All(["sea", "music"])`.

    Raises:
        UsageError: If it is not a list of one or more.
    """

    conditions: Sequence[Condition | SearchFilter] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", _several("All", self.conditions))


Condition: TypeAlias = (
    Scalar
    | Sequence[Scalar]
    | Set[Scalar]
    | Range
    | Exists
    | Text
    | GeoRadius
    | Not
    | Any
    | All
    | Mapping[str, typing.Any]
)
"""A value, several values of which any may match, one of the classes above, or the conditions on
the fields of one object."""

MetaFilter: TypeAlias = Mapping[str, Condition]
"""Conditions on `meta` fields, all of which must hold; see `core/field_path.py` for the names."""

if TYPE_CHECKING:
    SearchFilter: TypeAlias = MetaFilter | Any | All | Not | models.Filter
else:  # type hints can be evaluated at run time without an import of qdrant-client
    SearchFilter = MetaFilter | Any | All | Not | typing.Any
"""Conditions on `meta` fields, a combination of filters, or a Qdrant filter, whose keys are payload
keys (`meta.year`)."""


def check_filter(given: SearchFilter | None) -> None:
    """Check a filter's fields and values; a Qdrant filter passes unchecked.

    Raises:
        UsageError: If it is not a filter, the name of a field is invalid, a field has no value,
            a value is not a string, boolean, finite number, signed 64-bit integer or moment, or
            a part of it has no condition or is nested more than 12 levels deep.
    """
    if given is not None:
        _check_filter(given, 0)


def _check_filter(given: typing.Any, depth: int) -> None:
    _check_depth(depth)
    if is_qdrant_filter(given):
        return
    if isinstance(given, Any | All | Not):
        for part in [given.condition] if isinstance(given, Not) else given.conditions:
            if part == {}:
                raise UsageError(f"a filter in {type(given).__name__} must have a condition")
            _check_filter(part, depth + 1)
    elif isinstance(given, Mapping):
        for name, condition in given.items():
            check_field(name)
            _check_condition(name, condition, depth)
    else:
        raise UsageError(
            "a filter must be a mapping of fields to conditions, Any, All or Not of filters, or a "
            f"qdrant_client.models.Filter, got {with_article(_type_name(given))}"
        )


def needs_field(given: typing.Any) -> bool:
    """True if no passage without the field meets the condition."""
    if isinstance(given, Not):
        return not needs_field(given.condition)
    if isinstance(given, Any | All):
        parts = [needs_field(part) for part in given.conditions]
        return all(parts) if isinstance(given, Any) else any(parts)
    return True


def is_qdrant_filter(given: object) -> TypeGuard[models.Filter]:
    """True for a `qdrant_client.models.Filter`; imports nothing."""
    module = sys.modules.get("qdrant_client.http.models")  # no import of it, no such filter
    return module is not None and isinstance(given, module.Filter)


def _check_condition(field: str, given: typing.Any, depth: int) -> None:
    _check_depth(depth)
    if is_qdrant_filter(given):
        raise UsageError(
            f"the filter on '{field}' must be a condition on its value, got a "
            "qdrant_client.models.Filter: combine it with others by All([...])"
        )
    if isinstance(given, Not):
        _check_condition(field, given.condition, depth + 1)
    elif isinstance(given, Any | All):
        for part in given.conditions:
            _check_condition(field, part, depth + 1)
    elif isinstance(given, Mapping):
        _check_objects(field, given, depth)
    elif not isinstance(given, Range | Exists | Text | GeoRadius):
        list_values(field, given)


def _check_objects(field: str, given: Mapping[str, typing.Any], depth: int) -> None:
    check_object_field(field)
    if not given:
        raise UsageError(f"the filter on objects of '{field}' must have a condition, got {{}}")
    for name, condition in given.items():
        inner = f"{field}.{name}" if isinstance(name, str) else name
        check_field(inner)
        _check_condition(inner, condition, depth + 1)
    if not any(map(needs_field, given.values())):
        raise UsageError(
            f"the filter on objects of '{field}' must have a condition that an object without the "
            f"field does not meet, got {given!r}: add one such as Exists(), or write "
            "Not({...}) around conditions that no object may meet"
        )


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UsageError(f"a filter must be nested at most {MAX_DEPTH} levels deep")


def _several(name: str, given: typing.Any) -> Sequence[typing.Any]:
    if not is_several(given):
        raise UsageError(f"{name} must be a list of conditions or filters, got {given!r}")
    parts = tuple(given)
    if not parts:
        raise UsageError(f"{name} must have a condition or filter, got {given!r}")
    return parts


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"

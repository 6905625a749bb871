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
    }

Types differ: 1, "1" and True are three values. Both 1 and 1.0 match an integer; only a float or
a range matches a fractional number. A list in `meta` matches by any one of its values. Values of
NumPy, `Decimal`, `UUID` and others mean what they mean in `meta` (`core/meta_values.py`).
Qdrant's own `Filter` is accepted instead of a mapping.
"""

from __future__ import annotations

import sys
from collections import UserString
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard
from uuid import UUID

from msmarco_qdrant.core.field_path import check_field
from msmarco_qdrant.core.meta_values import MetaValueError, as_moment, plain_value, with_article
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from qdrant_client import models

Scalar: TypeAlias = str | int | float | bool | date | time | Decimal | UUID | Enum
"""A value to compare with; scalars of NumPy, pandas and Arrow are accepted, too.

A `date` or `datetime` means its moment, which strings such as "2024-05-01" are compared with.
"""

Plain: TypeAlias = str | int | float | bool | date
"""A value as the engines compare it."""

Bound: TypeAlias = int | float | Decimal | date
"""The end of a range: a number, or a moment (a `datetime` is a `date` in Python)."""


_SINGLE = (str, bytes, bytearray, memoryview, UserString, Mapping, Iterator)


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
        bounds = {name: _plain_bound(name, bound) for name, bound in bounds.items()}
        for name, bound in bounds.items():
            object.__setattr__(self, name, bound)
        if len({isinstance(bound, date) for bound in bounds.values()}) > 1:
            raise UsageError(f"the bounds of a Range must be all numbers or all dates, got {self}")


@dataclass(frozen=True, slots=True)
class Exists:
    """Condition that the field is present, and neither null nor an empty list."""


@dataclass(frozen=True, slots=True)
class Not:
    """Condition that another condition does not hold.

    A passage without the field matches, also for `Not(Exists())`; `Not(Not(x))` is `x`. A list in
    `meta` matches if none of its values meets the inner condition.
    """

    condition: Condition = field(hash=False)


Condition: TypeAlias = Scalar | Sequence[Scalar] | Set[Scalar] | Range | Exists | Not
"""A value, several values of which any may match, or one of the classes above."""

MetaFilter: TypeAlias = Mapping[str, Condition]
"""Conditions on `meta` fields, all of which must hold; see `core/field_path.py` for the names."""

if TYPE_CHECKING:
    SearchFilter: TypeAlias = MetaFilter | models.Filter
else:  # type hints can be evaluated at run time without an import of qdrant-client
    SearchFilter = MetaFilter | Any
"""Conditions on `meta` fields, or a Qdrant filter, whose keys are payload keys (`meta.year`)."""


def check_filter(given: SearchFilter | None) -> None:
    """Check a filter's fields and values; a Qdrant filter passes unchecked.

    Raises:
        UsageError: If it is not a filter, the name of a field is invalid, a field has no value,
            or a value is not a string, boolean, finite number, signed 64-bit integer or moment.
    """
    if given is None or is_qdrant_filter(given):
        return
    if not isinstance(given, Mapping):
        raise UsageError(
            "a filter must be a mapping of fields to conditions or a qdrant_client.models.Filter, "
            f"got {with_article(_type_name(given))}"
        )
    for name, condition in given.items():
        check_field(name)
        _check_condition(name, condition)


def is_qdrant_filter(given: object) -> TypeGuard[models.Filter]:
    """True for a `qdrant_client.models.Filter`; imports nothing."""
    module = sys.modules.get("qdrant_client.http.models")  # no import of it, no such filter
    return module is not None and isinstance(given, module.Filter)


def to_utc(given: date) -> datetime:
    """Convert a date or datetime to an aware datetime in UTC; without an offset it is UTC.

    Raises:
        UsageError: If the year in UTC is not 1 to 9999.
    """
    moment = given if isinstance(given, datetime) else datetime(given.year, given.month, given.day)
    if moment.utcoffset() is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise UsageError(f"the year in UTC must be 1 to 9999, got {given.isoformat()}") from exc


def list_values(field: str, given: Any) -> list[Plain]:
    """List the values of a condition, any one of which may match.

    Raises:
        UsageError: If there is none, or one is not a scalar.
    """
    values = [_plain_scalar(field, value) for value in _items(given)]
    if not values:
        raise UsageError(f"the filter on '{field}' must have a value, got {given!r}")
    return values


def _items(given: Any) -> Sequence[Any]:
    """Return the elements of a list, a set or an array, and any other value as the only one."""
    is_single = isinstance(given, _SINGLE) or getattr(given, "ndim", None) == 0
    return [given] if is_single or not isinstance(given, Iterable) else list(given)


def _plain_scalar(field: str, value: Any) -> Plain:
    if (moment := as_moment(value)) is not None:
        to_utc(moment)
        return moment
    try:
        plain = plain_value(value, f"the filter on '{field}'")
    except MetaValueError as exc:
        raise UsageError(str(exc)) from exc
    if isinstance(plain, str | int | float):
        return plain
    raise UsageError(
        f"the filter on '{field}' must be a string, a boolean, a number, a moment or a list of "
        f"these, got {value!r}"
    )


def _check_condition(field: str, given: Condition) -> None:
    if isinstance(given, Not):
        _check_condition(field, given.condition)
    elif not isinstance(given, Range | Exists):
        list_values(field, given)


def _plain_bound(name: str, bound: Any) -> int | float | date:
    if (moment := as_moment(bound)) is not None:
        to_utc(moment)
        return moment
    with suppress(MetaValueError):
        plain = plain_value(bound, name)
        if isinstance(plain, int | float) and not isinstance(plain, bool):
            return plain
    raise UsageError(
        f"{name} must be a finite number, a signed 64-bit integer, a date or a datetime, "
        f"got {bound!r}"
    )


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"

"""Conditions on the `meta` fields of passages, as values.

A filter maps fields to conditions, and all of them hold::

    {
        "lang": ["en", "de"],                       # any one of these
        "year": Range(gte=2001, lt=2010),
        "published": Range(gt=date(2001, 1, 1)),    # over RFC 3339 strings in `meta`
        "author.name": Exists(),                    # dots go into objects
        "tags": Not("draft"),                       # of a list, none of its values
    }

Types are told apart: 1, "1" and True are three values. An integer is found by 1 and by 1.0, a
fractional number by a float or a range alone. Of a list in `meta`, any one of its values may hold.
Qdrant's own `Filter` is taken in place of a mapping.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from qdrant_client import models

Scalar: TypeAlias = str | int | float | bool

Bound: TypeAlias = int | float | date
"""The end of a range: a number, or a moment (a `datetime`, which is a `date` to Python, too)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The field's number or moment lies between bounds.

    Numbers are compared as float64, exactly up to 2**53. Moments are compared with strings such as
    "2024-05-01", "2024-05-01T12:30:00" and "2024-05-01T12:30:00.5+02:00"; without an offset it is
    UTC, and a date is its first moment, there and here: `lte=date(2024, 12, 31)` leaves out that
    day's noon, `lt=date(2025, 1, 1)` does not.

    Attributes:
        gt: It is greater than this.
        gte: It is this or greater.
        lt: It is less than this.
        lte: It is this or less.

    Raises:
        UsageError: Without a bound, with both of `gt` and `gte` or of `lt` and `lte`, for numbers
            beside moments, and for a bound that is no finite number or integer of 64 bits.
    """

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    def __post_init__(self) -> None:
        bounds = {name: bound for name, bound in self._bounds() if bound is not None}
        if not bounds:
            raise UsageError("a Range without a bound holds everything: pass gt, gte, lt or lte")
        for strict, other in (("gt", "gte"), ("lt", "lte")):
            if strict in bounds and other in bounds:  # with an index, engines take one of them
                raise UsageError(f"a Range takes {strict} or {other}, not both: leave one out")
        for name, bound in bounds.items():
            _check_bound(name, bound)
        if len({isinstance(bound, date) for bound in bounds.values()}) > 1:
            raise UsageError(f"{self} mixes numbers and dates: a field is compared with one kind")

    def _bounds(self) -> Sequence[tuple[str, Bound | None]]:
        return ("gt", self.gt), ("gte", self.gte), ("lt", self.lt), ("lte", self.lte)


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there, and is neither null nor an empty list."""


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold: another value, none of several, outside a range, missing.

    A passage without the field satisfies it, but for `Not(Exists())`, which is just these passages
    (`Not(Not(x))` is `x`). Of a list in `meta`, none of its values may meet the condition.
    """

    condition: Condition


Condition: TypeAlias = Scalar | Sequence[Scalar] | Range | Exists | Not
"""A value, any one of several, or one of the forms above."""

MetaFilter: TypeAlias = Mapping[str, Condition]
"""Conditions on `meta` fields, all of which hold; dots in a field's name go into objects."""

if TYPE_CHECKING:
    SearchFilter: TypeAlias = MetaFilter | models.Filter
else:  # for those who read hints at run time, without an import of qdrant-client
    SearchFilter = MetaFilter | Any
"""What a search takes: conditions on `meta` fields, or a filter as Qdrant itself has it, whose keys
are those of the payload (`meta.year`)."""


# ---- checks --------------------------------------------------------------------------------


def check_filter(given: SearchFilter | None) -> None:
    """Refuse a filter that no engine can compare with; Qdrant's own passes as it is.

    Raises:
        UsageError: For what is no filter, a field without a value, or a value that is no string,
            boolean, finite number, or integer of 64 bits with a sign.
    """
    if given is None or is_qdrant_filter(given):
        return
    if not isinstance(given, Mapping):
        raise UsageError(
            "a filter is a mapping of fields to conditions, or a qdrant_client.models.Filter, "
            f"not a {_type_name(given)}"
        )
    for field, condition in given.items():
        check_field(field)
        _check_condition(field, condition)


def is_qdrant_filter(given: object) -> TypeGuard[models.Filter]:
    """Whether it is a `qdrant_client.models.Filter`; imports nothing to find out."""
    module = sys.modules.get("qdrant_client.http.models")  # there is none before its module
    return module is not None and isinstance(given, module.Filter)


def check_field(field: object) -> None:
    """Refuse what cannot name a field of `meta` in a filter or a payload index.

    Raises:
        UsageError: If it is no string, or holds a quotation mark, a NUL or a lone surrogate.
    """
    if not isinstance(field, str) or '"' in field or "\0" in field or not _is_text(field):
        raise UsageError(f"{field!r} cannot name a field of a filter or an index")


def to_utc(given: date) -> datetime:
    """A date or datetime as an aware datetime in UTC, which is what one without an offset is.

    Raises:
        UsageError: If it lies outside the years 1 to 9999 there.
    """
    moment = given if isinstance(given, datetime) else datetime(given.year, given.month, given.day)
    if moment.utcoffset() is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise UsageError(f"{given.isoformat()} in UTC is not in the years 1 to 9999") from exc


def list_values(given: Scalar | Sequence[Scalar]) -> Sequence[Scalar]:
    """The values of a condition, any one of which may match."""
    one: Any = given  # bytes are a sequence, and no values; the check refuses them
    return [one] if isinstance(given, str | bytes) or not isinstance(given, Sequence) else given


def _check_condition(field: str, given: Condition) -> None:
    if isinstance(given, Not):
        _check_condition(field, given.condition)
    elif not isinstance(given, Range | Exists):
        values = list_values(given)
        if not values:
            raise UsageError(f"the filter on '{field}' has no value: leave it out, or give one")
        for value in values:
            _check_value(field, value)


def _check_value(field: str, value: object) -> None:
    if _comparable(value):
        return
    hint = "; a date goes into a Range" if isinstance(value, date) else ""
    raise UsageError(
        f"the filter on '{field}' has the value {value!r}: expected a string, a boolean, a finite "
        f"number, or an integer that fits 64 bits with a sign{hint}"
    )


def _check_bound(name: str, bound: object) -> None:
    if isinstance(bound, date):
        to_utc(bound)
    elif isinstance(bound, bool | str) or not _comparable(bound):
        raise UsageError(
            f"{name}={bound!r} bounds no range: expected a finite number, an integer that fits 64 "
            "bits with a sign, a date or a datetime"
        )


def _comparable(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, str) and _is_text(value)


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"

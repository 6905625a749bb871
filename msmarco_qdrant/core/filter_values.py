"""Values of conditions, as the engines compare them."""

from __future__ import annotations

import unicodedata
from collections import UserString
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any, TypeAlias, TypeGuard

from msmarco_qdrant.core.meta_values import MetaValueError, as_moment, plain_value
from msmarco_qdrant.errors import UsageError

Plain: TypeAlias = str | int | float | bool | date
"""A value as the engines compare it."""

_SINGLE = (str, bytes, bytearray, memoryview, UserString, Mapping, Iterator)


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


def is_several(given: Any) -> TypeGuard[Iterable[Any]]:
    """True for a list, a set or an array, and not for a text, a mapping or an iterator."""
    return isinstance(given, Iterable) and not isinstance(given, _SINGLE)


def _items(given: Any) -> Sequence[Any]:
    """Return the elements of a list, a set or an array, and any other value as the only one."""
    is_scalar = getattr(given, "ndim", None) == 0
    return list(given) if is_several(given) and not is_scalar else [given]


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


def split_words(text: str) -> Sequence[str]:
    """Split a text at spaces and punctuation, for conditions on one word each.

    The engines may split them further, as they have the letters of more scripts than Python has.
    """
    apart = (c if c.isalnum() or _is_inner(c) else " " for c in text)
    return [word for word in "".join(apart).split() if any(map(str.isalnum, word))]


def _is_inner(character: str) -> bool:
    """True for a character outside of ASCII that may belong to a word of some script."""
    return character > "\x7f" and unicodedata.category(character)[0] not in "PZC"


def plain_number(given: Any) -> int | float | None:
    """Convert a finite number or 64-bit integer; return None for any other value."""
    with suppress(MetaValueError):
        plain = plain_value(given, "a number")
        if isinstance(plain, int | float) and not isinstance(plain, bool):
            return plain
    return None


def plain_bound(name: str, bound: Any) -> int | float | date:
    """Convert the end of a range.

    Raises:
        UsageError: If it is neither a number nor a moment.
    """
    if (moment := as_moment(bound)) is not None:
        to_utc(moment)
        return moment
    if (number := plain_number(bound)) is not None:
        return number
    raise UsageError(
        f"{name} must be a finite number, a signed 64-bit integer, a date or a datetime, "
        f"got {bound!r}"
    )

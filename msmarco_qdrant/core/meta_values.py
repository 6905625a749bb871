"""Values of Python, NumPy, pandas and Arrow as the plain JSON values of `meta`.

One conversion for passages made in Python, for columns of Parquet files and for filters, so that a
value that was stored is found by the same value:

| given | stored |
| --- | --- |
| `datetime`, `date`, `time`, and those of NumPy, pandas and Arrow | text in ISO 8601 |
| `timedelta` and the like | seconds, an integer if they are whole |
| `Decimal` | an integer if it has no decimal places, else the float that is written the same |
| `UUID`, `Path` | text |
| `bytes` | text, if they are printable UTF-8 |
| `Enum` | its value |
| tuple, array or another sequence | array |
| set | array in ascending order |
| mapping | object |
| a missing value of pandas (`NaT`, `NA`) | null |

Nothing is imported for it: values of a library exist only if it was imported.
"""

from __future__ import annotations

import json
import math
import operator
import re
import sys
import types
from collections import UserString
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from msmarco_qdrant.core.records import Meta

# gRPC limits a message to 100 levels, and an object in a payload takes three of them: a server
# cannot return deeper ones. Edge cannot load more than 125 levels.
_MAX_DEPTH = 24
_TICKS_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MAX_DIGITS = 400  # more than a float64 and an integer can have: bounds the work for 1E+999999
_FIELD = re.compile(r"field '(.+?)'(?=[.\[]|$)", re.DOTALL)
_CAPITAL = re.compile(r"(?<=[a-z])[A-Z]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


class MetaValueError(ValueError):
    """The reason that a value cannot be stored."""


def plain_meta(meta: Mapping[str, Any]) -> Meta:
    """Return the fields of a passage as JSON values; the same dictionary if they are that.

    Raises:
        MetaValueError: For a value that a Qdrant payload would lose, change or refuse.
    """
    return _object(meta, "", 0)


def plain_value(value: Any, where: str, depth: int = 0) -> Any:
    """Return a value as a JSON value; the same object if it is one.

    Args:
        value: The value.
        where: Its place, for messages, such as `field 'year'`.
        depth: Its depth in `meta`.

    Raises:
        MetaValueError: See `plain_meta`.
    """
    if depth > _MAX_DEPTH:
        raise MetaValueError(f"nested too deeply: {_MAX_DEPTH} levels are accepted")
    kind = type(value)
    if kind is str:
        return check_string(value, where)
    if value is None or kind is bool:
        return value
    if kind is int or kind is float:
        return _number(value, where)
    if kind is dict:
        return _object(value, where, depth)
    if kind is list:
        return _array(value, where, depth)
    return _convert(value, where, depth)


def as_moment(value: Any) -> date | None:
    """Return a date or datetime of Python, pandas, NumPy or Arrow as one of Python, else None."""
    if isinstance(value, date):
        return None if _is_missing(value) else value
    found = _from_library(value)
    if isinstance(found, str) and type(value).__name__ in ("datetime64", "TimestampScalar"):
        # it has nanoseconds, which Python cuts off
        return datetime.fromisoformat(found)
    return found if isinstance(found, date) else None


def check_string(value: str, where: str) -> str:
    """Return a string without NUL and lone surrogates, or raise `MetaValueError`."""
    if "\x00" in value:
        raise MetaValueError(f"{where} holds a NUL byte")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        code = ord(value[exc.start])
        raise MetaValueError(f"{where} holds a lone surrogate, U+{code:04X}") from exc
    return value


def type_name(value: object) -> str:
    """Return the type of a value in the words of JSON or Arrow, or its name in Python."""
    kind = type(value)
    if kind.__module__.startswith("pyarrow"):
        name = kind.__name__.removesuffix("Scalar")
        return with_article(_CAPITAL.sub(r" \g<0>", name).lower())
    return _NAMES.get(kind, with_article(kind.__name__))


def with_article(name: str) -> str:
    """Return the name of a type with "a" or "an"."""
    return f"an {name}" if name[:1] in "aeioAEIO" else f"a {name}"


# ---- JSON's own types ------------------------------------------------------------------------


def _number(value: float, where: str) -> float:
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise MetaValueError(
                f"{where} must be a signed 64-bit integer, got {value}; write it as a string"
            )
    elif not math.isfinite(value):
        raise MetaValueError(f"{where} must be a finite number, got {value}")
    return value


def _object(value: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
    plain = {}
    for name, inner in value.items():
        key = _name(name, where)
        plain[key] = plain_value(inner, f"{where}.{key}" if where else f"field '{key}'", depth + 1)
    return value if type(value) is dict and _are_same(plain.values(), value.values()) else plain


def _array(value: Sequence[Any] | Set[Any], where: str, depth: int) -> list[Any]:
    plain = [plain_value(v, f"{where}[{at}]", depth + 1) for at, v in enumerate(value)]
    return value if type(value) is list and _are_same(plain, value) else plain


def _name(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise MetaValueError(f"a field name must be a string, got {type_name(name)}")
    return check_string(str.__str__(name), f"a field name in {where or 'the row'}")


def _are_same(plain: Iterable[object], given: Iterable[object]) -> bool:
    return all(map(operator.is_, plain, given))


# ---- all other types -------------------------------------------------------------------------


def _convert(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, Enum):
        return plain_value(value.value, where, depth)
    for kinds, convert in _SCALARS:
        if isinstance(value, kinds):
            return None if _is_missing(value) else convert(value, where)
    if (inner := _from_library(value)) is not value:
        return plain_value(inner, where, depth)
    if isinstance(value, Mapping):
        return _object(value, where, depth)
    if isinstance(value, Set):
        return sorted(_array(value, where, depth), key=_order)
    if isinstance(value, Sequence):
        return _array(value, where, depth)
    raise _wrong_type(where, type_name(value))


def _is_missing(value: object) -> bool:
    """True for `NaT` and `NA` of pandas."""
    kind = type(value)
    return kind.__name__ in ("NaTType", "NAType") and kind.__module__.startswith("pandas.")


def _text(value: Any, where: str) -> str:
    return check_string(str(value), where)


def _bytes_text(value: bytes | bytearray | memoryview, where: str) -> str:
    """Return bytes as text if they are text: columns of many programs hold it as binary."""
    try:
        text = bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if _CONTROL.search(text):
        raise _wrong_type(where, "bytes that are not text")
    return text


def _moment_text(value: datetime | time, where: str) -> str:  # noqa: ARG001  # as the others have it
    """Return ISO 8601, in UTC if the offset has seconds, which Qdrant cannot read."""
    offset = value.utcoffset()
    if isinstance(value, datetime) and offset is not None and offset % timedelta(minutes=1):
        value = value.astimezone(UTC)
    return value.isoformat()


def _decimal(value: Decimal, where: str) -> float:
    if not value.is_finite():
        raise MetaValueError(f"{where} must be a finite number, got {value}")
    if value.adjusted() > _MAX_DIGITS:
        raise MetaValueError(f"{where} must fit a float64 or a signed 64-bit integer, got {value}")
    if int(value.as_tuple().exponent) >= 0:
        return _number(int(value), where)
    number = float(value)
    if Decimal(repr(number)) != value:
        raise MetaValueError(
            f"{where} must be a decimal that a float64 holds with all digits, got {value}; "
            "write it as a string"
        )
    return number


def _seconds(value: timedelta, where: str) -> float:  # noqa: ARG001
    return _per_second(value // timedelta(microseconds=1), "us")


def _per_second(ticks: int, unit: str) -> float:
    """Return ticks as seconds, an integer if they are whole."""
    whole, rest = divmod(ticks, _TICKS_PER_S[unit])
    return ticks / _TICKS_PER_S[unit] if rest else whole


_SCALARS: Sequence[tuple[type | types.UnionType, Callable[[Any, str], Any]]] = (
    (str, lambda value, where: check_string(str.__str__(value), where)),
    (bytes | bytearray | memoryview, _bytes_text),
    (int, lambda value, where: _number(int.__index__(value), where)),
    (float, lambda value, where: _number(float.__float__(value), where)),
    (Decimal, _decimal),
    (datetime | time, _moment_text),
    (date, lambda value, _: value.isoformat()),
    (timedelta, _seconds),
    (UUID | PurePath | UserString, _text),
)
"""Conversions of scalars of the standard library and of classes derived from them."""


def _order(value: Any) -> tuple[bool, float, str]:
    """Return the place of an element of a set: numbers by value, then all others by their JSON."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return False, value, ""
    return True, 0, json.dumps(value, sort_keys=True, ensure_ascii=False)


def _wrong_type(where: str, found: str) -> MetaValueError:
    field = _FIELD.match(where)
    advice = f": convert it, or leave the field out (--skip-field {field[1]})" if field else ""
    return MetaValueError(f"{where} must be a JSON value, got {found}{advice}")


# ---- libraries -------------------------------------------------------------------------------


def _from_library(value: Any) -> Any:  # noqa: PLR0911  # one a library
    """Return a value of NumPy, pandas or Arrow as one of Python; any other value unchanged.

    A moment with nanoseconds, which Python does not have, becomes text.
    """
    if _is_missing(value):
        return None
    arrow, numpy = sys.modules.get("pyarrow"), sys.modules.get("numpy")
    if arrow is not None and isinstance(value, arrow.Scalar):
        return _from_arrow(value, arrow)
    if arrow is not None and isinstance(value, arrow.Array | arrow.ChunkedArray):
        return list(value)
    if numpy is not None and isinstance(value, numpy.datetime64 | numpy.timedelta64):
        return _from_numpy_time(value, numpy)
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.kind in "Mm":
        return list(value) if value.ndim else value[()]
    if callable(convert := getattr(value, "tolist", None)) and not isinstance(value, type):
        found = convert()
        return value if type(found) is type(value) else found
    return value


def _from_numpy_time(value: Any, numpy: Any) -> Any:
    if numpy.isnat(value):
        return None
    item = value.item()
    if isinstance(item, int) and numpy.datetime_data(value.dtype) == ("ns", 1):
        if isinstance(value, numpy.timedelta64):
            return _per_second(item, "ns")
        whole = value.astype("datetime64[us]").item()
        return _with_nanoseconds(whole, item % 1000)
    return value if isinstance(item, int) else item


def _from_arrow(value: Any, arrow: Any) -> Any:  # noqa: PLR0911  # one a kind
    if not value.is_valid:
        return None
    if isinstance(value, arrow.MapScalar):
        pairs = [(pair["key"].as_py(), pair["value"]) for pair in value.values]
        if len(dict(pairs)) < len(pairs):
            raise MetaValueError("a map must have each key once")
        return dict(pairs)
    if isinstance(value, arrow.StructScalar):
        return dict(value.items())
    if isinstance(value, arrow.ListScalar):  # all kinds of lists
        return list(value.values)
    if isinstance(value, arrow.DurationScalar):
        return _per_second(value.value, value.type.unit)
    if isinstance(value, arrow.TimestampScalar | arrow.Time64Scalar) and value.type.unit == "ns":
        whole, rest = divmod(value.value, 1000)
        return _with_nanoseconds(_in_microseconds(whole, value.type, arrow), rest)
    if isinstance(value, arrow.ExtensionScalar) and not isinstance(value, arrow.UuidScalar):
        return value.value
    return value.as_py()


def _in_microseconds(ticks: int, kind: Any, arrow: Any) -> datetime | time:
    is_time = arrow.types.is_time(kind)
    wanted = arrow.time64("us") if is_time else arrow.timestamp("us", kind.tz)
    found: datetime | time = arrow.scalar(ticks, wanted).as_py()
    return found


def _with_nanoseconds(value: datetime | time, rest: int) -> datetime | time | str:
    """Return the text of a moment with three more digits; the moment itself if these are zero."""
    if rest == 0:
        return value
    text = value.isoformat(timespec="microseconds")
    return re.sub(r"(\.\d{6})", rf"\g<1>{rest:03d}", text)

"""The `--filter` option: conditions on `meta` fields as a shell can write them.

The first operator from the left ends the field, and what follows is the value; a name without one
asks whether the field is there. What is given of one field is one condition: values of which any
one fits, values of which none fits, or the two ends of a range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import TYPE_CHECKING, TypeAlias

import click

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import Bound, Condition, Exists, Not, Range, Scalar

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import PayloadIndex
    from msmarco_qdrant.filters import MetaFilter

_FORMS = (
    "FIELD=VALUE, FIELD!=VALUE, FIELD>N, FIELD>=N, FIELD<N, FIELD<=N, FIELD (it is there) or "
    "!FIELD (it is missing)"
)
_OPERATOR = re.compile(r"!=|>=|<=|>|<|=")
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_KINDS = {"=": "equality", "!=": "inequality", "": "being there", "!": "being missing"}

# What an index of a kind holds, and answers; a float is found by an integer index, too.
_HELD: Mapping[str, tuple[type, ...]] = {
    "keyword": (str,),
    "integer": (float, int),
    "float": (float,),
    "bool": (bool,),
}

_Part: TypeAlias = tuple[str, str]  # operator ("" and "!" for a field alone) and value


def parse_filters(
    texts: Sequence[str], indexes: Mapping[str, PayloadIndex] | None = None
) -> MetaFilter | None:
    """What several `--filter` ask together: every field's condition holds.

    A value of `=` and `!=` matches as a string and as the number or boolean it reads as. Where a
    payload index tells the field's type, it matches as that alone, which the index answers.

    Args:
        texts: What was given.
        indexes: The kind of each payload key's index, such as `{"meta.year": "integer"}`.

    Returns:
        The conditions, None without any.

    Raises:
        click.UsageError: For a text that is no condition, and for conditions on one field that do
            not go together.
    """
    from msmarco_qdrant.stores.filters import index_kind, meta_key

    fields: dict[str, list[_Part]] = {}
    for text in texts:
        field, part = _split(text)
        fields.setdefault(field, []).append(part)
    return {
        field: _condition(field, parts, index_kind(indexes or {}, meta_key(field)))
        for field, parts in fields.items()
    } or None


def _split(text: str) -> tuple[str, _Part]:
    """The field, and what is said of it."""
    found = _OPERATOR.search(text)
    if found:
        field, part = text[: found.start()], (found.group(), text[found.end() :])
        if field.startswith("!"):
            raise click.UsageError(
                f"--filter {text!r}: '!' stands before a field alone; for passages without that "
                f"value write {field[1:]}!={part[1]}"
            )
    else:
        field, part = text.removeprefix("!"), ("!" if text.startswith("!") else "", "")
    if not field:
        raise click.UsageError(f"--filter {text!r}: expected {_FORMS}")
    return field, part


def _condition(field: str, parts: Sequence[_Part], index: PayloadIndex | None) -> Condition:
    kinds = dict.fromkeys(_KINDS.get(operator, "a range") for operator, _ in parts)
    if len(kinds) > 1:
        raise click.UsageError(
            f"--filter asks for {' and '.join(kinds)} of '{field}' together: one field takes one "
            "kind of condition, so leave the others out (in Python, a qdrant_client.models.Filter "
            "takes them all)"
        )
    operator = parts[0][0]
    if operator in _BOUNDS:
        return _range(field, parts)
    if operator in ("", "!"):
        return Not(Exists()) if operator else Exists()
    values = [reading for _, value in parts for reading in _readings(value, index)]
    return values if operator == "=" else Not(values)


def _range(field: str, parts: Sequence[_Part]) -> Range:
    bounds: dict[str, Bound] = {}
    for operator, value in parts:
        name = _BOUNDS[operator]
        if name in bounds:
            raise click.UsageError(f"--filter has {field}{operator} twice: leave one out")
        bounds[name] = _bound(f"{field}{operator}{value}", value)
    try:
        return Range(**bounds)
    except UsageError as exc:
        shown = " ".join(f"{field}{operator}{value}" for operator, value in parts)
        raise click.UsageError(f"--filter {shown!r}: {exc}") from exc


def _bound(text: str, value: str) -> Bound:
    """A number if it reads as one, else a moment."""
    for read in (int, float, date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError):
            return read(value)
    raise click.UsageError(
        f"--filter {text!r}: expected a number, a date such as 2024-05-01, or a moment such as "
        "2024-05-01T12:30:00+02:00"
    )


def _readings(value: str, index: PayloadIndex | None) -> list[Scalar]:
    """Those that the field's index can hold, if there are any; else all."""
    readings = _all_readings(value)
    held = _HELD.get(index or "", ())
    return [one for one in readings if type(one) in held] or readings


def _all_readings(value: str) -> list[Scalar]:
    readings: list[Scalar] = [value]
    if value.lower() in ("true", "false"):  # Python writes True and False
        readings.append(value.lower() == "true")
    with suppress(ValueError):
        number = float(value)
        if abs(number) < 2**53:  # where a float equals one integer only, and never for NaN
            readings.append(number)
    with suppress(ValueError):
        integer = int(value)
        if -(2**63) <= integer < 2**63:  # what Qdrant compares with
            readings.append(integer)
    return readings

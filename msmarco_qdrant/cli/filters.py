"""The options `--filter` and `--where`: conditions on `meta` fields in a form for the shell.

The first operator from the left ends the field's name; the rest is the value. A name without an
operator means that the field exists. All conditions on one field are combined: any of several
values, none of several values, or the two bounds of a range.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from msmarco_qdrant.core.field_path import check_field
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import All, Bound, Condition, Exists, Not, Range, Scalar, check_filter

if TYPE_CHECKING:
    from msmarco_qdrant.core.collection_types import PayloadIndex
    from msmarco_qdrant.filters import MetaFilter, SearchFilter
    from msmarco_qdrant.stores import Store

_FORMS = (
    "FIELD=VALUE, FIELD!=VALUE, FIELD>N, FIELD>=N, FIELD<N, FIELD<=N, FIELD (it exists) or "
    "!FIELD (it is missing)"
)
# A quoted name may contain operators; a name without its second quotation mark is refused later.
_FIELD = re.compile(r'(?:"[^"]*"|[^"=<>!]|!(?!=))*')
_OPERATOR = re.compile(r"!=|>=|<=|>|<|=")
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_KINDS = {"=": "equality", "!=": "inequality", "": "existence", "!": "absence"}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)  # of JSON: no 1_000, 007, +1 or nan
_NUMBER = re.compile(rf"{_INTEGER.pattern}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:.+)?", re.ASCII)
_MOST_DIGITS = 400  # a float64 has no more, and Python converts no more than 4,300

# The types of values that an index of a kind can find; an integer index also finds floats.
_INDEXED_TYPES: Mapping[str, tuple[type, ...]] = {
    "keyword": (str,),
    "tenant": (str,),
    "text": (str,),
    "integer": (float, int),
    "float": (float,),
    "bool": (bool,),
    "datetime": (date, datetime),
}

_WHERE = f"{__name__}.where"


class Where(str):
    """The text of a `--where` among those of `--filter`."""

    __slots__ = ()


def _note_where(context: click.Context, _: click.Parameter, texts: tuple[str, ...]) -> None:
    context.meta[_WHERE] = [*map(Where, texts)]


def _add_where(
    context: click.Context, _: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    return (*texts, *context.meta.get(_WHERE, []))


_where_option = click.option(
    "--where",
    multiple=True,
    metavar="EXPRESSION",
    is_eager=True,  # before `--filter`, which adds it
    expose_value=False,
    callback=_note_where,
    help="Only passages that an expression of conditions with and, or, not and parentheses holds "
    "for, such as \"lang = de and (year >= 1950 or title has 'sea music')\".",
)
_filter_option = click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="CONDITION",
    callback=_add_where,
    help="Only passages whose meta has FIELD=VALUE, FIELD!=VALUE, FIELD>=N (or >, <=, <; a number "
    "or a date), FIELD (it exists) or !FIELD (it is missing). Repeat it: all conditions must hold, "
    "but only one of several FIELD=VALUE of the same field.",
)


def filter_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--filter` and `--where`; a command gets the texts of both as `filters`."""
    for option in (_where_option, _filter_option):
        command = option(command)
    return command


_Part: TypeAlias = tuple[str, str]  # operator ("" and "!" for a field alone) and value


def parse_filters(
    texts: Sequence[str], indexes: Mapping[str, PayloadIndex] | None = None
) -> SearchFilter | None:
    """Combine the texts of `--filter` and `--where`: all of them must hold.

    A value of `=` and `!=` matches as a string, and as a boolean, a number of JSON or a moment if
    it is one. If the field has a payload index, the value matches only as the types of the index.
    `indexes` has the kind of the index of each payload key, such as `{"meta.year": "integer"}`.

    Returns:
        The conditions of `--filter` by field, the filter of a `--where`, or all of them; None
        without any.

    Raises:
        click.UsageError: For an invalid condition, or conditions of `--filter` on one field that
            exclude each other.
    """
    known = indexes or {}
    conditions = [text for text in texts if not isinstance(text, Where)]
    parts: list[SearchFilter] = [_parse_conditions(conditions, known)] if conditions else []
    parts += [_parse_where(text, known) for text in texts if isinstance(text, Where)]
    return All(parts) if len(parts) > 1 else next(iter(parts), None)


def _parse_where(text: str, indexes: Mapping[str, PayloadIndex]) -> SearchFilter:
    from msmarco_qdrant.cli.where import parse_where
    from msmarco_qdrant.stores.filters import index_kind, meta_key

    def parse_values(field: str, value: str) -> list[Scalar]:
        return _parse_scalars(value, index_kind(indexes, meta_key(field)))

    found = parse_where(text, parse_values, _number_or_moment)
    try:
        check_filter(found)
    except UsageError as exc:
        raise click.UsageError(f"--where {text!r}: {exc}") from exc
    return found


def _parse_conditions(texts: Sequence[str], indexes: Mapping[str, PayloadIndex]) -> MetaFilter:
    """Parse the texts of `--filter`: the condition of every field must hold."""
    from msmarco_qdrant.stores.filters import index_kind, meta_key

    fields: dict[str, list[_Part]] = {}
    for text in texts:
        field, part = _split(text)
        fields.setdefault(field, []).append(part)
    return {
        field: _condition(field, parts, index_kind(indexes, meta_key(field)))
        for field, parts in fields.items()
    }


def parse_for(store: Store, collection: str, texts: Sequence[str]) -> SearchFilter | None:
    """Parse with the payload indexes of a collection, so that the engine can use them."""
    if not texts:
        return None
    store.metadata(collection)  # raises for another program's collection
    return parse_filters(texts, store.collection(collection).spec().payload_indexes)


def _split(text: str) -> tuple[str, _Part]:
    """Split into the field, and the operator with its value."""
    start = _FIELD.match(text)
    found = _OPERATOR.search(text, start.end() if start else 0)
    if found:
        field, part = text[: found.start()], (found.group(), text[found.end() :])
        if field.startswith("!"):
            raise click.UsageError(
                f"--filter {text!r}: '!' needs a field without a value; for passages without this "
                f"value pass {field[1:]}!={part[1]}"
            )
    else:
        field, part = text.removeprefix("!"), ("!" if text.startswith("!") else "", "")
    if not field:
        raise click.UsageError(f"--filter {text!r}: expected {_FORMS}")
    try:
        check_field(field)
    except UsageError as exc:
        raise click.UsageError(f"--filter {text!r}: {exc}") from exc
    return field, part


def _condition(field: str, parts: Sequence[_Part], index: PayloadIndex | None) -> Condition:
    kinds = dict.fromkeys(_KINDS.get(operator, "a range") for operator, _ in parts)
    if len(kinds) > 1:
        raise click.UsageError(
            f"--filter takes one kind of condition per field, got {' and '.join(kinds)} for "
            f"'{field}': omit the others (in Python, a qdrant_client.models.Filter can have all)"
        )
    operator = parts[0][0]
    if operator in _BOUNDS:
        return _range(field, parts)
    if operator in ("", "!"):
        return Not(Exists()) if operator else Exists()
    values = [scalar for _, value in parts for scalar in _parse_scalars(value, index)]
    return values if operator == "=" else Not(values)


def _range(field: str, parts: Sequence[_Part]) -> Range:
    bounds: dict[str, Bound] = {}
    for operator, value in parts:
        name = _BOUNDS[operator]
        if name in bounds:
            raise click.UsageError(f"--filter takes one {field}{operator}, got two: omit one")
        bounds[name] = _parse_bound(f"{field}{operator}{value}", value)
    try:
        return Range(**bounds)
    except UsageError as exc:
        shown = " ".join(f"{field}{operator}{value}" for operator, value in parts)
        raise click.UsageError(f"--filter {shown!r}: {exc}") from exc


def _parse_bound(text: str, value: str) -> Bound:
    """Parse a number, else a date or time."""
    bound = _number_or_moment(value)
    if bound is None:
        raise click.UsageError(
            f"--filter {text!r}: expected a number, a date such as 2024-05-01, or a time such as "
            "2024-05-01T12:30:00+02:00"
        )
    return bound


def _number_or_moment(value: str) -> Bound | None:
    number = _number(value)
    return _moment(value) if number is None else number


def _parse_scalars(value: str, index: PayloadIndex | None) -> list[Scalar]:
    """Return the value in each type of the field's index; in all possible types if it fits none."""
    scalars: list[Scalar] = [value]
    if value.lower() in ("true", "false"):  # Python writes True and False
        scalars.append(value.lower() == "true")
    number = _number(value)
    if number is not None and abs(number) < 2**53:  # a float there equals one integer at most
        scalars.append(float(number))
    if isinstance(number, int) and -(2**63) <= number < 2**63:  # the integers of Qdrant
        scalars.append(number)
    if (moment := _moment(value)) is not None:
        scalars.append(moment)
    types = _INDEXED_TYPES.get(index or "", ())
    return [scalar for scalar in scalars if type(scalar) in types] or scalars


def _number(value: str) -> int | float | None:
    """Parse a number as JSON writes it; None for any other text."""
    if len(value) > _MOST_DIGITS or not _NUMBER.fullmatch(value):
        return None
    return int(value) if _INTEGER.fullmatch(value) else float(value)


def _moment(value: str) -> date | None:
    """Parse a date or time with hyphens; None for any other text."""
    if not _MOMENT.fullmatch(value):
        return None
    for read in (date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError):
            return read(value)
    return None

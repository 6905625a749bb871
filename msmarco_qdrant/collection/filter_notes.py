"""Notes on filters that cannot match: fields that no passage has, and values of other types."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from msmarco_qdrant.core.field_path import field_values, flatten
from msmarco_qdrant.core.filter_values import list_values
from msmarco_qdrant.filters import (
    All,
    Exists,
    GeoRadius,
    Not,
    Range,
    SearchFilter,
    Text,
    is_qdrant_filter,
    needs_field,
)
from msmarco_qdrant.filters import Any as EitherOf
from msmarco_qdrant.stores import AliasedCollection, Collection
from msmarco_qdrant.stores.filter_indexes import filter_keys
from msmarco_qdrant.stores.filters import combine, has_key

FILTER_NOTES: ContextVar[list[str] | None] = ContextVar("FILTER_NOTES", default=None)
"""Collects the warnings of the filters of a request, for an answer by HTTP."""

_log = logging.getLogger(__name__)

_DATE = re.compile(r"\s*[0-9]{4}-[0-9]")
_NO_FIELDS = {
    "pid": "the pid of a passage is not in meta",
    "id": "the pid of a passage is not in meta",
    "_id": "the pid of a passage is not in meta",
    "title": "the title of a passage is part of its text",
    "text": "the text of a passage is not in meta: search for its words",
    "seq": "the seq of a passage is not in meta",
}


@dataclass(frozen=True, slots=True)
class FilterField:
    """A field of a filter.

    Attributes:
        name: Its name in `meta`, or the payload key of Qdrant's own filter.
        is_negative: True if passages without the field may match.
        asked: The types that the condition compares; empty for any.
        is_key: True for a payload key.
    """

    name: str
    is_negative: bool
    asked: frozenset[str] = frozenset()
    is_key: bool = False

    def values(self, meta: Any) -> Sequence[Any]:
        """Return its values in a passage, without null and empty lists."""
        path = self.name.removeprefix("meta.") if self.is_key else self.name
        if not isinstance(meta, Mapping) or (self.is_key and path == self.name):
            return []
        return [value for value in field_values(meta, path) if value is not None and value != []]

    def exists(self) -> SearchFilter:
        """Return the filter of the passages that have it."""
        return has_key(self.name) if self.is_key else {self.name: Exists()}

    def sampled(self, payload: Mapping[str, Any] | None) -> Sequence[Any]:
        """Return its values in a passage that `exists` found, which has one; none without it."""
        return [] if payload is None else self.values(payload.get("meta")) or [None]

    def note(self, values: Sequence[Any]) -> str | None:
        """Return the warning of a field with such values, None if the filter can match them.

        Args:
            values: Its values in one passage; empty if no passage has it.
        """
        return _type_note(self, values) if values else _missing_note(self)

    @property
    def hint(self) -> str:
        """A colon and the probable meaning of a field that no passage has; "" if unknown."""
        name = self.name
        if self.is_key:
            is_meta = name.startswith("meta.")
            return "" if is_meta else f": the key of a field of meta is meta.{name}"
        if name in _NO_FIELDS:
            return f": {_NO_FIELDS[name]}"
        if name.startswith("meta."):
            return f": write {name.removeprefix('meta.')}"
        if ":" in name and not self.asked:
            return f": for a value write {name.replace(':', '=', 1)}"
        if '"' not in name and re.search(r"[.\[]", name):
            return (
                f': if dots or brackets are part of the name, write "{name}" with quotation marks'
            )
        return ""


def log_filter_notes(
    collection: Collection | AliasedCollection,
    given: SearchFilter,
    *,
    has_match: bool,
    scope: SearchFilter | None = None,
) -> None:
    """Warn of fields that no passage has, or whose values are of other types.

    It reads one passage for each field that can explain the answer: all of a filter without a
    match, else those whose absence is a match.

    Args:
        collection: The collection.
        given: The filter.
        has_match: True if a passage matches it.
        scope: The passages to read; None for all.
    """
    for field in filter_fields(given):
        if has_match and not field.is_negative:
            continue
        found = collection.scan(("meta",), meta_filter=combine(scope, field.exists()))
        payload = next((payload for _, payload in found), None)
        if (note := field.note(field.sampled(payload))) is None:
            continue
        if (notes := FILTER_NOTES.get()) is not None:
            notes.append(note)
        else:
            _log.warning("%s", note)


def filter_fields(given: SearchFilter) -> Iterator[FilterField]:
    """Yield the fields of a filter, each once."""
    found: dict[tuple[str, bool], FilterField] = {}
    for field in _fields(given, can_lack=False):
        known = found.setdefault((field.name, field.is_key), field)
        found[field.name, field.is_key] = replace(
            known,
            is_negative=known.is_negative or field.is_negative,
            asked=known.asked | field.asked if known.asked and field.asked else frozenset(),
        )
    yield from found.values()


def _fields(given: Any, *, can_lack: bool) -> Iterator[FilterField]:
    """Yield the fields of a filter; with `can_lack`, a passage may match without any of them."""
    if is_qdrant_filter(given):
        for key in filter_keys(given):
            yield FilterField(key, is_negative=True, is_key=True)
    elif isinstance(given, Not):
        yield from _fields(given.condition, can_lack=True)
    elif isinstance(given, EitherOf | All):
        for part in given.conditions:
            lacks = can_lack or (isinstance(given, EitherOf) and len(given.conditions) > 1)
            yield from _fields(part, can_lack=lacks)
    elif isinstance(given, Mapping):
        for name, condition in given.items():
            yield from _of_condition(name, condition, can_lack=can_lack)


def _of_condition(name: str, given: Any, *, can_lack: bool) -> Iterator[FilterField]:
    """Yield the field of a condition, or the fields of the objects that it is about."""
    yield from _of_part(name, given, can_lack=can_lack or not needs_field(given))


def _of_part(name: str, given: Any, *, can_lack: bool) -> Iterator[FilterField]:
    if isinstance(given, Mapping):
        for inner, condition in given.items():
            yield from _of_condition(f"{name}.{inner}", condition, can_lack=can_lack)
    elif isinstance(given, Not):
        yield from _of_part(name, given.condition, can_lack=can_lack)
    elif isinstance(given, EitherOf | All):
        for part in given.conditions:
            yield from _of_part(name, part, can_lack=can_lack)
    else:
        yield FilterField(name, can_lack, frozenset(_asked_types(name, given)))


def _asked_types(field: str, condition: Any) -> Iterator[str]:
    if isinstance(condition, Range):
        bounds = (condition.gt, condition.gte, condition.lt, condition.lte)
        yield from (_type(bound) for bound in bounds if bound is not None)
    elif isinstance(condition, Text):
        yield "strings"
    elif isinstance(condition, GeoRadius):
        yield "places"
    elif not isinstance(condition, Exists):
        yield from map(_type, list_values(field, condition))


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "booleans"
    if isinstance(value, str | int | float):
        return "strings" if isinstance(value, str) else "numbers"
    if isinstance(value, Mapping) and all(_is_number(value.get(name)) for name in ("lat", "lon")):
        return "places"
    return "dates" if isinstance(value, date) else "objects"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _type_note(field: FilterField, values: Sequence[Any]) -> str | None:
    """Return the warning of a field whose values are of other types than the filter's."""
    stored = [value for value in flatten(values) if value is not None]
    found = {_type(value) for value in stored}
    dates = [value for value in stored if isinstance(value, str) and _DATE.match(value)]
    if not stored or not field.asked or field.asked & (found | ({"dates"} if dates else set())):
        return None
    hint = "; write a date as 2024-05-01" if dates and "numbers" in field.asked else ""
    if "places" in field.asked:
        hint = '; write a place as {"lat": 52.5, "lon": 13.4}'
    return (
        f"the field '{field.name}' has values such as {json.dumps(stored[0])[:80]}, and the filter "
        f"compares {' and '.join(sorted(field.asked))}{hint}"
    )


def _missing_note(field: FilterField) -> str:
    """Return the warning of a field that no passage has, with what was probably meant."""
    if field.is_key:
        return f"no passage has the payload key '{field.name}'{field.hint}"
    return f"no passage has the field '{field.name}' in meta{field.hint}"

"""Notes on filters that cannot match: fields that no passage has, and values of other types."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from typing import Any

from msmarco_qdrant.core.field_path import field_values, flatten
from msmarco_qdrant.filters import (
    Condition,
    Exists,
    Not,
    Range,
    SearchFilter,
    is_qdrant_filter,
    list_values,
)
from msmarco_qdrant.stores import AliasedCollection, Collection
from msmarco_qdrant.stores.filters import filter_keys, has_key

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
    collection: Collection | AliasedCollection, given: SearchFilter, *, has_match: bool
) -> None:
    """Warn of fields that no passage has, or whose values are of other types.

    It reads one passage for each field that can explain the answer: all of a filter without a
    match, else those whose absence is a match.

    Args:
        collection: The collection.
        given: The filter.
        has_match: True if a passage matches it.
    """
    for field in filter_fields(given):
        if has_match and not field.is_negative:
            continue
        found = collection.scan(("meta",), meta_filter=field.exists())
        payload = next((payload for _, payload in found), None)
        if (note := field.note(field.sampled(payload))) is None:
            continue
        if (notes := FILTER_NOTES.get()) is not None:
            notes.append(note)
        else:
            _log.warning("%s", note)


def filter_fields(given: SearchFilter) -> Iterator[FilterField]:
    """Yield the fields of a filter."""
    if is_qdrant_filter(given):
        for key in filter_keys(given):
            yield FilterField(key, is_negative=True, is_key=True)
    elif isinstance(given, Mapping):
        for name, condition in given.items():
            is_negative, inner = _split_not(condition)
            yield FilterField(name, is_negative, frozenset(_asked_types(name, inner)))


def _split_not(condition: Condition) -> tuple[bool, Condition]:
    """Return a condition without its `Not`, and True if it must not hold."""
    if not isinstance(condition, Not):
        return False, condition
    is_negative, inner = _split_not(condition.condition)
    return not is_negative, inner


def _asked_types(field: str, condition: Any) -> Iterator[str]:
    if isinstance(condition, Range):
        bounds = (condition.gt, condition.gte, condition.lt, condition.lte)
        yield from (_type(bound) for bound in bounds if bound is not None)
    elif not isinstance(condition, Exists):
        yield from map(_type, list_values(field, condition))


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "booleans"
    if isinstance(value, str | int | float):
        return "strings" if isinstance(value, str) else "numbers"
    return "dates" if isinstance(value, date) else "objects"


def _type_note(field: FilterField, values: Sequence[Any]) -> str | None:
    """Return the warning of a field whose values are of other types than the filter's."""
    stored = [value for value in flatten(values) if value is not None]
    found = {_type(value) for value in stored}
    dates = [value for value in stored if isinstance(value, str) and _DATE.match(value)]
    if not stored or not field.asked or field.asked & (found | ({"dates"} if dates else set())):
        return None
    hint = "; write a date as 2024-05-01" if dates and "numbers" in field.asked else ""
    return (
        f"the field '{field.name}' has values such as {json.dumps(stored[0])[:80]}, and the filter "
        f"compares {' and '.join(sorted(field.asked))}{hint}"
    )


def _missing_note(field: FilterField) -> str:
    """Return the warning of a field that no passage has, with what was probably meant."""
    if field.is_key:
        return f"no passage has the payload key '{field.name}'{field.hint}"
    return f"no passage has the field '{field.name}' in meta{field.hint}"

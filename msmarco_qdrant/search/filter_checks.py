"""Checks of filters: payload indexes that serve them, and fields that no passage has.

The steps below are without I/O, as those of `steps`.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.field_path import field_values, flatten
from msmarco_qdrant.core.limits import RequestLimits
from msmarco_qdrant.core.records import PayloadIndex
from msmarco_qdrant.core.search_types import Hit, PointQuery
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import (
    Condition,
    Exists,
    Not,
    Range,
    SearchFilter,
    is_qdrant_filter,
    list_values,
)
from msmarco_qdrant.search.step import GetPayloadIndexes, Query, Steps
from msmarco_qdrant.stores.filters import (
    filter_keys,
    first_unindexed,
    has_key,
    index_advice,
    index_refusal,
    unindexed_step,
)

if TYPE_CHECKING:
    from qdrant_client import models

_log = logging.getLogger(__name__)

FILTER_NOTES: ContextVar[list[str] | None] = ContextVar("FILTER_NOTES", default=None)
"""Collects the warnings of the filters of this task's searches, for an answer by HTTP."""

_MAX_KNOWN = 1000  # clients choose the fields of filters: bounds the memory
_MISSING_S = 60.0
_DATE = re.compile(r"\s*[0-9]{4}-[0-9]")
_NO_FIELDS = {
    "pid": "the pid of a passage is not in meta",
    "id": "the pid of a passage is not in meta",
    "_id": "the pid of a passage is not in meta",
    "title": "the title of a passage is part of its text",
    "text": "the text of a passage is not in meta: search for its words",
    "seq": "the seq of a passage is not in meta",
}


class FilterChecks:
    """Checks of the filters of one collection.

    Args:
        collection: The collection's name, for messages.
        dsn: The path or URL of the store, for messages.
        indexed: True if the engine has payload indexes, so that a filter may lack one.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        collection: str,
        dsn: str | None,
        *,
        indexed: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collection = collection
        self._dsn = dsn
        self._indexed = indexed
        self._clock = clock
        self._served: set[str] = set()
        self._logged: set[str] = set()
        self._samples: dict[str, tuple[float, Sequence[Any]]] = {}

    def check_indexes(self, chosen: models.Filter, limits: RequestLimits) -> Steps[None]:
        """Warn once of each field whose filter no payload index serves.

        Raises:
            UsageError: If the collection allows no such filter, or an index of another kind would
                compare its values wrongly.
        """
        needed = index_advice(chosen, {})
        if not self._indexed or self._served.issuperset(needed):
            return
        indexes: Mapping[str, PayloadIndex] = yield GetPayloadIndexes()
        if (refusal := index_refusal(chosen, indexes)) is not None:
            raise UsageError(refusal)
        if limits.unindexed_reads:
            for advice in index_advice(chosen, indexes):
                self._warn(advice)
        elif (missing := first_unindexed(chosen, indexes)) is not None:
            raise UsageError(
                f"the strict mode of collection '{self._collection}' allows no filter on "
                f"'{missing[0]}' without a payload index (unindexed_filtering_retrieve is "
                f"false): {unindexed_step(self._collection, *missing, self._dsn)}"
            )
        if len(self._served) < _MAX_KNOWN:
            self._served.update(needed)

    def check_fields(self, given: SearchFilter, found: Sequence[Sequence[Hit]]) -> Steps[None]:
        """Warn of fields that no passage has, or whose values are of other types.

        It asks the engine only for fields that no hit shows: those of a filter without hits, and
        those whose absence is a match.

        Args:
            given: The filter.
            found: The hits of each query.
        """
        hits = [hit for answer in found for hit in answer]
        for field in _fields(given):
            if hits and not field.is_negative:
                continue
            values = next(filter(None, (field.values(hit.meta) for hit in hits)), None)
            if values is None:
                values = yield from self._sample(field)
            note = _type_note(field, values) if values else _missing_note(field)
            if note is None:
                continue
            if (notes := FILTER_NOTES.get()) is not None:
                notes.append(note)
            self._warn(note)

    def _sample(self, field: _Field) -> Steps[Sequence[Any]]:
        """Return the values of a field in one passage that has it; empty if none has it.

        A value is kept; that there is none is kept for a minute, as the next ingest may change it.
        """
        until, values = self._samples.get(field.name, (0.0, ()))
        if not values and self._clock() >= until:
            query = PointQuery(nearest=None, limit=1, meta_filter=field.exists(), fields=("meta",))
            ((*points,),) = yield Query([query])
            values = field.values(points[0].payload.get("meta")) or [None] if points else []
            if len(self._samples) < _MAX_KNOWN:
                self._samples[field.name] = self._clock() + _MISSING_S, values
        return values

    def _warn(self, text: str) -> None:
        """Log a warning once."""
        if text not in self._logged and len(self._logged) < _MAX_KNOWN:
            self._logged.add(text)
            _log.warning("%s", text)


@dataclass(frozen=True, slots=True)
class _Field:
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


def _fields(given: SearchFilter) -> Iterator[_Field]:
    if is_qdrant_filter(given):
        for key in filter_keys(given):
            yield _Field(key, is_negative=True, is_key=True)
    elif isinstance(given, Mapping):
        for name, condition in given.items():
            is_negative, inner = _split_not(condition)
            yield _Field(name, is_negative, frozenset(_asked_types(name, inner)))


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


def _type_note(field: _Field, values: Sequence[Any]) -> str | None:
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


def _missing_note(field: _Field) -> str:
    """Return the warning of a field that no passage has, with what was probably meant."""
    name, hint = field.name, ""
    if field.is_key:
        is_meta = name.startswith("meta.")
        hint = "" if is_meta else f": the key of a field of meta is meta.{name}"
        return f"no passage has the payload key '{name}'{hint}"
    if name in _NO_FIELDS:
        hint = f": {_NO_FIELDS[name]}"
    elif name.startswith("meta."):
        hint = f": write {name.removeprefix('meta.')}"
    elif ":" in name and not field.asked:
        hint = f": for a value write {name.replace(':', '=', 1)}"
    elif '"' not in name and re.search(r"[.\[]", name):
        hint = f': if dots or brackets are part of the name, write "{name}" with quotation marks'
    return f"no passage has the field '{name}' in meta{hint}"

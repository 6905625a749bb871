"""Checks of filters: payload indexes that serve them, and fields that no passage has.

The steps below are without I/O, as those of `steps`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.collection.filter_notes import FILTER_NOTES, FilterField, filter_fields
from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.limits import RequestLimits
from msmarco_qdrant.core.search_types import Hit, PointQuery
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.search.step import CountPoints, GetPayloadIndexes, Query, Steps
from msmarco_qdrant.stores.filter_indexes import (
    first_unindexed,
    index_advice,
    index_refusal,
    refuse_unindexed_words,
    unindexed_step,
)
from msmarco_qdrant.stores.filters import combine, has_plain_values, is_fixed

if TYPE_CHECKING:
    from qdrant_client import models

_log = logging.getLogger(__name__)

_MAX_KNOWN = 1000  # clients choose the fields of filters: bounds the memory
_MISSING_S = 60.0
_FEW_POINTS = 10_000  # a scan of fewer takes some milliseconds


class FilterChecks:
    """Checks of the filters of one collection.

    Args:
        collection: The collection's name, for messages.
        dsn: The path or URL of the store, for messages.
        indexed: True if the engine has payload indexes, so that a filter may lack one.
        words_need_index: See `Capabilities`.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        collection: str,
        dsn: str | None,
        *,
        indexed: bool,
        words_need_index: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collection = collection
        self._dsn = dsn
        self._indexed = indexed
        self._words_need_index = words_need_index
        self._clock = clock
        self._served: set[str] = set()
        self._served_filters: set[models.Filter] = set()
        self._logged: set[str] = set()
        self._samples: dict[str, tuple[float, Sequence[Any]]] = {}

    def check_indexes(self, chosen: models.Filter, limits: RequestLimits) -> Steps[None]:
        """Warn once of each field whose filter no payload index serves, in a large collection.

        Raises:
            UsageError: If the collection allows no such filter, or an index of another kind would
                compare its values wrongly.
        """
        if not self._indexed or self._is_served(chosen):
            return
        indexes: Mapping[str, PayloadIndex] = yield GetPayloadIndexes()
        if (refusal := index_refusal(chosen, indexes)) is not None:
            raise UsageError(refusal)
        if self._words_need_index:
            refuse_unindexed_words(chosen, indexes, self._collection, self._dsn)
        if limits.unindexed_reads:
            advice = index_advice(chosen, indexes)
            if advice and (yield CountPoints()) >= _FEW_POINTS:
                for sentence in advice:
                    self._warn(sentence)
        elif (missing := first_unindexed(chosen, indexes)) is not None:
            raise UsageError(
                f"the strict mode of collection '{self._collection}' allows no filter on "
                f"'{missing[0]}' without a payload index (unindexed_filtering_retrieve is "
                f"false): {unindexed_step(self._collection, *missing, self._dsn)}"
            )
        if len(self._served) < _MAX_KNOWN:
            self._served.update(index_advice(chosen, {}))

    def _is_served(self, chosen: models.Filter) -> bool:
        """True if the fields of a filter were checked before."""
        if is_fixed(chosen) and chosen in self._served_filters:
            return True
        if not self._served.issuperset(index_advice(chosen, {})):
            return False
        if is_fixed(chosen) and len(self._served_filters) < _MAX_KNOWN:
            self._served_filters.add(chosen)
        return True

    def check_fields(
        self,
        given: SearchFilter,
        found: Sequence[Sequence[Hit]],
        scope: SearchFilter | None = None,
    ) -> Steps[None]:
        """Warn of fields that no passage has, or whose values are of other types.

        See `notes` for the arguments.
        """
        self.report((yield from self.notes(given, found, scope)))

    def report(self, notes: Sequence[str]) -> None:
        """Log warnings, each once, and keep them for the caller's answer."""
        for note in notes:
            if (kept := FILTER_NOTES.get()) is not None:
                kept.append(note)
            self._warn(note)

    def notes(
        self,
        given: SearchFilter,
        found: Sequence[Sequence[Hit]],
        scope: SearchFilter | None = None,
    ) -> Steps[list[str]]:
        """Return the warnings of fields that no passage has, or whose values are of other types.

        It asks the engine only for fields that no hit shows: those of a filter without hits, and
        those whose absence is a match.

        Args:
            given: The filter.
            found: The hits of each query.
            scope: The passages to read; None for all.
        """
        hits = [hit for answer in found for hit in answer]
        if hits and has_plain_values(given):
            return []
        notes = []
        for field in filter_fields(given):
            if hits and not field.is_negative:
                continue
            values = next(filter(None, (field.values(hit.meta) for hit in hits)), None)
            if values is None:
                values = yield from self._sample(field, scope)
            note = field.note(values)
            if note is not None:
                notes.append(note)
        return notes

    def _sample(self, field: FilterField, scope: SearchFilter | None) -> Steps[Sequence[Any]]:
        """Return the values of a field in one passage that has it; empty if none has it.

        A value is kept; that there is none is kept for a minute, as the next ingest may change it.
        Nothing of a tenant's passages is kept.
        """
        if scope is not None:
            chosen = combine(scope, field.exists())
            query = PointQuery(nearest=None, limit=1, meta_filter=chosen, fields=("meta",))
            ((*points,),) = yield Query([query])
            return field.sampled(points[0].payload if points else None)
        until, values = self._samples.get(field.name, (0.0, ()))
        if not values and self._clock() >= until:
            query = PointQuery(nearest=None, limit=1, meta_filter=field.exists(), fields=("meta",))
            ((*points,),) = yield Query([query])
            values = field.sampled(points[0].payload if points else None)
            if len(self._samples) < _MAX_KNOWN:
                self._samples[field.name] = self._clock() + _MISSING_S, values
        return values

    def _warn(self, text: str) -> None:
        """Log a warning once."""
        if text not in self._logged and len(self._logged) < _MAX_KNOWN:
            self._logged.add(text)
            _log.warning("%s", text)

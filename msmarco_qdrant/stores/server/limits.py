"""Limits of a collection's strict mode: reading them, and requests that keep to them.

Anybody may change them at any time. They are read with the collection, again after an error that
contradicts what was read, and again before a search refuses a caller's number.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from qdrant_client import models

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.limits import NO_LIMITS, RequestLimits, at_most, exact_refusal
from msmarco_qdrant.core.search_types import PointQuery, ScoredPoint, SearchEffort
from msmarco_qdrant.errors import SchemaError, StoreError, UsageError
from msmarco_qdrant.stores.error_mapping import is_limit_error, missing_index
from msmarco_qdrant.stores.filter_indexes import unindexed_step
from msmarco_qdrant.stores.names import base_name
from msmarco_qdrant.stores.server.shard_keys import KnownKeys, shard_key

_log = logging.getLogger(__name__)

_IDS_PER_QUERY = 1000
"""So few points are compared one by one, also by a search that is not exact."""


class StoredLimits:
    """The limits of one collection as they were last read. Thread-safe.

    Attributes:
        keys: The shard keys of the collection that are known.
    """

    def __init__(self) -> None:
        self.keys = KnownKeys()
        self._lock = threading.Lock()
        self._found: RequestLimits | None = None
        self._warned = False

    def warn_of_estimates(self, name: str) -> None:
        """Warn once that counts are estimates."""
        with self._lock:
            is_first, self._warned = not self._warned, True
        if is_first:
            _log.warning(
                "counts of collection '%s' are estimates: its strict mode forbids exact ones "
                "(search_allow_exact is false)",
                base_name(name),
            )

    @property
    def found(self) -> RequestLimits | None:
        """The limits, None before they were read."""
        return self._found

    def learn(self, info: models.CollectionInfo) -> RequestLimits:
        """Keep the limits in a collection's state."""
        replicas = info.config.params.replication_factor or 1
        found = replace(
            to_limits(info.config.strict_mode_config), replicas=replicas, shard_key=shard_key(info)
        )
        with self._lock:
            self._found = found
        return found


def to_limits(
    config: models.StrictModeConfig | models.StrictModeConfigOutput | None,
) -> RequestLimits:
    """Convert the strict mode of a collection; one that is not enabled sets no limits."""
    if config is None or not config.enabled:
        return NO_LIMITS
    return RequestLimits(
        points=config.max_query_limit,
        ef=config.search_max_hnsw_ef,
        oversampling=config.search_max_oversampling,
        exact=config.search_allow_exact is not False,
        upserted=config.upsert_max_batchsize,
        queries=config.search_max_batchsize,
        conditions=config.filter_max_conditions,
        condition_size=config.condition_max_size,
        unindexed_reads=config.unindexed_filtering_retrieve is not False,
        unindexed_writes=config.unindexed_filtering_update is not False,
    )


def fit_effort(effort: SearchEffort, limits: RequestLimits) -> SearchEffort:
    """Return an effort that the limits allow. One that is not exact uses the original vectors."""
    fitted = replace(
        effort,
        ef=at_most(effort.ef, limits.ef),
        oversampling=min(effort.oversampling, limits.oversampling or effort.oversampling),
    )
    return (
        fitted
        if limits.exact
        else replace(fitted, exact=False, quantized=effort.quantized and not effort.exact)
    )


def fit_queries(
    name: str, queries: Sequence[PointQuery], limits: RequestLimits
) -> list[tuple[int, PointQuery]]:
    """Split queries of given points into parts; each has its position in `queries`.

    Raises:
        UsageError: If the caller wants an exact search, which the limits forbid.
    """
    return [
        (position, part)
        for position, query in enumerate(queries)
        for part in _parts(name, query, limits)
    ]


def merge_answers(
    queries: Sequence[PointQuery], positions: Iterable[int], answers: Iterable[list[ScoredPoint]]
) -> list[list[ScoredPoint]]:
    """Return one answer for each query from those of its parts."""
    merged: list[list[ScoredPoint]] = [[] for _ in queries]
    for position, answer in zip(positions, answers, strict=True):
        merged[position] = [*merged[position], *answer] if merged[position] else answer
    return [
        answer
        if query.ids is None
        else sorted(answer, key=lambda point: -point.score)[: query.limit]
        for query, answer in zip(queries, merged, strict=True)
    ]


def _parts(name: str, query: PointQuery, limits: RequestLimits) -> Iterator[PointQuery]:
    if query.ids is None:
        if query.effort.exact and not limits.exact and not query.candidates:
            raise UsageError(f"{exact_refusal(base_name(name))}: omit exact=True")
        yield query
        return
    most = len(query.ids) if limits.exact else _IDS_PER_QUERY
    for ids in in_batches(query.ids, at_most(most, limits.points, limits.condition_size)):
        yield replace(query, ids=ids, limit=min(query.limit, len(ids)))


@contextmanager
def outdated_requests() -> Iterator[None]:
    """Let a search start over whose queries were made for the former limits.

    Raises:
        SchemaError: Instead of the server's refusal; a search then reads the collection again.
    """
    try:
        yield
    except StoreError as exc:
        if not is_limit_error(exc):
            raise
        raise SchemaError(str(exc)) from exc


def explain_limit(name: str, error: StoreError, dsn: str) -> StoreError | None:
    """Return the error for a filter without an index, with the next step; None for another one."""
    missing = missing_index(error)
    if missing is None:
        return None
    key, kinds = missing
    return StoreError(f"{error}; {unindexed_step(base_name(name), key, kinds, dsn)}")

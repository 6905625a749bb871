"""Limits on the requests to a collection, as a server's strict mode sets them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits on the requests to one collection; None for no limit.

    Attributes:
        points: Points that one query or page may return (`max_query_limit`).
        ef: Candidates in the graph (`search_max_hnsw_ef`).
        oversampling: Factor of the limit to rescore (`search_max_oversampling`).
        exact: True if exact searches and counts are allowed (`search_allow_exact`).
        upserted: Points that one write may have (`upsert_max_batchsize`).
        queries: Queries of one request (`search_max_batchsize`).
        conditions: Conditions of one filter (`filter_max_conditions`).
        condition_size: Values of one condition (`condition_max_size`).
        unindexed_reads: True if a search may filter by a field without an index
            (`unindexed_filtering_retrieve`).
        unindexed_writes: The same for writes (`unindexed_filtering_update`).
        replicas: Replicas that each shard should have; no limit, but read with them.
        shard_key: The `meta` field whose value chooses the shards of a passage, None if its id
            does; no limit, but read with them.
    """

    points: int | None = None
    ef: int | None = None
    oversampling: float | None = None
    exact: bool = True
    upserted: int | None = None
    queries: int | None = None
    conditions: int | None = None
    condition_size: int | None = None
    unindexed_reads: bool = True
    unindexed_writes: bool = True
    replicas: int = 1
    shard_key: str | None = None


NO_LIMITS = RequestLimits()


def exact_refusal(collection: str) -> str:
    """Describe, for messages, that a collection's limits forbid exact searches."""
    return (
        f"the strict mode of collection '{collection}' forbids exact search "
        "(search_allow_exact is false)"
    )


def at_most(wanted: int, *limits: int | None) -> int:
    """Return the least of a number and the limits that exist, but at least 1."""
    return max(1, min([wanted, *(limit for limit in limits if limit is not None)]))

"""Comparison of approximate search with exact search over the same collection."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median, quantiles

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import CollectionInfo, PointId
from msmarco_qdrant.core.limits import exact_refusal
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_types import Nearest, PointQuery, SearchEffort
from msmarco_qdrant.encoding.checks import encode_queries
from msmarco_qdrant.errors import UnsupportedError, UsageError
from msmarco_qdrant.evaluation.records import AnnPoint, AnnSweep
from msmarco_qdrant.evaluation.scoring import check_qids
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import AliasedCollection, Collection

EFS = (16, 32, 64, 128, 256, 512)
_WARMUP_QUERIES = 32
_BATCH_QUERIES = 64
_QUANTIZED: Mapping[str, SearchEffort] = {
    "not rescored": SearchEffort(rescore=False),
    "rescored": SearchEffort(oversampling=1.0),
    "rescored, oversampling 2": SearchEffort(oversampling=2.0),
    "rescored, oversampling 4": SearchEffort(oversampling=4.0),
}

_log = logging.getLogger(__name__)


@suggest_keywords
def sweep_ann(
    client: SearchClient,
    queries: Sequence[Query],
    *,
    k: int = 10,
    efs: Sequence[int] = EFS,
    on_setting: Callable[[str, int], None] | None = None,
) -> AnnSweep:
    """Measure recall and time of approximate search for each `ef` and rescoring.

    Args:
        client: A client on the collection.
        queries: Each is searched alone, after some warm-up queries. The time is the engine's, from
            a vector to ids without payload.
        k: Number of the exact search's hits that count for recall.
        efs: Numbers of candidates in the graph. One less than `k` counts as `k`.
        on_setting: Called with each setting and `ef` before it is measured.

    Raises:
        UsageError: Without queries or `efs`, for a repeated qid, or for a `k` or `ef` less than 1.
        UnsupportedError: If the engine always searches exactly.
        StoreError: If the engine fails.
    """
    check_sweep(client, queries, k=k, efs=efs)
    efs = _fit_efs(client, efs)
    collection = client.store.collection(client.collection)
    info = collection.info()
    _warn_without_graph(client, info)
    point_queries = _point_queries(client, queries, k)
    exact_ms, exact = _time_queries(collection, point_queries, SearchEffort(exact=True))
    kind = info.spec.storage.quantization
    settings = {f"{kind}, {name}": effort for name, effort in _QUANTIZED.items() if kind != "none"}
    settings["float32"] = SearchEffort(quantized=False)
    points = []
    for setting, effort in settings.items():
        for ef in efs:
            if on_setting is not None:
                on_setting(setting, ef)
            points.append(
                _measure_point(
                    collection, point_queries, exact, queries, setting, replace(effort, ef=ef)
                )
            )
    return AnnSweep(k, len(queries), median(exact_ms), tuple(points))


def check_sweep(
    client: SearchClient, queries: Sequence[Query], *, k: int = 10, efs: Sequence[int] = EFS
) -> None:
    """Refuse invalid input of `sweep_ann`, before the first search."""
    if not queries:
        raise UsageError("a sweep needs one query or more, got none")
    check_qids(queries)
    if not efs:
        raise UsageError("efs must be one number or more, such as (16, 64, 256), got none")
    if min(k, *efs) < 1:
        raise UsageError(f"k and each ef must be 1 or more, got k={k} and ef={min(efs)}")
    if not client.store.capabilities.ann:
        raise UnsupportedError(
            f"{client.store.dsn} always searches exactly: it has no graph to compare with"
        )


def _fit_efs(client: SearchClient, efs: Sequence[int]) -> Sequence[int]:
    """Return the numbers that the collection's limits allow.

    Raises:
        UsageError: If one of the caller's own exceeds them, or exact search is not allowed.
    """
    name = client.collection
    AliasedCollection(client.store, name).spec()  # it also reads the limits: they may have changed
    limits = client.store.request_limits(name)
    if not limits.exact:
        raise UsageError(f"{exact_refusal(name)}, and a sweep compares with it")
    if limits.ef is None or max(efs) <= limits.ef:
        return efs
    if efs is not EFS:
        raise UsageError(
            f"each ef must be at most {limits.ef} by the strict mode of collection '{name}' "
            f"(search_max_hnsw_ef), got {max(efs)}"
        )
    _log.warning("measured up to ef=%d, the limit of the strict mode of '%s'", limits.ef, name)
    return [ef for ef in efs if ef <= limits.ef] or [limits.ef]


def _warn_without_graph(client: SearchClient, info: CollectionInfo) -> None:
    """Warn if the graph is missing or old, so that the search is exact, or nearly.

    On Edge the count of indexed vectors includes those replaced after the graph was built: then it
    exceeds two per point.
    """
    optimize = advised_command("optimize", collection=client.collection, store=client.store.dsn)
    if info.indexed > 2 * info.points:
        _log.warning(
            "the index of '%s' is older than many of its %s vectors, and a search compares with "
            "each vector that it lacks: run %s first",
            *(client.collection, f"{info.points:,}", optimize),
        )
    elif not info.in_graph:
        _log.warning(
            "'%s' has no index, so every search compares with each of its %s vectors: run %s first "
            "(a small collection needs no index)",
            *(client.collection, f"{info.points:,}", optimize),
        )


def _point_queries(client: SearchClient, queries: Sequence[Query], k: int) -> list[PointQuery]:
    using = client.metadata.encoder.vector_name
    return [
        PointQuery(Nearest(vector, using), limit=k, fields=())
        for batch in in_batches(queries, _BATCH_QUERIES)
        for vector in encode_queries(client.encoder, [query.text for query in batch])
    ]


def _measure_point(
    collection: Collection,
    point_queries: Sequence[PointQuery],
    exact: Sequence[set[PointId]],
    queries: Sequence[Query],
    setting: str,
    effort: SearchEffort,
) -> AnnPoint:
    times, found = _time_queries(collection, point_queries, effort)
    recalls = [
        len(ids & expected) / len(expected) if expected else 1.0
        for ids, expected in zip(found, exact, strict=True)
    ]
    worst = min(range(len(recalls)), key=recalls.__getitem__)
    return AnnPoint(
        setting=setting,
        ef=effort.ef,
        recall=fmean(recalls),
        worst=recalls[worst],
        worst_qid=queries[worst].qid,
        median_ms=median(times),
        p95_ms=quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else times[0],
    )


def _time_queries(
    collection: Collection, point_queries: Sequence[PointQuery], effort: SearchEffort
) -> tuple[list[float], list[set[PointId]]]:
    """Return the milliseconds of each query, searched alone, and the ids it finds."""
    times, found = [], []
    for query in (*point_queries[:_WARMUP_QUERIES], *point_queries):
        single = [replace(query, effort=effort)]
        start = time.perf_counter()
        (points,) = collection.query(single)
        times.append((time.perf_counter() - start) * 1000)
        found.append({point.id for point in points})
    return times[-len(point_queries) :], found[-len(point_queries) :]

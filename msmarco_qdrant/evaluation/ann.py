"""Approximate search against exact search over the same collection."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median, quantiles
from typing import TypeAlias

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import CollectionInfo, PointId, Quantization, Query
from msmarco_qdrant.core.search_types import Nearest, PointQuery, SearchEffort
from msmarco_qdrant.errors import UnsupportedError, UsageError
from msmarco_qdrant.evaluation.records import AnnPoint, AnnSweep
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Collection

EFS = (16, 32, 64, 128, 256, 512)
_WARMING = 32
_QUERIES_AT_ONCE = 64
_QUANTIZED: Mapping[str, SearchEffort] = {
    "not rescored": SearchEffort(rescore=False),
    "rescored": SearchEffort(oversampling=1.0),
    "rescored, oversampling 2": SearchEffort(oversampling=2.0),
    "rescored, oversampling 4": SearchEffort(oversampling=4.0),
}
_UNQUANTIZED: Mapping[str, SearchEffort] = {"float32": SearchEffort(quantized=False)}

OnSetting: TypeAlias = Callable[[str, int], None]

_log = logging.getLogger(__name__)


def sweep_ann(
    client: SearchClient,
    queries: Sequence[Query],
    *,
    k: int = 10,
    efs: Sequence[int] = EFS,
    on_setting: OnSetting | None = None,
) -> AnnSweep:
    """Measure recall and time of approximate search for each `ef` and way of rescoring.

    Args:
        client: What to search in.
        queries: Each is asked alone, after some that do not count; the time is the engine's, from
            a ready vector to ids without payload.
        k: How many of the exact search's hits are to be found.
        efs: Candidates considered in the graph, one or more numbers. One under `k` counts as `k`.
        on_setting: Called with each setting's name and `ef` before it is measured.

    Raises:
        UsageError: Without queries or `efs`, or for a `k` or `ef` under 1.
        UnsupportedError: If the engine always searches exactly.
        StoreError: If the engine fails.
    """
    check_sweep(client, queries, k=k, efs=efs)
    collection = client.store.collection(client.collection)
    info = collection.info()
    _warn_without_graph(client.collection, info)
    asked = _asked(client, queries, k)
    exact_ms, exact = _timed(collection, asked, SearchEffort(exact=True))
    settings = {**_quantized(info.spec.storage.quantization), **_UNQUANTIZED}
    points = []
    for setting, effort in settings.items():
        for ef in efs:
            if on_setting is not None:
                on_setting(setting, ef)
            points.append(
                _point(collection, asked, exact, queries, setting, replace(effort, ef=ef))
            )
    return AnnSweep(k, len(queries), median(exact_ms), tuple(points))


def _quantized(kind: Quantization) -> Mapping[str, SearchEffort]:
    """The ways of searching in a quantized copy, each by the copy's kind; none if there is none."""
    return {} if kind == "none" else {f"{kind}, {how}": one for how, one in _QUANTIZED.items()}


def check_sweep(
    client: SearchClient, queries: Sequence[Query], *, k: int = 10, efs: Sequence[int] = EFS
) -> None:
    """Refuse what `sweep_ann` would, before anything is asked.

    Raises:
        UsageError: See `sweep_ann`.
        UnsupportedError: See `sweep_ann`.
    """
    if not queries:
        raise UsageError("no query was given: there is nothing to compare")
    if not efs:
        raise UsageError("no ef was given: expected some, such as 16, 64 and 256")
    if min(k, *efs) < 1:
        raise UsageError(f"k={k} and ef={min(efs)}: expected 1 or more")
    if not client.store.capabilities.ann:
        raise UnsupportedError(
            f"{client.store.dsn} always searches exactly: there is no graph to compare with"
        )


def _warn_without_graph(name: str, info: CollectionInfo) -> None:
    """Say so where approximate search has no graph to follow, and is exact, or nearly.

    Sparse vectors are indexed as they are written and are counted with the dense ones; so are, on
    Edge, those that were replaced since the graph was built: then there are more than two a point.
    """
    if info.indexed > 2 * info.points:
        _log.warning(
            "the index of '%s' is older than many of its %s vectors, and a search compares with "
            "each of those that it lacks: run `msmarco-qdrant optimize` first",
            name,
            f"{info.points:,}",
        )
    elif info.indexed <= info.points:
        _log.warning(
            "'%s' has no index, so every search of it compares with each of its %s vectors: run "
            "`msmarco-qdrant optimize` first (a small collection gets none)",
            name,
            f"{info.points:,}",
        )


def _asked(client: SearchClient, queries: Sequence[Query], k: int) -> list[PointQuery]:
    using = client.metadata.encoder.vector_name
    return [
        PointQuery(Nearest(vector, using), limit=k, fields=())
        for batch in in_batches(queries, _QUERIES_AT_ONCE)
        for vector in client.encoder.encode_queries([query.text for query in batch])
    ]


def _point(  # one argument for each thing that is compared
    collection: Collection,
    asked: Sequence[PointQuery],
    exact: Sequence[set[PointId]],
    queries: Sequence[Query],
    setting: str,
    effort: SearchEffort,
) -> AnnPoint:
    times, found = _timed(collection, asked, effort)
    recalls = [
        len(there & wanted) / len(wanted) if wanted else 1.0
        for there, wanted in zip(found, exact, strict=True)
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


def _timed(
    collection: Collection, asked: Sequence[PointQuery], effort: SearchEffort
) -> tuple[list[float], list[set[PointId]]]:
    """The milliseconds that each query takes alone, and what it finds."""
    for _ in _answered(collection, asked[:_WARMING], effort):
        pass
    told = list(_answered(collection, asked, effort))
    return [milliseconds for milliseconds, _ in told], [found for _, found in told]


def _answered(
    collection: Collection, asked: Sequence[PointQuery], effort: SearchEffort
) -> Iterator[tuple[float, set[PointId]]]:
    for query in asked:
        one = [replace(query, effort=effort)]
        start = time.perf_counter()
        (points,) = collection.query(one)
        yield (time.perf_counter() - start) * 1000, {point.id for point in points}

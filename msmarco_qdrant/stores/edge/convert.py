"""Conversion of specs, points and queries to Qdrant Edge's types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

import qdrant_edge

from msmarco_qdrant.core.collection_types import (
    CollectionSpec,
    HnswSettings,
    PayloadIndex,
    PointBatch,
    Quantization,
    SettingsChange,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.core.encoder_types import Similarity
from msmarco_qdrant.core.search_types import PointOrder, PointQuery, SearchEffort
from msmarco_qdrant.stores.convert import apply_change, final_effort, only_given, search_params
from msmarco_qdrant.stores.edge.filters import edge_filter
from msmarco_qdrant.stores.filters import to_qdrant
from msmarco_qdrant.stores.payload import SPARSE_VECTOR

if TYPE_CHECKING:
    from qdrant_edge import PayloadIndexInfo  # only in its stubs

# Edge's default: with fewer kilobytes of vectors, a filtered search scans.
_FULL_SCAN_THRESHOLD_KB = 10_000


def shard_config(
    spec: CollectionSpec, optimizers: Mapping[str, Any] | None = None
) -> qdrant_edge.EdgeConfig:
    """Return the engine's configuration of a physical collection.

    Args:
        spec: The spec of the collection.
        optimizers: The optimizer settings that differ from the engine's defaults.
    """
    dense = qdrant_edge.EdgeVectorParams(
        size=spec.dimension,
        distance=getattr(qdrant_edge.Distance, spec.similarity.capitalize()),
        memory=qdrant_edge.Memory.Cold if spec.storage.on_disk else qdrant_edge.Memory.Cached,
        quantization_config=_quantization(spec.storage),
    )
    return qdrant_edge.EdgeConfig(
        vectors={spec.dense: dense},
        sparse_vectors={
            spec.sparse: qdrant_edge.EdgeSparseVectorParams(modifier=qdrant_edge.Modifier.Idf)
        },
        hnsw_config=qdrant_edge.HnswIndexConfig(
            m=spec.hnsw.m,
            ef_construct=spec.hnsw.ef_construct,
            full_scan_threshold=_FULL_SCAN_THRESHOLD_KB,
        ),
        optimizers=qdrant_edge.EdgeOptimizersConfig(**optimizers) if optimizers else None,
    )


def change_config(config: Mapping[str, Any], change: SettingsChange) -> qdrant_edge.EdgeConfig:
    """Return a shard's configuration with other settings.

    Args:
        config: The content of `edge_config.json`.
        change: The settings to change.
    """
    spec = apply_change(spec_of(config, {}), change)
    thresholds = {
        "indexing_threshold": change.indexing_threshold_kb,
        "max_segment_size": change.max_segment_size_kb,
    }
    return shard_config(spec, {**(config.get("optimizers") or {}), **only_given(thresholds)})


def spec_of(config: Mapping[str, Any], indexes: Mapping[str, PayloadIndex]) -> CollectionSpec:
    """Return the spec of a shard.

    Args:
        config: The content of `edge_config.json`.
        indexes: The payload fields that are indexed.
    """
    (dense, vector), (sparse,) = next(iter(config["vectors"].items())), config["sparse_vectors"]
    hnsw = config["hnsw_config"]
    similarities: dict[str, Similarity] = {"Cosine": "cosine", "Dot": "dot"}
    return CollectionSpec(
        dense=dense,
        dimension=vector["size"],
        similarity=similarities[vector["distance"]],
        sparse=sparse,
        hnsw=HnswSettings(hnsw["m"], hnsw["ef_construct"]),
        payload_indexes=indexes,
        storage=StorageSettings(
            on_disk=vector.get("memory") == "cold",
            quantization=_quantized(vector.get("quantization_config")),
        ),
    )


def _quantization(
    storage: StorageSettings,
) -> qdrant_edge.ScalarQuantizationConfig | qdrant_edge.TurboQuantQuantizationConfig | None:
    if storage.quantization == "none":
        return None
    pinned = qdrant_edge.Memory.Pinned  # on disk, searches would be slow
    if storage.quantization == "turbo4":
        bits = qdrant_edge.TurboQuantBitSize.Bits4
        return qdrant_edge.TurboQuantQuantizationConfig(bits=bits, memory=pinned)
    return qdrant_edge.ScalarQuantizationConfig(qdrant_edge.ScalarType.Int8, memory=pinned)


def _quantized(config: Mapping[str, Any] | None) -> Quantization:
    if not config:
        return "none"
    return "turbo4" if "turbo" in config else "int8"


def payload_index(index: PayloadIndexInfo) -> PayloadIndex:
    """Return the kind of a payload index."""
    if isinstance(index.params, qdrant_edge.KeywordIndexParams) and index.params.is_tenant:
        return "tenant"
    return next(kind for kind in get_args(PayloadIndex) if payload_schema(kind) == index.data_type)


def payload_schema(
    kind: PayloadIndex,
) -> qdrant_edge.PayloadSchemaType | qdrant_edge.KeywordIndexParams:
    """Return the engine's schema for a kind of payload index."""
    if kind == "tenant":
        return qdrant_edge.KeywordIndexParams(is_tenant=True)
    schema: qdrant_edge.PayloadSchemaType = getattr(
        qdrant_edge.PayloadSchemaType, kind.capitalize()
    )
    return schema


def query_request(
    query: PointQuery,
    stored: Sequence[float] | None = None,
    among: Sequence[Any] | None = None,
) -> qdrant_edge.QueryRequest:
    """Convert a query.

    Args:
        query: The query.
        among: The ids of the only points to consider, all of which it could find; None for all.
        stored: The vector of the point that it searches for; the answer has not this point.
    """
    nearest, effort, chosen, scoring = query.nearest, query.effort, None, None
    if among is not None:
        chosen = qdrant_edge.Filter(must=[qdrant_edge.HasIdCondition({*among})])
    elif query.ids is not None or query.meta_filter is not None:
        chosen = _chosen(query)
    prefetches: list[qdrant_edge.Prefetch] = []
    if query.candidates:
        prefetches, effort = _prefetches(query, chosen), final_effort(query)
    if nearest is not None:
        vector: Any = nearest.vector if stored is None else stored
        if stored is not None:
            chosen = _without(nearest.vector, chosen)
        scoring = _scoring(vector, nearest.using, query)
    return qdrant_edge.QueryRequest(
        limit=query.limit,
        offset=query.offset or None,
        query=scoring,
        prefetches=prefetches,
        with_payload=payload_selector(query.fields),
        with_vector=None if query.vector is None else [query.vector],
        filter=chosen,
        score_threshold=query.score_threshold,
        params=_params(effort),
    )


def _chosen(query: PointQuery) -> qdrant_edge.Filter | None:
    """Return the ids and the conditions of a query as one filter; see `point_filter`."""
    given = None if query.meta_filter is None else edge_filter(to_qdrant(query.meta_filter))
    if query.ids is None and not query.candidates:
        return given
    must: list[Any] = [] if query.ids is None else [qdrant_edge.HasIdCondition({*query.ids})]
    return qdrant_edge.Filter(must=must if given is None else [*must, given])


def _prefetches(query: PointQuery, chosen: qdrant_edge.Filter | None) -> list[qdrant_edge.Prefetch]:
    params = _params(query.effort)
    return [
        qdrant_edge.Prefetch(
            limit=query.depth,
            query=qdrant_edge.Query.Nearest(_to_edge(one.vector), using=one.using),
            filter=chosen,
            params=params,
        )
        for one in query.candidates
    ]


def _without(point: Any, chosen: qdrant_edge.Filter | None) -> qdrant_edge.Filter:
    """Return a filter that also leaves out a point."""
    others: list[Any] = [qdrant_edge.HasIdCondition({point})]
    return qdrant_edge.Filter(must=None if chosen is None else [chosen], must_not=others)


def to_order_by(order: PointOrder) -> qdrant_edge.OrderBy:
    """Convert an order."""
    ways = qdrant_edge.Direction
    direction = ways.Desc if order.is_descending else ways.Asc
    start = order.start.isoformat() if isinstance(order.start, datetime) else order.start
    return qdrant_edge.OrderBy(order.key, direction, start)


def to_points(batch: PointBatch) -> list[qdrant_edge.Point]:
    """Convert a batch for Edge."""
    return [
        qdrant_edge.Point(
            id=point,
            vector={
                batch.using: vector,
                SPARSE_VECTOR: qdrant_edge.SparseVector(sparse.indices, sparse.values),
            },
            payload=payload,
        )
        for point, vector, sparse, payload in zip(
            batch.ids, batch.dense, batch.sparse, batch.payloads, strict=True
        )
    ]


def payload_selector(fields: Sequence[str]) -> list[str] | bool:
    """Return the engine's choice of payload fields; by an empty list it reads them, for nothing."""
    return [*fields] if fields else False


@lru_cache(maxsize=64)
def _params(effort: SearchEffort) -> qdrant_edge.SearchParams:
    params: qdrant_edge.SearchParams = search_params(qdrant_edge, effort)
    return params


def _scoring(vector: Any, using: str, query: PointQuery) -> qdrant_edge.Query | qdrant_edge.Mmr:
    numbers = _to_edge(vector)
    if query.diversity is None:
        return qdrant_edge.Query.Nearest(numbers, using=using)
    return qdrant_edge.Mmr(numbers, 1 - query.diversity, query.depth, using=using)


def _to_edge(vector: Any) -> Any:
    """Convert a vector: Edge takes twice as long to read a NumPy row as a list."""
    if isinstance(vector, SparseVector):
        return qdrant_edge.SparseVector(vector.indices, vector.values)
    return vector if isinstance(vector, list) else vector.tolist()

"""Conversion of specs and queries to Qdrant Edge's types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

import qdrant_edge

from msmarco_qdrant.core.collection_types import (
    CollectionSpec,
    HnswSettings,
    PayloadIndex,
    PointId,
    Quantization,
    SettingsChange,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.core.encoder_types import Similarity
from msmarco_qdrant.core.search_types import Nearest, PointQuery, SearchEffort
from msmarco_qdrant.stores.convert import apply_change, final_effort, only_given, search_params
from msmarco_qdrant.stores.edge.filters import edge_filter
from msmarco_qdrant.stores.filters import point_filter

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


def query_request(query: PointQuery, *, without: PointId | None = None) -> qdrant_edge.QueryRequest:
    """Convert a query, whose answer has not the point `without`."""
    chosen = edge_filter(given) if (given := point_filter(query)) is not None else None
    if without is not None:
        others: list[Any] = [qdrant_edge.HasIdCondition({without})]
        chosen = qdrant_edge.Filter(must=None if chosen is None else [chosen], must_not=others)
    return qdrant_edge.QueryRequest(
        limit=query.limit,
        offset=query.offset or None,
        query=_scoring(query),
        prefetches=[
            qdrant_edge.Prefetch(
                limit=query.depth,
                query=_nearest(candidate),
                filter=chosen,
                params=_params(query.effort),
            )
            for candidate in query.candidates
        ],
        with_payload=payload_selector(query.fields),
        with_vector=None if query.vector is None else [query.vector],
        filter=chosen,
        score_threshold=query.score_threshold,
        params=_params(final_effort(query)),
    )


def payload_selector(fields: Sequence[str]) -> list[str] | bool:
    """Return the engine's choice of payload fields; by an empty list it reads them, for nothing."""
    return [*fields] if fields else False


@lru_cache(maxsize=64)
def _params(effort: SearchEffort) -> qdrant_edge.SearchParams:
    params: qdrant_edge.SearchParams = search_params(qdrant_edge, effort)
    return params


def _scoring(query: PointQuery) -> qdrant_edge.Query | qdrant_edge.Mmr | None:
    nearest = query.nearest
    if nearest is None:
        return None
    if query.diversity is None:
        return _nearest(nearest)
    vector: Any = nearest.vector
    return qdrant_edge.Mmr(vector.tolist(), 1 - query.diversity, query.depth, using=nearest.using)


def _nearest(nearest: Nearest) -> qdrant_edge.Query:
    vector: Any = nearest.vector
    if isinstance(vector, SparseVector):
        vector = qdrant_edge.SparseVector(vector.indices, vector.values)
    else:
        vector = vector.tolist()  # Edge takes twice as long to read a NumPy row
    return qdrant_edge.Query.Nearest(vector, using=nearest.using)

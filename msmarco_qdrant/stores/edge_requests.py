"""Our plans and queries in the words of Qdrant Edge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.records import (
    CollectionSpec,
    DenseQuery,
    HnswSettings,
    MetaFilter,
    PayloadIndex,
    Scalar,
    Similarity,
    StorageSettings,
)
from msmarco_qdrant.stores.json_path import json_path
from msmarco_qdrant.stores.points import HIT_FIELDS, OVERSAMPLING

if TYPE_CHECKING:
    import qdrant_edge

# Edge's own default: below so many kilobytes of vectors a filtered search scans.
_FULL_SCAN_THRESHOLD_KB = 10_000


def shard_config(spec: CollectionSpec) -> qdrant_edge.EdgeConfig:
    """The engine's configuration of a physical collection."""
    import qdrant_edge

    dense = qdrant_edge.EdgeVectorParams(
        size=spec.dimension,
        distance=_distance(spec.similarity),
        memory=qdrant_edge.Memory.Cold if spec.storage.on_disk else qdrant_edge.Memory.Cached,
        quantization_config=_quantisation(spec.storage),
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
    )


def spec_of(config: Mapping[str, Any], indexes: Mapping[str, PayloadIndex]) -> CollectionSpec:
    """What a shard was made of.

    Args:
        config: What Edge 0.9 keeps in `edge_config.json`; it has no call that tells it.
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
            quantisation="int8" if vector.get("quantization_config") else "none",
        ),
    )


def _quantisation(storage: StorageSettings) -> qdrant_edge.ScalarQuantizationConfig | None:
    import qdrant_edge

    if storage.quantisation == "none":
        return None
    # In memory, or the vectors on disk would be slow to search in.
    return qdrant_edge.ScalarQuantizationConfig(
        qdrant_edge.ScalarType.Int8, memory=qdrant_edge.Memory.Pinned
    )


def _distance(similarity: Similarity) -> qdrant_edge.Distance:
    import qdrant_edge

    return {"cosine": qdrant_edge.Distance.Cosine, "dot": qdrant_edge.Distance.Dot}[similarity]


def payload_index(schema: qdrant_edge.PayloadSchemaType) -> PayloadIndex:
    """Our name for a kind of payload index."""
    kinds: tuple[PayloadIndex, ...] = ("keyword", "integer", "float", "bool", "datetime")
    return next(kind for kind in kinds if payload_schema(kind) == schema)


def payload_schema(kind: PayloadIndex) -> qdrant_edge.PayloadSchemaType:
    """The engine's name for a kind of payload index."""
    from qdrant_edge import PayloadSchemaType

    return {
        "keyword": PayloadSchemaType.Keyword,
        "integer": PayloadSchemaType.Integer,
        "float": PayloadSchemaType.Float,
        "bool": PayloadSchemaType.Bool,
        "datetime": PayloadSchemaType.Datetime,
    }[kind]


def query_request(query: DenseQuery) -> qdrant_edge.QueryRequest:
    """A nearest-neighbour query as the engine takes it."""
    import qdrant_edge

    return qdrant_edge.QueryRequest(
        limit=query.limit,
        query=qdrant_edge.Query.Nearest(query.vector, using=query.using),  # type: ignore[arg-type]  # NumPy rows are accepted
        with_payload=list(HIT_FIELDS),
        filter=_edge_filter(query.meta_filter) if query.meta_filter else None,
        params=qdrant_edge.SearchParams(
            hnsw_ef=query.ef,
            exact=query.exact,
            quantization=qdrant_edge.QuantizationSearchParams(
                ignore=query.exact, rescore=True, oversampling=OVERSAMPLING
            ),
        ),
    )


def _edge_filter(meta_filter: MetaFilter) -> qdrant_edge.Filter:
    """All fields, each with any one of its values."""
    import qdrant_edge

    conditions: list[qdrant_edge.Filter] = []
    for field, given in meta_filter.items():
        key = f"meta.{json_path(field)}"
        values = [given] if isinstance(given, str | int | float) else given
        conditions.append(qdrant_edge.Filter(should=[_condition(key, value) for value in values]))
    return qdrant_edge.Filter(must=[*conditions])


def _condition(key: str, value: Scalar) -> qdrant_edge.FieldCondition:
    import numpy as np
    import qdrant_edge

    if isinstance(value, float):  # Qdrant matches strings, integers and booleans by equality only
        return qdrant_edge.FieldCondition(
            key=key, range=qdrant_edge.RangeFloat(gte=value, lte=value)
        )
    # Edge 0.9 takes Python's True for the integer 1, but NumPy's for a boolean.
    match: Any = np.bool_(value) if isinstance(value, bool) else value
    return qdrant_edge.FieldCondition(key=key, match=qdrant_edge.MatchValue(match))

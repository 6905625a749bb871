"""Our plans and queries in the words of Qdrant Edge."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.records import (
    CollectionSpec,
    DenseQuery,
    MetaFilter,
    PayloadIndex,
    Scalar,
    Similarity,
)
from msmarco_qdrant.stores.points import HIT_FIELDS

if TYPE_CHECKING:
    import qdrant_edge

# Edge's own default: below so many kilobytes of vectors a filtered search scans.
_FULL_SCAN_THRESHOLD_KB = 10_000
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+(\[[0-9]*\])*", re.ASCII)


def shard_config(spec: CollectionSpec) -> qdrant_edge.EdgeConfig:
    """The engine's configuration of a physical collection."""
    import qdrant_edge

    dense = qdrant_edge.EdgeVectorParams(size=spec.dimension, distance=_distance(spec.similarity))
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


def _distance(similarity: Similarity) -> qdrant_edge.Distance:
    import qdrant_edge

    return {"cosine": qdrant_edge.Distance.Cosine, "dot": qdrant_edge.Distance.Dot}[similarity]


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
        params=qdrant_edge.SearchParams(hnsw_ef=query.ef, exact=query.exact),
    )


def _edge_filter(meta_filter: MetaFilter) -> qdrant_edge.Filter:
    """All fields, each with any one of its values."""
    import qdrant_edge

    conditions: list[qdrant_edge.Filter] = []
    for field, given in meta_filter.items():
        key = f"meta.{_path(field)}"
        values = [given] if isinstance(given, str | int | float) else given
        conditions.append(qdrant_edge.Filter(should=[_condition(key, value) for value in values]))
    return qdrant_edge.Filter(must=[*conditions])


def _path(field: str) -> str:
    """A field as a JSON path: dots nest, and a name that is no plain word is quoted."""
    parts = field.split(".")
    return ".".join(part if _PLAIN_NAME.fullmatch(part) else f'"{part}"' for part in parts)


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

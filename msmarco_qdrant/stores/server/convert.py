"""Conversion of specs, queries and points to qdrant-client's models, and of its answers back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from qdrant_client import models

from msmarco_qdrant.core.collection_types import (
    CollectionSpec,
    HnswSettings,
    IndexState,
    PayloadIndex,
    PointBatch,
    PointId,
    Quantization,
    SettingsChange,
    ShardSettings,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.core.encoder_types import Similarity
from msmarco_qdrant.core.limits import NO_LIMITS, RequestLimits
from msmarco_qdrant.core.metadata_types import BulkHolder
from msmarco_qdrant.core.search_types import Nearest, PointQuery
from msmarco_qdrant.stores.convert import final_effort, search_params
from msmarco_qdrant.stores.filters import from_id, point_filter
from msmarco_qdrant.stores.payload import LEAST_SEQ, SPARSE_VECTOR, seq_bound
from msmarco_qdrant.stores.server.limits import fit_effort
from msmarco_qdrant.stores.server.shard_keys import SHARD_KEY, KnownKeys, shard_key, wanted_values

METADATA_KEY = "msmarco_qdrant"
"""The key of this package's metadata among those of a collection."""

_BULK_KEY = "msmarco_qdrant_bulk_"
"""The start of the key of each ingest in bulk mode: a server changes each key by itself."""

STATES: Mapping[str, IndexState] = {
    "green": "ready",
    "yellow": "building",
    "grey": "paused",
    "red": "failed",
}
_SIMILARITIES: Mapping[str, Similarity] = {"Cosine": "cosine", "Dot": "dot"}


def create_arguments(spec: CollectionSpec) -> dict[str, Any]:
    """Return the arguments of `create_collection` for a spec, without the name."""
    dense = models.VectorParams(
        size=spec.dimension,
        distance={"cosine": models.Distance.COSINE, "dot": models.Distance.DOT}[spec.similarity],
        on_disk=spec.storage.on_disk,
        hnsw_config=models.HnswConfigDiff(m=spec.hnsw.m, ef_construct=spec.hnsw.ef_construct),
        quantization_config=_quantization(spec.storage.quantization),
    )
    sharding = spec.sharding or ShardSettings()
    by_key = {
        "sharding_method": models.ShardingMethod.CUSTOM,
        "metadata": {SHARD_KEY: sharding.shard_key},
    }
    return {
        "vectors_config": {spec.dense: dense},
        "sparse_vectors_config": {
            spec.sparse: models.SparseVectorParams(modifier=models.Modifier.IDF)
        },
        "shard_number": sharding.shards,
        "replication_factor": sharding.replication,
        "write_consistency_factor": sharding.write_consistency,
        **({} if sharding.shard_key is None else by_key),
    }


def update_arguments(dense: str, change: SettingsChange) -> dict[str, Any]:
    """Return the arguments of `update_collection` for a change, without the name.

    Args:
        dense: The name of the dense vector.
        change: The settings to change.
    """
    wanted = change.quantization
    diff = models.VectorParamsDiff(
        hnsw_config=models.HnswConfigDiff(m=change.m, ef_construct=change.ef_construct),
        quantization_config=wanted and (_quantization(wanted) or models.Disabled.DISABLED),
        on_disk=change.on_disk,
    )
    optimizers = models.OptimizersConfigDiff(
        indexing_threshold=change.indexing_threshold_kb,
        max_segment_size=change.max_segment_size_kb,
    )
    return {"vectors_config": {dense: diff}, "optimizers_config": optimizers}


def to_spec(info: models.CollectionInfo) -> CollectionSpec:
    """Convert the server's answer to the spec of a collection.

    Raises:
        ValueError: If it does not have one named dense and one sparse vector.
    """
    params = info.config.params
    vectors, sparse = params.vectors, params.sparse_vectors or {}
    if not isinstance(vectors, dict) or len(vectors) != 1 or len(sparse) != 1:
        raise ValueError("it must have one named dense and one sparse vector")
    (name, dense), hnsw = next(iter(vectors.items())), info.config.hnsw_config
    own = dense.hnsw_config
    quantized = dense.quantization_config or info.config.quantization_config
    indexes: Any = {field: _index_kind(index) for field, index in info.payload_schema.items()}
    return CollectionSpec(
        dense=name,
        dimension=dense.size,
        similarity=_SIMILARITIES.get(dense.distance.value, "cosine"),
        sparse=next(iter(sparse)),
        hnsw=HnswSettings(
            m=(own.m if own else None) or hnsw.m,
            ef_construct=(own.ef_construct if own else None) or hnsw.ef_construct,
        ),
        payload_indexes=indexes,
        storage=StorageSettings(bool(dense.on_disk), _quantized(quantized)),
        sharding=_sharding(info),
    )


def _sharding(info: models.CollectionInfo) -> ShardSettings:
    """Return the shards and replicas; a server may want more acknowledgments than replicas."""
    params = info.config.params
    replication = params.replication_factor or 1
    consistency = min(params.write_consistency_factor or 1, replication)
    return ShardSettings(params.shard_number or 1, replication, consistency, shard_key(info))


def bulk_holders(info: models.CollectionInfo) -> dict[str, BulkHolder]:
    """Return the records of ingests in bulk mode among a collection's metadata, by token."""
    return {
        key.removeprefix(_BULK_KEY): _bulk_holder(key.removeprefix(_BULK_KEY), value)
        for key, value in (info.config.metadata or {}).items()
        if key.startswith(_BULK_KEY) and value is not None
    }


def _bulk_holder(token: str, value: Any) -> BulkHolder:
    if not isinstance(value, Mapping):  # the threshold alone, by an earlier version
        return BulkHolder(token, "", 0, "", threshold_kb=int(value), order=0, is_done=True)
    return BulkHolder(
        token=token,
        host=value["host"],
        pid=int(value["pid"]),
        since=value["since"],
        threshold_kb=int(value["threshold_kb"]),
        order=int(value["order"]),
        renewals=int(value["renewals"]),
        is_done=bool(value["is_done"]),
    )


def bulk_metadata(holders: Mapping[str, BulkHolder | None]) -> dict[str, Any]:
    """Return the change of a collection's metadata that writes records, or deletes them."""
    return {
        _BULK_KEY + token: None if holder is None else asdict(holder)
        for token, holder in holders.items()
    }


def index_schema(
    kind: PayloadIndex,
) -> models.PayloadSchemaType | models.KeywordIndexParams:
    """Return the schema of a payload index."""
    if kind == "tenant":
        return models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    return models.PayloadSchemaType(kind)


def _index_kind(index: models.PayloadIndexInfo) -> str:
    """Return the kind of a payload index; one that this package does not create has Qdrant's."""
    if isinstance(index.params, models.KeywordIndexParams) and index.params.is_tenant:
        return "tenant"
    kind: str = index.data_type.value
    return kind


def _quantization(
    wanted: Quantization,
) -> models.ScalarQuantization | models.TurboQuantization | None:
    """Return the quantization, in memory: on disk, searches would be slow."""
    if wanted == "none":
        return None
    if wanted == "turbo4":
        bits = models.TurboQuantBitSize.BITS4
        turbo = models.TurboQuantQuantizationConfig(bits=bits, always_ram=True)
        return models.TurboQuantization(turbo=turbo)
    int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    return models.ScalarQuantization(scalar=int8)


def _quantized(config: object) -> Quantization:
    if config is None:
        return "none"
    return "turbo4" if isinstance(config, models.TurboQuantization) else "int8"


def query_request(
    query: PointQuery,
    *,
    ann: bool,
    limits: RequestLimits = NO_LIMITS,
    keys: KnownKeys | None = None,
) -> models.QueryRequest:
    """Convert a query.

    Args:
        query: The query.
        ann: False for the local mode, which warns of parameters for a graph.
        limits: The limits of the collection.
        keys: Its known shard keys.
    """
    chosen = point_filter(query)
    candidates = search_params(models, fit_effort(query.effort, limits)) if ann else None
    final = search_params(models, fit_effort(final_effort(query), limits)) if ann else None
    return models.QueryRequest(
        shard_key=None if keys is None else keys.selector(wanted_values(chosen, limits.shard_key)),
        query=_scoring(query),
        using=None if query.nearest is None else query.nearest.using,
        prefetch=[
            models.Prefetch(
                query=_nearest(candidate),
                using=candidate.using,
                limit=query.depth,
                filter=chosen,
                params=candidates,
            )
            for candidate in query.candidates
        ],
        limit=query.limit,
        offset=query.offset or None,
        with_payload=list(query.fields) or False,  # an empty list makes it read them
        with_vector=None if query.vector is None else [query.vector],
        filter=chosen,
        score_threshold=query.score_threshold,
        params=final,
    )


def _scoring(
    query: PointQuery,
) -> models.SparseVector | list[float] | int | str | models.NearestQuery | None:
    if query.nearest is None:
        return None
    nearest = _nearest(query.nearest)
    if query.diversity is None:
        return nearest
    mmr = models.Mmr(diversity=query.diversity, candidates_limit=query.depth)
    return models.NearestQuery(nearest=nearest, mmr=mmr)


def _nearest(nearest: Nearest) -> models.SparseVector | list[float] | int | str:
    vector: Any = nearest.vector
    if isinstance(vector, int | UUID):
        return from_id(vector)
    return from_sparse(vector) if isinstance(vector, SparseVector) else vector.tolist()


def point_structs(batch: PointBatch) -> list[models.PointStruct]:
    """Convert a batch for the local mode."""
    return [
        models.PointStruct(
            id=from_id(id_),
            vector={batch.using: row.tolist(), SPARSE_VECTOR: from_sparse(sparse)},
            payload=payload,
        )
        for id_, row, sparse, payload in zip(
            batch.ids, batch.dense, batch.sparse, batch.payloads, strict=True
        )
    ]


def from_sparse(vector: SparseVector) -> models.SparseVector:
    """Convert a sparse vector."""
    return models.SparseVector(indices=vector.indices, values=vector.values)


def select_old_points(ids: Sequence[PointId], up_to_seq: int) -> models.FilterSelector:
    """Select the points of those ids with a `seq` that is not higher."""
    known = models.HasIdCondition(has_id=[from_id(id_) for id_ in ids])
    old = models.FieldCondition(key="seq", range=models.Range(lte=seq_bound(up_to_seq)))
    return models.FilterSelector(filter=models.Filter(must=[known, old]))


def select_unchanged(ids: Sequence[PointId], seen: Sequence[int | None]) -> models.Filter:
    """Select the points whose stored `seq` is still the one seen; None for no number."""
    number = models.FieldCondition(key="seq", range=models.Range(gte=LEAST_SEQ))
    chosen: list[models.Condition] = []
    without: list[Any] = [from_id(id_) for id_, seq in zip(ids, seen, strict=True) if seq is None]
    if without:
        known = models.HasIdCondition(has_id=without)
        chosen.append(models.Filter(must=[known], must_not=[number]))
    for id_, seq in zip(ids, seen, strict=True):
        if seq is not None:
            same = models.FieldCondition(key="seq", match=models.MatchValue(value=seq))
            known = models.HasIdCondition(has_id=[from_id(id_)])
            chosen.append(models.Filter(must=[known, same]))
    return models.Filter(should=chosen)

"""Collection configs as the real server keeps them: its defaults, and how an update merges."""

from __future__ import annotations

import json
from typing import Any

from qdrant_client import grpc

from tests.loopback.statuses import Mistake

# the defaults of qdrant/qdrant config/config.yaml
_HNSW = grpc.HnswConfigDiff(
    m=16, ef_construct=100, full_scan_threshold=10000, max_indexing_threads=0, on_disk=False
)
_OPTIMIZER = grpc.OptimizersConfigDiff(
    deleted_threshold=0.2,
    vacuum_min_vector_number=1000,
    default_segment_number=0,
    indexing_threshold=10000,
    flush_interval_sec=5,
)
_WAL = grpc.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0, wal_retain_closed=1)
# lib/storage/src/content_manager/toc/collection_meta_ops.rs: each of these, even empty, recreates
# the optimizers, which starts them; metadata and strict mode do not
_STARTING = frozenset(
    {
        "optimizers_config",
        "params",
        "hnsw_config",
        "vectors_config",
        "quantization_config",
        "sparse_vectors_config",
    }
)


def check_new(request: grpc.CreateCollection) -> None:
    """Refuse a new collection's name and vector sizes as the server does."""
    name = request.collection_name
    if not 1 <= len(name) <= 255:
        raise Mistake.INVALID_FIELD.refusal(
            field="collection_name",
            problem=f"value {json.dumps(name)} invalid, must be from 1 to 255 characters",
        )
    for key, params in vector_params(request.vectors_config).items():
        if not 1 <= params.size <= 65536:
            raise Mistake.INVALID_FIELD.refusal(
                field=f"vectors_config.{key}.size" if key else "vectors_config.size",
                problem=f"value {params.size} invalid, must be from 1 to 65536",
            )


def vector_params(config: Any) -> dict[str, Any]:
    """Dense vector params (or their diffs) by name; the unnamed vector has the empty name."""
    kind = config.WhichOneof("config")
    if kind == "params":
        return {"": config.params}
    return dict(config.params_map.map) if kind == "params_map" else {}


def created(request: grpc.CreateCollection) -> grpc.CollectionConfig:
    """The config of a collection that `request` creates."""
    on_disk = request.on_disk_payload if request.HasField("on_disk_payload") else True
    config = grpc.CollectionConfig(
        params=grpc.CollectionParams(
            shard_number=request.shard_number or 1,
            on_disk_payload=on_disk,
            replication_factor=request.replication_factor or 1,
            write_consistency_factor=request.write_consistency_factor or 1,
            sharding_method=request.sharding_method,
        ),
        hnsw_config=_HNSW,
        optimizer_config=_OPTIMIZER,
        wal_config=_WAL,
    )
    for field in _set_fields(request) & {"vectors_config", "sparse_vectors_config"}:
        getattr(config.params, field).CopyFrom(getattr(request, field))
    for field in _set_fields(request) & {"quantization_config", "strict_mode_config"}:
        getattr(config, field).CopyFrom(getattr(request, field))
    _merge_settings(config, request)
    config.wal_config.MergeFrom(request.wal_config)
    _merge_metadata(config, request)
    return config


def update(config: grpc.CollectionConfig, request: grpc.UpdateCollection) -> None:
    """Merge an update into a config: what the request leaves out stays."""
    vectors = vector_params(config.params.vectors_config)
    diffs = vector_params(request.vectors_config)
    sparse, sparse_diffs = (one.sparse_vectors_config.map for one in (config.params, request))
    for name in diffs.keys() - vectors.keys() | set(request.sparse_vectors_config.map) - set(
        sparse
    ):
        raise Mistake.NO_VECTOR_NAME.refusal(name=name)
    for name, diff in diffs.items():
        _merge_vector(vectors[name], diff)
    for name, params in sparse_diffs.items():
        sparse[name].MergeFrom(params)
    for descriptor, value in request.params.ListFields():
        if descriptor.message_type is None:
            setattr(config.params, descriptor.name, value)
    _merge_settings(config, request)
    config.strict_mode_config.MergeFrom(request.strict_mode_config)
    _merge_quantization(config, request)
    _merge_metadata(config, request)


def starts_optimizers(request: grpc.UpdateCollection) -> bool:
    """Whether an update makes the server start its optimizers."""
    return not _set_fields(request).isdisjoint(_STARTING)


def indexed_vectors(config: grpc.CollectionConfig, points: int) -> int:
    """How many vectors an optimized server would have indexed: those above the threshold."""
    threshold = config.optimizer_config.indexing_threshold
    if not threshold:
        return 0
    dense = vector_params(config.params.vectors_config).values()
    return sum(points for one in dense if one.size * 4 * points // 1024 >= threshold)


def _set_fields(request: Any) -> set[str]:
    """The names of the fields that a request sets, also to an empty message."""
    return {descriptor.name for descriptor, _ in request.ListFields()}


def _merge_settings(config: grpc.CollectionConfig, request: Any) -> None:
    """Merge the diffs that a creation and an update have in common."""
    config.hnsw_config.MergeFrom(request.hnsw_config)
    config.optimizer_config.MergeFrom(request.optimizers_config)


def _merge_vector(params: grpc.VectorParams, diff: grpc.VectorParamsDiff) -> None:
    """Merge the diff of one dense vector."""
    if diff.HasField("hnsw_config"):
        params.hnsw_config.MergeFrom(diff.hnsw_config)
    if diff.HasField("on_disk"):
        params.on_disk = diff.on_disk
    _merge_quantization(params, diff)


def _merge_quantization(owner: Any, request: Any) -> None:
    """Replace the quantization of a collection or of one vector, or end it."""
    kind = request.quantization_config.WhichOneof("quantization")
    if kind is None:
        return
    owner.ClearField("quantization_config")
    if kind != "disabled":
        chosen = getattr(request.quantization_config, kind)
        getattr(owner.quantization_config, kind).CopyFrom(chosen)


def _merge_metadata(config: grpc.CollectionConfig, request: Any) -> None:
    """Merge by top-level key, as lib/segment's merge_map does: a null takes its key away."""
    for key, value in request.metadata.items():
        if value.WhichOneof("kind") == "null_value":
            config.metadata.pop(key, None)
        else:
            config.metadata[key].CopyFrom(value)

"""Schema, points and state of a collection: frozen and slotted.

Shapes are `(rows, columns)`; vectors are NumPy arrays of `float32`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from msmarco_qdrant.core.encoder_types import Similarity
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


PointId: TypeAlias = int | uuid.UUID
"""A point id of Qdrant: an unsigned 64-bit integer or a UUID."""


PayloadIndex: TypeAlias = Literal[
    "keyword", "integer", "float", "bool", "datetime", "text", "geo", "tenant"
]
"""A kind of payload index: a type of values, `text` by words, or `tenant` for keywords that
separate tenants (Qdrant's keyword index with `is_tenant`)."""


Quantization: TypeAlias = Literal["none", "int8", "turbo4"]


IndexState: TypeAlias = Literal["ready", "building", "paused", "failed"]


@dataclass(frozen=True, slots=True)
class Bm25Settings:
    """Parameters of the BM25 weights in a collection's sparse vectors.

    The defaults of `k` and `b` are those of Anserini's MS MARCO passage baseline (k1=0.9, b=0.4,
    https://github.com/castorini/anserini); `avg_len` was measured on real MS MARCO passages.

    Attributes:
        k: Saturation of the term frequency.
        b: Weight of the length normalization, 0 to 1.
        avg_len: Mean passage length in tokens after stop words are removed.
        language: Language of stop words and stemmer.
    """

    k: float = 0.9
    b: float = 0.4
    avg_len: float = 36.6
    language: str = "english"


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A sparse vector: uint32 token ids in ascending order, with a float32 weight each."""

    indices: list[int]
    values: list[float]


@dataclass(frozen=True, slots=True)
class HnswSettings:
    """Shape of the HNSW graph.

    Attributes:
        m: Links per node.
        ef_construct: Candidates considered while a node is linked.
    """

    m: int = 16
    ef_construct: int = 256


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Storage of the dense vectors of a new collection.

    Attributes:
        on_disk: Read the float32 vectors from disk on demand instead of keeping them in memory.
        quantization: Search a smaller copy in memory and rescore the best by float32 vectors:
            "int8" (a quarter of the size, one byte per dimension), "turbo4" (an eighth, Qdrant's
            TurboQuant with 4 bits; servers from 1.18 on), or "none" for no copy.

    Raises:
        UsageError: For another quantization.
    """

    on_disk: bool = True
    quantization: Quantization = "int8"

    def __post_init__(self) -> None:
        known = get_args(Quantization)
        if self.quantization not in known:
            raise UsageError(
                f"quantization must be one of {', '.join(known)}, got {self.quantization!r}"
            )


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """Shards and replicas of a new collection on a server; None leaves a choice to the server.

    Attributes:
        shards: Parts of the collection, each on one node; they cannot be changed later.
        replication: Copies of each shard, on different nodes.
        write_consistency: Copies that must accept a write.
        shard_key: The `meta` field whose values are the tenants of the collection, each with
            `shards` shards of its own; None if the pid alone chooses the shard. It cannot be
            changed later.

    Raises:
        UsageError: If a number is less than 1, more copies must accept a write than there are, or
            the field is not a non-empty string.
    """

    shards: int | None = None
    replication: int | None = None
    write_consistency: int | None = None
    shard_key: str | None = None

    def __post_init__(self) -> None:
        if self.shard_key is not None and (
            not isinstance(self.shard_key, str) or self.shard_key == ""
        ):
            raise UsageError(
                f"shard_key must be the name of a field of meta, got {self.shard_key!r}"
            )
        for name in ("shards", "replication", "write_consistency"):
            value = getattr(self, name)
            if value is not None and (not _is_integer(value) or value < 1):
                raise UsageError(f"{name} must be an integer of 1 or more, got {value!r}")
        if self.write_consistency is not None and self.write_consistency > (self.replication or 1):
            raise UsageError(
                f"write_consistency must be at most replication, {self.replication or 1}, got "
                f"{self.write_consistency}"
            )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """The schema of a physical collection; the package's own migrations create it.

    Attributes:
        dense: Name of the dense vector.
        dimension: Length of the dense vector.
        similarity: Similarity of the dense vector.
        sparse: Name of the sparse vector, weighted by IDF in the engine.
        hnsw: Shape of the dense vector's graph.
        payload_indexes: Payload fields to index, with their types.
        storage: Storage of the dense vectors.
        sharding: Shards and replicas, if a server keeps them. It makes no two specs differ.
    """

    dense: str
    dimension: int
    similarity: Similarity
    sparse: str
    hnsw: HnswSettings
    payload_indexes: Mapping[str, PayloadIndex] = field(hash=False)
    storage: StorageSettings = StorageSettings()
    sharding: ShardSettings | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """Settings of `HnswSettings`, `StorageSettings` and the optimizer; None keeps a setting.

    Attributes:
        indexing_threshold_kb: Kilobytes of vectors from which a segment gets a graph.
        max_segment_size_kb: Kilobytes of vectors beyond which segments are not merged.
    """

    m: int | None = None
    ef_construct: int | None = None
    on_disk: bool | None = None
    quantization: Quantization | None = None
    indexing_threshold_kb: int | None = None
    max_segment_size_kb: int | None = None


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """The state of a collection.

    Attributes:
        name: Name of the physical collection.
        points: Passages stored.
        is_exact: False if the server allows no exact count: `points` is its estimate.
        indexed: Vectors in an index, as the engine counts them: each sparse vector, and the dense
            ones in a graph; if Edge has a graph, also those that were replaced or deleted since it
            was built. See `in_graph`.
        segments: Segments that hold the points.
        state: State of the index: "ready", "building", "paused" (until `optimize()`), or "failed".
        last_seq: The highest `seq` of any payload: nanoseconds since 1970 of the last write, or 0.
        spec: Schema as reported by the engine.
    """

    name: str
    points: int
    indexed: int
    segments: int
    state: IndexState
    last_seq: int
    spec: CollectionSpec
    is_exact: bool = True

    @property
    def in_graph(self) -> int:
        """Passages in the graph, at most: a search compares with each of the others.

        Sparse vectors are indexed when they are written, so one of each passage counts for them.
        """
        return min(self.points, max(0, self.indexed - self.points))


@dataclass(frozen=True, slots=True, eq=False)
class PointBatch:
    """Points to write, by columns.

    Attributes:
        using: Name of the dense vector, which identifies the model.
        ids: `n` point ids.
        dense: float32 `(n, dimension)`.
        sparse: `n` sparse vectors.
        payloads: `n` payloads.
    """

    using: str
    ids: Sequence[PointId]
    dense: NDArray[np.float32]
    sparse: Sequence[SparseVector]
    payloads: Sequence[dict[str, Any]]

"""Values that the packages exchange: frozen, slotted, without logic.

Shapes are `(rows, columns)`; vectors are NumPy arrays of `float32`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


PointId: TypeAlias = int | uuid.UUID
"""A point id of Qdrant: an unsigned 64-bit integer or a UUID."""

Meta: TypeAlias = dict[str, Any]
"""The user's own fields of a passage: JSON values, possibly nested."""

Similarity: TypeAlias = Literal["cosine", "dot"]

PayloadIndex: TypeAlias = Literal["keyword", "integer", "float", "bool", "datetime"]

Quantization: TypeAlias = Literal["none", "int8", "turbo4"]

WINDOW = 8192
"""Default number of passages that an ingest sorts by length, writes and flushes together."""

IndexState: TypeAlias = Literal["ready", "building", "paused", "failed"]


# ---- sources -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage.

    Attributes:
        pid: The passage's id, any non-empty string.
        text: Exactly the encoded text; a title is joined in front.
        meta: The user's own fields.
        source: The file it came from ("" for a passage made in Python).
        line: The line or row in that file, counted from 1 (0 for a passage made in Python).
        raw: The original row, for the rejects file (b"" if there is none).
    """

    pid: str
    text: str
    meta: Meta = field(default_factory=dict, hash=False)
    source: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    raw: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPassage:
    """A passage with its vector.

    Attributes:
        passage: The passage.
        vector: float32 `(dimension,)`, of unit length if the similarity is cosine.
    """

    passage: Passage
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a file: its id and its text."""

    qid: str
    text: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot become a passage.

    Attributes:
        source: The file.
        line: The line or row in it, counted from 1.
        reason: Reason of the rejection, for people.
        raw: The first bytes of the row, at most 4 KiB.
        raw_bytes: Length of the whole row in bytes.
    """

    source: str
    line: int
    reason: str
    raw: bytes
    raw_bytes: int


# ---- models --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompts:
    """Texts that a model expects in front of a query and of a passage ("" for none)."""

    query: str = ""
    passage: str = ""


NO_PROMPTS = Prompts()

FINGERPRINT_2 = "2-"
"""The beginning of a fingerprint of version 2; those of version 1 have none."""


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """The properties of an encoder that a collection stores.

    Attributes:
        model: Name or directory that it was loaded from: a hint for people, not an identity.
        fingerprint: A digest of everything that determines a vector: "2-" and 64 hexadecimal
            digits (sha256); without "2-" in collections of version 0.1.
        dimension: Length of its vectors.
        similarity: The similarity that the model was trained for.
        prompts: Texts put in front of queries and passages.
        max_seq_length: Tokens after which a text is truncated, special tokens included; None if
            no text is truncated.
        other_fingerprints: The model's fingerprints of other versions.
        pooling: Name of the pooling, such as "mean"; "" if it is not known.
        assumed: Properties that the model's files do not contain: "pooling", "similarity" or
            "maximum length".
    """

    model: str
    fingerprint: str
    dimension: int
    similarity: Similarity
    prompts: Prompts = NO_PROMPTS
    max_seq_length: int | None = None
    other_fingerprints: tuple[str, ...] = field(default=(), compare=False, repr=False)
    pooling: str = field(default="", compare=False)
    assumed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def vector_name(self) -> str:
        """Name of the dense vector, so that another model's queries cannot match it."""
        return f"dense-{self.fingerprint.removeprefix(FINGERPRINT_2)[:8]}"

    @property
    def fingerprints(self) -> Mapping[int, str]:
        """The fingerprint of each version that is known."""
        found = (*self.other_fingerprints, self.fingerprint)
        return {2 if one.startswith(FINGERPRINT_2) else 1: one for one in found}

    @property
    def encoding(self) -> str:
        """Description of how texts become vectors, for people."""
        prompts = (("query", self.prompts.query), ("passage", self.prompts.passage))
        given = [f"{name} prompt {text!r}" for name, text in prompts if text]
        length = self.max_seq_length
        parts = (
            *((f"{self.pooling} pooling",) if self.pooling else ()),
            f"{self.similarity} similarity",
            *(given or ("no prompts",)),
            "texts of any length" if length is None else f"at most {length:,} tokens",
        )
        assumed = f" (assumed: {', '.join(self.assumed)})" if self.assumed else ""
        return ", ".join(parts) + assumed

    def is_same_model_as(self, other: EncoderInfo) -> bool:
        """Return True if the fingerprints of the newest version that both have are equal."""
        ours, theirs = self.fingerprints, other.fingerprints
        common = ours.keys() & theirs.keys()
        return bool(common) and ours[max(common)] == theirs[max(common)]

    def has_same_vectors_as(self, other: EncoderInfo) -> bool:
        """Return True if both have the same model and similarity."""
        return self.is_same_model_as(other) and self.similarity == other.similarity

    def stored_as(self, stored: EncoderInfo) -> EncoderInfo:
        """Return these properties under the fingerprint, thus vector name, of `stored`."""
        found = {**self.fingerprints, **stored.fingerprints}
        others = tuple(one for one in found.values() if one != stored.fingerprint)
        return replace(self, fingerprint=stored.fingerprint, other_fingerprints=others)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBatch:
    """Vectors of some of an encoder's input texts.

    Attributes:
        positions: int64 `(n,)`, indices of these texts in the input.
        vectors: float32 `(n, dimension)`, of unit length if the similarity is cosine. A text
            without a finite, non-zero vector has a row of NaN.
    """

    positions: NDArray[np.int64]
    vectors: NDArray[np.float32]


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


# ---- collections ---------------------------------------------------------------------------


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
    """

    on_disk: bool = True
    quantization: Quantization = "int8"


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
    """

    dense: str
    dimension: int
    similarity: Similarity
    sparse: str
    hnsw: HnswSettings
    payload_indexes: Mapping[str, PayloadIndex] = field(hash=False)
    storage: StorageSettings = StorageSettings()


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
class LockHolder:
    """The process that is migrating a collection.

    Attributes:
        token: Unique token of the lock.
        host: Name of its machine.
        pid: Process id.
        since: Start of the migration, in UTC as ISO 8601.
    """

    token: str
    host: str
    pid: int
    since: str


@dataclass(frozen=True, slots=True)
class UserMigration:
    """An applied migration of a user's folder.

    Attributes:
        name: The file's name, without `.py`.
        folder: The name of its folder; "" if an earlier version applied it.
        checksum: The digest of the file as it was applied, in hexadecimal; "" if unknown.
    """

    name: str
    folder: str = ""
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class CollectionMetadata:
    """Metadata of a collection: enough to encode the same way again, or to refuse.

    Attributes:
        schema_version: Version of the payload and vector layout.
        package_version: Version of this package that created the collection.
        encoder: Encoder of the collection's vectors.
        bm25: Settings of its sparse vectors.
        migrations: Names of the applied migrations, in order.
        copied_from: Physical collection that a re-embedding copies into this one; None before
            the copy begins and after it is complete.
        previous: Physical collection that the alias pointed to before; None if there was none.
        swaps: Number of times that the alias was repointed, up to this collection. A writer
            detects by it that the alias was repointed during the write, even there and back.
        only_copies: True if only a re-embedding has ever written to it.
        restoring: Token of the restore that fills it; None when that is complete.
        user_migrations: Those of `migrations` that are a user's; None in the metadata of an
            earlier version, which did not record them.
    """

    schema_version: int
    package_version: str
    encoder: EncoderInfo
    bm25: Bm25Settings
    migrations: tuple[str, ...]
    copied_from: str | None = None
    previous: str | None = None
    swaps: int = 0
    only_copies: bool = False
    restoring: str | None = None
    user_migrations: tuple[UserMigration, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """One physical collection and its metadata."""

    physical: str
    metadata: CollectionMetadata


@dataclass(frozen=True, slots=True)
class Copying:
    """An unfinished re-embedding.

    Attributes:
        source: Physical collection to copy.
        target: Physical collection being filled.
        metadata: Metadata of the target.
        is_swapped: True if the alias points to the target already.
    """

    source: str
    target: str
    metadata: CollectionMetadata
    is_swapped: bool


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """The state of a collection.

    Attributes:
        name: Name of the physical collection.
        points: Passages stored.
        is_exact: False if the server allows no exact count: `points` is its estimate.
        indexed: Dense and sparse vectors in an index; others are found by exact scan.
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


@dataclass(frozen=True, slots=True)
class PrunePolicy:
    """Limits for an ingest that deletes the passages that its source lacks.

    Attributes:
        max_share: Largest share of the collection to delete, 0 to 1. Beyond it nothing is
            deleted, as the source may be cut off.
        allow_rejects: Prune even if rows were rejected. A rejected row of a stored passage
            deletes that passage. A source that is cut off never prunes.

    Raises:
        UsageError: If `max_share` is out of range.
    """

    max_share: float = 0.2
    allow_rejects: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise UsageError(f"max_share must be 0 to 1, got {self.max_share}")

"""The values that travel between the parts: frozen, slotted, without logic of their own.

Shapes are written as `(rows, columns)`; vectors are NumPy arrays of `float32` throughout.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


PointId: TypeAlias = int | uuid.UUID
"""What Qdrant accepts as a point id: an unsigned 64-bit integer or a UUID."""

Meta: TypeAlias = dict[str, Any]
"""The user's own fields of a passage: JSON values, nested as they like."""

Similarity: TypeAlias = Literal["cosine", "dot"]

PayloadIndex: TypeAlias = Literal["keyword", "integer", "float", "bool", "datetime"]

Quantization: TypeAlias = Literal["none", "int8", "turbo4"]

WINDOW = 8192
"""Default number of passages that an ingest sorts by length, writes and flushes together."""

IndexState: TypeAlias = Literal["ready", "building", "paused", "failed"]


# ---- what people bring ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage.

    Attributes:
        pid: The passage's id, any non-empty string.
        text: Exactly what is encoded, with a title joined in front where there was one.
        meta: The user's own fields.
        source: The file it came from ("" when it was made in Python).
        line: The line or row in that file, counted from 1 (0 when it was made in Python).
        raw: The row as it stood there, to be shown if it is rejected late (b"" if there is none).
    """

    pid: str
    text: str
    meta: Meta = field(default_factory=dict)
    source: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    raw: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPassage:
    """A passage whose vector was made before.

    Attributes:
        passage: The passage.
        vector: float32 `(dimension,)`, of unit length where the similarity is cosine.
    """

    passage: Passage
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a file: its id and its query."""

    qid: str
    text: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot become a passage.

    Attributes:
        source: The file it stands in.
        line: Its line or row, counted from 1.
        reason: Why it was refused, as a sentence for people.
        raw: The first bytes of the row, 4 KiB at most.
        raw_bytes: The row's whole length in bytes.
    """

    source: str
    line: int
    reason: str
    raw: bytes
    raw_bytes: int


# ---- models --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a model wants in front of a query and of a passage ("" for nothing)."""

    query: str = ""
    passage: str = ""


NO_PROMPTS = Prompts()


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What a collection has to know about the encoder that fills it.

    Attributes:
        model: The name or directory it was loaded by: a hint for people, never an identity.
        fingerprint: 64 hexadecimal digits (sha256) over everything that decides a vector.
        dimension: Length of its vectors.
        similarity: The measure the model was trained for.
        prompts: What is put in front of queries and passages.
        max_seq_length: Tokens after which a text is cut, special tokens included.
    """

    model: str
    fingerprint: str
    dimension: int
    similarity: Similarity
    prompts: Prompts = NO_PROMPTS
    max_seq_length: int | None = None

    @property
    def vector_name(self) -> str:
        """Name of the dense vector: a query of another model cannot match it by accident."""
        return f"dense-{self.fingerprint[:8]}"

    def has_same_vectors_as(self, other: EncoderInfo) -> bool:
        """Return True if both have the same model and similarity."""
        return (self.fingerprint, self.similarity) == (other.fingerprint, other.similarity)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBatch:
    """Vectors of some of the texts that were handed to an encoder.

    Attributes:
        positions: int64 `(n,)`, which texts these are, as indices into the input.
        vectors: float32 `(n, dimension)`, of unit length where the similarity is cosine. A row of
            NaN stands for a text without a finite, non-zero vector.
    """

    positions: NDArray[np.int64]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bm25Settings:
    """Parameters of the BM25 weights that a collection's sparse vectors were made with.

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
    """A sparse vector: uint32 token ids in ascending order, and a float32 weight for each."""

    indices: list[int]
    values: list[float]


# ---- collections ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HnswSettings:
    """Shape of the HNSW graph.

    Attributes:
        m: Links a node.
        ef_construct: Candidates considered while a node is linked.
    """

    m: int = 16
    ef_construct: int = 256


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Where a new collection keeps its dense vectors, and in what form.

    Attributes:
        on_disk: Read the float32 vectors from disk as they are needed, instead of keeping them in
            memory.
        quantization: Keep a copy in memory to search in, of a quarter of the size ("int8", a byte a
            dimension) or an eighth ("turbo4", Qdrant's TurboQuant with 4 bits; servers from 1.18
            on); the best are scored again by the float32 vectors. "none" for no such copy.
    """

    on_disk: bool = True
    quantization: Quantization = "int8"


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a physical collection is made of; the package's own migrations make it.

    Attributes:
        dense: Name of the dense vector.
        dimension: Its length.
        similarity: Its measure.
        sparse: Name of the sparse vector, weighted by IDF in the engine.
        hnsw: Shape of the dense vector's graph.
        payload_indexes: Payload fields to index before any data comes.
        storage: Where and how the dense vectors are kept.
    """

    dense: str
    dimension: int
    similarity: Similarity
    sparse: str
    hnsw: HnswSettings
    payload_indexes: Mapping[str, PayloadIndex]
    storage: StorageSettings = StorageSettings()


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """What shall be another way in a collection that holds points; None for what stays.

    Attributes:
        m: See `HnswSettings`.
        ef_construct: See `HnswSettings`.
        on_disk: See `StorageSettings`.
        quantization: See `StorageSettings`.
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
    """Who is migrating a collection.

    Attributes:
        token: What nobody else has.
        host: The machine's name.
        pid: The process.
        since: When it began, in UTC as ISO 8601.
    """

    token: str
    host: str
    pid: int
    since: str


@dataclass(frozen=True, slots=True)
class CollectionMetadata:
    """What is kept beside the points: enough to encode the same way again, or to refuse.

    Attributes:
        schema_version: Version of the payload and vector layout.
        package_version: The version of this package that created the collection.
        encoder: The encoder whose vectors are inside.
        bm25: The settings its sparse vectors were made with.
        migrations: Names of the migrations that were applied, in order.
        copied_from: The physical collection that this one is being filled from; None before that
            begins and when all of it is there.
        previous: The physical collection that its name led to before; None if there was none.
        swaps: How often the name has been led to another physical collection, this one included:
            whoever writes tells by it that a swap, or a swap there and back, has come between.
        only_copies: Whether nothing was ever written to it but what a re-embedding has copied.
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


@dataclass(frozen=True, slots=True)
class Generation:
    """One physical collection and what was kept with it."""

    physical: str
    metadata: CollectionMetadata


@dataclass(frozen=True, slots=True)
class Copying:
    """A re-embedding that is not finished.

    Attributes:
        source: The physical collection that is copied.
        target: The one that is being filled.
        metadata: The target's.
        is_swapped: Whether the name leads to the target already.
    """

    source: str
    target: str
    metadata: CollectionMetadata
    is_swapped: bool


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """The state of a collection.

    Attributes:
        name: The physical collection's name.
        points: Passages stored.
        indexed: Dense and sparse vectors that an index covers; the rest is found by exact scan.
        segments: Segments they are stored in.
        state: Whether the engine is done indexing ("ready"), at it ("building"), waiting to be
            asked (`optimize()`; "paused"), or could not ("failed").
        last_seq: The highest `seq` of any payload: nanoseconds since 1970 of the last write, or 0.
        spec: What it was made of, as the engine tells it.
    """

    name: str
    points: int
    indexed: int
    segments: int
    state: IndexState
    last_seq: int
    spec: CollectionSpec


@dataclass(frozen=True, slots=True, eq=False)
class PointBatch:
    """Points to write, by columns.

    Attributes:
        using: Name of the dense vector, which tells whose vectors these are.
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


# ---- what people get -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PrunePolicy:
    """When an ingest may remove the passages that its source did not hold.

    Attributes:
        max_share: Largest share of the collection to remove, 0 to 1; beyond it nothing is removed,
            as a source that is cut short looks the same.
        allow_rejects: Go on when rows were rejected, although one of them may be a passage that
            is there: it would be removed.

    Raises:
        UsageError: For a share out of range.
    """

    max_share: float = 0.2
    allow_rejects: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise UsageError(f"max_share={self.max_share} is no share: expected 0 to 1")


def text_digest(text: str) -> str:
    """Digest of what was encoded: equal digests need no second encoding."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def meta_digest(meta: Meta) -> str:
    """Digest of the user's fields, whatever their order."""
    canonical = json.dumps(meta, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()

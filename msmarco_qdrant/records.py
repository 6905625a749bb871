"""The values that travel between the parts: frozen, slotted, without logic of their own.

Shapes are written as `(rows, columns)`; vectors are NumPy arrays of `float32` throughout.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from msmarco_qdrant.filters import SearchFilter

PointId: TypeAlias = int | uuid.UUID
"""What Qdrant accepts as a point id: an unsigned 64-bit integer or a UUID."""

Meta: TypeAlias = dict[str, Any]
"""The user's own fields of a passage: JSON values, nested as they like."""

Similarity: TypeAlias = Literal["cosine", "dot"]

PayloadIndex: TypeAlias = Literal["keyword", "integer", "float", "bool", "datetime"]

Quantisation: TypeAlias = Literal["none", "int8", "turbo4"]

SearchMode: TypeAlias = Literal["dense", "bm25", "hybrid"]

FusionMethod: TypeAlias = Literal["convex", "rrf", "dbsf"]

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
    """One query of a file: its id and its phrase."""

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
    """What a model wants in front of a phrase and of a passage ("" for nothing)."""

    query: str = ""
    passage: str = ""


NO_PROMPTS = Prompts()


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """What a collection has to know about the encoder that fills it.

    Attributes:
        model: The name or directory it was loaded by: a hint for people, never an identity.
        fingerprint: 64 hexadecimal digits (sha256) over everything that decides a vector.
        dimension: Length of its vectors.
        similarity: The measure the model was trained for.
        prompts: What is put in front of phrases and passages.
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
        b: Weight of the length normalisation, 0 to 1.
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
        quantisation: Keep a copy in memory to search in, of a quarter of the size ("int8", a byte a
            dimension) or an eighth ("turbo4", Qdrant's TurboQuant with 4 bits; servers from 1.18
            on); the best are scored again by the float32 vectors. "none" for no such copy.
    """

    on_disk: bool = True
    quantisation: Quantisation = "int8"


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
        quantisation: See `StorageSettings`.
        indexing_threshold_kb: Kilobytes of vectors from which a segment gets a graph.
        max_segment_size_kb: Kilobytes of vectors beyond which segments are not merged.
    """

    m: int | None = None
    ef_construct: int | None = None
    on_disk: bool | None = None
    quantisation: Quantisation | None = None
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
    """

    schema_version: int
    package_version: str
    encoder: EncoderCard
    bm25: Bm25Settings
    migrations: tuple[str, ...]
    copied_from: str | None = None
    previous: str | None = None
    swaps: int = 0


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


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """What points are scored by: their similarity to a vector.

    Attributes:
        vector: float32 `(dimension,)`, or a sparse vector.
        using: Name of the vector to compare with.
    """

    vector: NDArray[np.float32] | SparseVector
    using: str


@dataclass(frozen=True, slots=True)
class SearchEffort:
    """How carefully the engine looks for the nearest dense vectors.

    Attributes:
        ef: Candidates considered in the graph; at least as many as are wanted. With 128 no query
            of TREC DL 2019 or MS MARCO dev lost half of its exact top 10 on 47,283 real passages.
        exact: Compare with every float32 vector, and leave graph and quantisation aside.
        quantised: Follow the graph by quantised vectors, where there are any.
        rescore: Where vectors are quantised, score the best again by the float32 vectors.
        oversampling: How many times the points wanted are scored again, 1 or more. On 47,283 real
            passages and 1,374 queries (m=16, ef=128) recall@10 of int8 is 0.979 without it, 0.998
            with 2, and 0.998 without quantisation (`evaluate --ann`).
    """

    ef: int = 128
    exact: bool = False
    quantised: bool = True
    rescore: bool = True
    oversampling: float = 2.0


DEFAULT_EFFORT = SearchEffort()


@dataclass(frozen=True, slots=True, eq=False)
class PointQuery:
    """A query to the engine: the points that score best.

    Attributes:
        nearest: What they are scored by.
        limit: Points wanted.
        effort: How carefully to look for them.
        meta_filter: Conditions on the points.
        ids: Only these points, None for all.
        candidates: Score only the union of the best `depth` points by each of these; none for all
            points. The scores are then of the vectors themselves, never of quantised ones.
        depth: See `candidates`.
        fields: Payload fields wanted.
    """

    nearest: Nearest
    limit: int
    effort: SearchEffort = DEFAULT_EFFORT
    meta_filter: SearchFilter | None = None
    ids: Sequence[PointId] | None = None
    candidates: tuple[Nearest, ...] = ()
    depth: int = 0
    fields: Sequence[str] = ("pid", "text", "meta")


@dataclass(frozen=True, slots=True)
class ScoredPoint:
    """A point that a query found, with its similarity and payload."""

    id: PointId
    score: float
    payload: dict[str, Any]


# ---- what people get -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer to a phrase.

    Attributes:
        rank: Its place, counted from 1.
        pid: The passage's id as it was ingested.
        score: How well it answers, by the search's mode: "dense" gives a cosine in [-1, 1] or a
            dot product, "bm25" a BM25 score, "hybrid" the fusion's, and after reranking it is the
            cross-encoder's.
        text: The passage's text.
        meta: The passage's own fields.
    """

    rank: int
    pid: str
    score: float
    text: str
    meta: Meta


@dataclass(frozen=True, slots=True)
class Fusion:
    """How "hybrid" makes one ranking of the dense one and the BM25 one.

    "convex" adds the scores: `w * dense + (1 - w) * bm25 / best`, where `best` is the query's best
    BM25 score and `dense` the cosine (for dot products it is over the query's best, too). A
    passage that only one of the rankings holds has its real score of the other. "rrf" is
    reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009), with `2 w / (k + rank)` for
    the dense rank, counted from 1, and `2 (1 - w) / (k + rank)` for the other. "dbsf" is Qdrant's
    distribution-based score fusion: each ranking's scores are scaled by their mean and three
    standard deviations, then added with the same two weights.

    Attributes:
        method: "convex", "rrf" or "dbsf".
        dense_weight: `w`, 0 to 1. None for 0.8 with "convex", chosen on 1,331 queries of MS MARCO
            dev, and for 0.5 with the others, which weighs both alike.
        depth: How many of the best of each ranking are considered. Where more hits are wanted it
            is as many, and then the first ones of "rrf" and "dbsf" may be others: only "convex"
            does not depend on who else is considered.
        k: Of "rrf": the larger, the less the first ranks stand out.

    Raises:
        UsageError: For a value out of range.
    """

    method: FusionMethod = "convex"
    dense_weight: float | None = None
    depth: int = 100
    k: int = 60

    def __post_init__(self) -> None:
        if self.method not in get_args(FusionMethod):
            raise UsageError(
                f"the fusion {self.method!r} is unknown: expected one of "
                f"{', '.join(get_args(FusionMethod))}"
            )
        if self.dense_weight is not None and not 0 <= self.dense_weight <= 1:
            raise UsageError(f"dense_weight={self.dense_weight}: expected 0 to 1")
        if not 1 <= self.depth <= 10_000:
            raise UsageError(f"a fusion's depth of {self.depth}: expected 1 to 10,000")
        if self.k < 1:
            raise UsageError(f"k={self.k}: expected 1 or more")

    @property
    def weight(self) -> float:
        """The dense ranking's weight that is in force, 0 to 1."""
        if self.dense_weight is not None:
            return self.dense_weight
        return 0.8 if self.method == "convex" else 0.5


@dataclass(frozen=True, slots=True)
class PrunePolicy:
    """When an ingest may remove the passages that its source did not hold.

    Attributes:
        max_share: Largest share of the collection to remove, 0 to 1; beyond it nothing is removed,
            as a source that is cut short looks the same.
        despite_rejects: Go on when rows were rejected, although one of them may be a passage that
            is there: it would be removed.

    Raises:
        UsageError: For a share out of range.
    """

    max_share: float = 0.2
    despite_rejects: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise UsageError(f"max_share={self.max_share} is no share: expected 0 to 1")


@dataclass(frozen=True, slots=True)
class StageShare:
    """How long one stage of an ingest was at work.

    Stages work at the same time, each in a thread of its own, so the shares may add up to more
    than 1. The one with the largest holds the others back.

    Attributes:
        name: "read" (take and parse rows), "skip" (ask the store what is there already),
            "tokenise", "forward" (the model), "sparse" (BM25 weights), "write" (to the store,
            with its flush); at the end "prune" and "index".
        seconds: Time it worked, without its waits for the stages beside it.
        share: The same as a share of the wall time so far, 0 to 1.
    """

    name: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        read: Rows read, of whatever outcome: `written + unchanged + rejected` at the end.
        written: Passages stored or rewritten, counted once they are durable.
        unchanged: Passages that were there already, with the same text and meta.
        rejected: Rows that could not become a passage.
        encoded: Passages whose text went through the model (a changed meta alone does not, nor
            does a passage that came with its vector).
        pruned: Passages removed because the source did not hold them.
        seconds: Wall time from the first row to the last flush, indexing included.
        mean_tokens: Mean length in BM25 tokens of the passages that got new vectors, None if none
            did.
        stages: How long each stage was at work, in the order in which a passage meets them.
    """

    read: int
    written: int
    unchanged: int
    rejected: int
    encoded: int
    seconds: float
    mean_tokens: float | None = None
    pruned: int = 0
    stages: tuple[StageShare, ...] = ()

    @property
    def passages_per_second(self) -> float:
        """Rows handled a second."""
        return self.read / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far an ingest is.

    Attributes:
        stage: "passages" while rows are read, encoded and written; "prune" while those that the
            source did not hold are removed; "index" while it is built.
        done: Rows that are through, whether written, unchanged or rejected.
        fraction: Share of the source that is through, 0 to 1, None when its size is unknown.
        report: The counts so far.
    """

    stage: Literal["passages", "prune", "index"]
    done: int
    fraction: float | None
    report: IngestReport


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """What an encode into a folder of vectors did.

    Attributes:
        read: Rows read: `encoded + found + rejected`.
        encoded: Passages whose vectors were written.
        found: Passages whose vectors an earlier run had written.
        rejected: Rows that could not become a passage with a vector, of earlier runs too.
        shards: Files that are there at the end.
        tokens: Tokens that went through the model.
        seconds: Wall time from when the first batch may begin to the last file's fsync; loading
            the model and starting processes is not in it. Where processes tokenise, the first
            files' passages may be tokenised before.
        startup_seconds: Wall time of loading, starting processes, and the first forward pass.
    """

    read: int
    encoded: int
    found: int
    rejected: int
    shards: int
    tokens: int
    seconds: float
    startup_seconds: float = 0.0

    @property
    def passages_per_second(self) -> float:
        """Passages encoded a second."""
        return self.encoded / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class EncodeProgress:
    """How far an encode is.

    Attributes:
        done: Rows that are through.
        fraction: Share of the source that is through, 0 to 1, None when its size is unknown.
        report: The counts so far.
    """

    done: int
    fraction: float | None
    report: EncodeReport

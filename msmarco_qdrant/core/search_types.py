"""Queries to an engine and its results: frozen and slotted.

Vectors are NumPy arrays of `float32`, or sparse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from msmarco_qdrant.core.collection_types import PointId, SparseVector
from msmarco_qdrant.core.records import Meta
from msmarco_qdrant.core.short_text import shorten
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from msmarco_qdrant.filters import SearchFilter

SearchMode: TypeAlias = Literal["dense", "bm25", "hybrid"]

FusionMethod: TypeAlias = Literal["convex", "rrf", "dbsf"]

Merge: TypeAlias = Literal["scores", "rrf"]
"""The way to make one ranking of those of several collections."""


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """A vector to score points by similarity.

    Attributes:
        vector: float32 `(dimension,)`, a sparse vector, or a point whose vector it is, which is
            then not among the answers.
        using: Name of the points' vector to compare with.
    """

    vector: NDArray[np.float32] | SparseVector | PointId
    using: str


@dataclass(frozen=True, slots=True)
class SearchEffort:
    """Accuracy settings of the search for the nearest dense vectors.

    Attributes:
        ef: Candidates considered in the graph; at least the limit is used. With 128 no query of
            TREC DL 2019 or MS MARCO dev lost half of its exact top 10 on 47,283 real passages.
        exact: Compare with every float32 vector, without graph and quantization.
        quantized: Search the graph by quantized vectors, if the collection has them.
        rescore: Score the best quantized results again by the float32 vectors.
        oversampling: Factor of the limit to rescore, 1 or more. On 47,283 real passages and 1,374
            queries (m=16, ef=128) recall@10 of int8 is 0.979 without it, 0.998 with 2, and 0.998
            without quantization (`evaluate --ann`).
    """

    ef: int = 128
    exact: bool = False
    quantized: bool = True
    rescore: bool = True
    oversampling: float = 2.0


DEFAULT_EFFORT = SearchEffort()


@dataclass(frozen=True, slots=True, eq=False)
class PointQuery:
    """A query to the engine for the points with the best scores.

    Attributes:
        nearest: The vector to score by; None for any points that meet the filter.
        limit: Number of points to return.
        effort: Accuracy settings.
        meta_filter: Conditions on the points.
        ids: Only these points, None for all.
        candidates: Score only the union of the best `depth` points by each of these vectors; empty
            for all points. Candidates are scored by the original, not quantized vectors.
        depth: See `candidates` and `diversity`.
        fields: Payload fields to return.
        score_threshold: Omit points with a lower score; None for no threshold.
        vector: Name of the dense vector to return, None for none.
        offset: Number of best points to skip; not with `candidates`.
        diversity: 0 to 1: return the best `depth` points in the order of maximal marginal
            relevance, with their scores; None for the order of scores. Not with `candidates`.
    """

    nearest: Nearest | None
    limit: int
    effort: SearchEffort = DEFAULT_EFFORT
    meta_filter: SearchFilter | None = None
    ids: Sequence[PointId] | None = None
    candidates: tuple[Nearest, ...] = ()
    depth: int = 0
    fields: Sequence[str] = ("pid", "text", "meta")
    score_threshold: float | None = None
    vector: str | None = None
    offset: int = 0
    diversity: float | None = None


@dataclass(frozen=True, slots=True)
class ScoredPoint:
    """A point found by a query, with its similarity and payload, and its vector if wanted.

    The numbers of a vector are those of float32.
    """

    id: PointId
    score: float
    payload: dict[str, Any] = field(hash=False)
    vector: Sequence[float] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PointOrder:
    """An order of points by the values of an indexed payload key.

    Attributes:
        key: The JSON path of the key.
        is_descending: True to begin with the highest value.
        start: The first value to return, included: a number, or a moment with its time zone; None
            to begin with the first point.
    """

    key: str
    is_descending: bool = False
    start: float | datetime | None = None


@dataclass(frozen=True, slots=True)
class OrderedPoint:
    """A point with the value that orders it: a number, or microseconds since 1970."""

    id: PointId
    value: float
    payload: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Facet:
    """A value of a field, and the number of passages that have it.

    Attributes:
        value: A string, an integer or a boolean.
        count: The number of passages; one with a list counts for each distinct item.
    """

    value: str | int | bool
    count: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search.

    Attributes:
        rank: Position in the ranking, counted from 1.
        pid: The passage's id as ingested.
        score: Relevance, by search mode: "dense" gives a cosine in [-1, 1] or a dot product,
            "bm25" a BM25 score, "hybrid" the fused score; after reranking the cross-encoder's.
        text: The passage's text; empty with `with_text=False`.
        meta: The passage's own fields, those of `with_meta`.
        vector: The passage's dense vector with `with_vectors=True`, as stored: of unit length if
            the similarity is cosine.
        snippets: With `snippets=`, the sentences of the text that are the most similar to the
            query, in the order of the text.
        collection: With `collections=`, the collection that has the passage.
    """

    rank: int
    pid: str
    score: float
    text: str
    meta: Meta = field(hash=False)
    vector: tuple[float, ...] | None = None
    snippets: tuple[str, ...] = ()
    collection: str | None = None

    def __repr__(self) -> str:
        text = shorten(self.text)
        more = f", meta={shorten(repr(self.meta))}" if self.meta else ""
        more += f", collection={self.collection!r}" if self.collection is not None else ""
        return (
            f"Hit(rank={self.rank}, pid={self.pid!r}, score={self.score:.4f}, text={text!r}{more})"
        )


@dataclass(frozen=True, slots=True)
class Fusion:
    """Fusion of the dense and the BM25 ranking in mode "hybrid".

    "convex" adds the scores: `w * dense + (1 - w) * bm25 / best`, where `best` is the query's best
    BM25 score and `dense` the cosine (a dot product is divided by the query's best, too). A
    passage in only one of the rankings gets its real score of the other. "rrf" is reciprocal rank
    fusion (Cormack, Clarke and Buettcher, SIGIR 2009): `2 w / (k + rank)` for the dense rank,
    counted from 1, plus `2 (1 - w) / (k + rank)` for the BM25 rank. "dbsf" is Qdrant's
    distribution-based score fusion: it scales each ranking's scores by their mean and three
    standard deviations, and adds them with the same two weights.

    Attributes:
        method: "convex", "rrf" or "dbsf".
        dense_weight: `w`, 0 to 1. None for 0.8 with "convex", chosen on 1,331 queries of MS MARCO
            dev, and for 0.5 with the others.
        depth: Number of best results of each ranking to fuse; a larger limit replaces it. Only
            the scores of "convex" do not depend on it.
        k: Constant of "rrf": a larger one reduces the weight of the first ranks.

    Raises:
        UsageError: If a value is out of range or of another type.
    """

    method: FusionMethod = "convex"
    dense_weight: float | None = None
    depth: int = 100
    k: int = 60

    def __post_init__(self) -> None:
        if self.method not in get_args(FusionMethod):
            raise UsageError(
                f"the fusion method must be one of {', '.join(get_args(FusionMethod))}, "
                f"got {self.method!r}"
            )
        weight = self.dense_weight
        if weight is not None and not (_is(Real, weight) and 0 <= weight <= 1):
            raise UsageError(f"dense_weight must be 0 to 1, got {weight!r}")
        if not _is(Integral, self.depth) or not 1 <= self.depth <= 10_000:
            raise UsageError(f"the fusion depth must be 1 to 10,000, got {self.depth!r}")
        if not _is(Integral, self.k) or self.k < 1:
            raise UsageError(f"k must be 1 or more, got {self.k!r}")
        # Equal fusions have one text: cursors contain a digest of it.
        if weight is not None:
            object.__setattr__(self, "dense_weight", float(weight))
        object.__setattr__(self, "depth", int(self.depth))
        object.__setattr__(self, "k", int(self.k))

    @property
    def weight(self) -> float:
        """The effective weight of the dense ranking, 0 to 1."""
        if self.dense_weight is not None:
            return self.dense_weight
        return 0.8 if self.method == "convex" else 0.5


def _is(kind: type, value: object) -> bool:
    """True for a number of this kind, and not a boolean."""
    return isinstance(value, kind) and not isinstance(value, bool)

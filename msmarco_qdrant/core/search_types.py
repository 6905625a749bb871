"""What a search asks of an engine, and what it answers: frozen and slotted.

Vectors are NumPy arrays of `float32`, or sparse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from msmarco_qdrant.core.records import Meta, PointId, SparseVector
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from msmarco_qdrant.filters import SearchFilter

SearchMode: TypeAlias = Literal["dense", "bm25", "hybrid"]


FusionMethod: TypeAlias = Literal["convex", "rrf", "dbsf"]


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
        exact: Compare with every float32 vector, and leave graph and quantization aside.
        quantized: Follow the graph by quantized vectors, where there are any.
        rescore: Where vectors are quantized, score the best again by the float32 vectors.
        oversampling: How many times the points wanted are scored again, 1 or more. On 47,283 real
            passages and 1,374 queries (m=16, ef=128) recall@10 of int8 is 0.979 without it, 0.998
            with 2, and 0.998 without quantization (`evaluate --ann`).
    """

    ef: int = 128
    exact: bool = False
    quantized: bool = True
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
            points. The scores are then of the vectors themselves, never of quantized ones.
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


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer to a query.

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

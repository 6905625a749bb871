"""What can be asked of a search, beside its queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypedDict, get_args

from msmarco_qdrant.core.search_types import DEFAULT_EFFORT, Fusion, SearchEffort, SearchMode
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter, check_filter

MAX_LIMIT = 10_000
CONVEX = Fusion()


class SearchOptions(TypedDict, total=False):
    """Keyword arguments of `search` and `search_many`.

    Attributes:
        limit: Most hits wanted, 1 to 10,000; 10 by default.
        mode: "dense" compares vectors (the default), "bm25" words, "hybrid" makes one ranking of
            both.
        fusion: How "hybrid" does that.
        rerank_depth: Score the best so many again with the client's cross-encoder, which reads
            query and passage together; at least `limit`. None (the default) for no reranking.
        meta_filter: Conditions on `meta` fields, such as `{"lang": "en", "year": Range(gte=2020)}`
            (see `msmarco_qdrant.filters`; dots in a field's name go into objects), or Qdrant's own
            `Filter`, whose keys are those of the payload ("meta.lang").
        group_by: A `meta` field: only the best passage of each of its values. A list counts as
            each of its values; a passage without the field is left out. What is reranked is
            grouped afterwards, so there may be fewer than `limit`.
        exact: Compare with every vector, instead of following the graph.
        ef: Candidates considered in the graph; 128 by default.
        oversampling: Where vectors are quantized, how many times the passages wanted are scored
            again by the vectors themselves, 1 or more; 2 by default.
        rescore: False for not doing that.
    """

    limit: int
    mode: SearchMode
    fusion: Fusion
    rerank_depth: int | None
    meta_filter: SearchFilter | None
    group_by: str | None
    exact: bool
    ef: int
    oversampling: float
    rescore: bool


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """The options of a search, checked; see `SearchOptions`.

    Raises:
        UsageError: For what cannot be asked.
    """

    limit: int = 10
    mode: SearchMode = "dense"
    fusion: Fusion = CONVEX
    rerank_depth: int | None = None
    meta_filter: SearchFilter | None = None
    group_by: str | None = None
    exact: bool = False
    ef: int = DEFAULT_EFFORT.ef
    oversampling: float = DEFAULT_EFFORT.oversampling
    rescore: bool = True

    def __post_init__(self) -> None:
        _check_count("a limit", self.limit)
        _check_count("an ef", self.ef)
        if self.mode not in get_args(SearchMode):
            raise UsageError(
                f"the mode {self.mode!r} is unknown: expected one of "
                f"{', '.join(get_args(SearchMode))}"
            )
        if not isinstance(self.fusion, Fusion):
            raise UsageError(f"a fusion is a Fusion, such as Fusion('rrf'), not {self.fusion!r}")
        if not _is_number(self.oversampling) or not 1 <= self.oversampling < math.inf:
            raise UsageError(f"oversampling={self.oversampling!r}: expected a number, 1 or more")
        for name, value in (("exact", self.exact), ("rescore", self.rescore)):
            if not isinstance(value, bool):
                raise UsageError(f"{name}={value!r}: expected True or False")
        if self.group_by is not None and not (isinstance(self.group_by, str) and self.group_by):
            raise UsageError(f"group_by={self.group_by!r}: expected a field's name")
        check_filter(self.meta_filter)
        self._check_rerank_depth()

    def _check_rerank_depth(self) -> None:
        if self.rerank_depth is None:
            return
        _check_count("a rerank_depth", self.rerank_depth)
        if self.rerank_depth < self.limit:
            raise UsageError(
                f"rerank_depth={self.rerank_depth} is under the limit of {self.limit}: hits beyond "
                f"it would have no score of the cross-encoder. Make the rerank depth {self.limit}, "
                "or the limit smaller"
            )

    @property
    def wanted(self) -> int:
        """How many passages the first stage has to give."""
        return max(self.limit, self.rerank_depth or 0)

    def effort(self, wanted: int) -> SearchEffort:
        """How carefully the engine is to look for so many."""
        return SearchEffort(
            ef=max(self.ef, wanted),
            exact=self.exact,
            rescore=self.rescore,
            oversampling=self.oversampling,
        )


def check_queries(queries: Sequence[str]) -> None:
    """Refuse what cannot be searched for.

    Raises:
        UsageError: For one string where several were expected, or an empty query.
    """
    if isinstance(queries, str) or not isinstance(queries, Sequence):
        raise UsageError("search_many takes a list of queries; for one query call search")
    for query in queries:
        if not isinstance(query, str):
            raise UsageError(f"a query is a string, not a {type(query).__name__}")
        if any("\ud800" <= character <= "\udfff" for character in query):
            raise UsageError(f"the query {query!r} holds a lone surrogate: expected text")
        if not query.strip():
            raise UsageError("the query is empty: expected some words to search for")


def check_pids(queries: Sequence[str], pids: Sequence[Sequence[str]]) -> None:
    """Refuse passages that cannot be ranked.

    Raises:
        UsageError: If there is not one list of pids for each query, or one is too long.
    """
    if len(pids) != len(queries):
        raise UsageError(f"{len(queries)} queries and {len(pids)} lists of pids: expected as many")
    for given in pids:
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise UsageError("the passages to rank are lists of pids: one list for each query")
        if not all(isinstance(pid, str) for pid in given):
            raise UsageError("the passages to rank are lists of pids, which are strings")
        if len(given) > MAX_LIMIT:
            raise UsageError(f"{len(given):,} passages to rank: expected at most {MAX_LIMIT:,}")


def _check_count(what: str, count: int) -> None:
    if not _is_number(count) or not isinstance(count, Integral) or not 1 <= count <= MAX_LIMIT:
        raise UsageError(f"{what} of {count!r} cannot be served: expected 1 to {MAX_LIMIT:,}")


def _is_number(value: object) -> bool:
    """Python's numbers and NumPy's, but no booleans, which are numbers to Python."""
    return isinstance(value, Real) and not isinstance(value, bool)

"""Keyword arguments of searches, and their conversion to a request."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias, TypedDict, cast, get_args

from msmarco_qdrant.core.search_defaults import NO_DEFAULTS, SearchDefaults
from msmarco_qdrant.core.search_types import (
    DEFAULT_EFFORT,
    Fusion,
    FusionMethod,
    Merge,
    SearchMode,
)
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.search.request import (
    CONVEX,
    MAX_LIMIT,
    PER_QUERY,
    SearchRequest,
    check_count,
    require,
)

RERANK_DEPTH = 100
"""Hits to rerank with "auto", if the collection keeps no number."""

RerankDepth: TypeAlias = int | Literal["auto"] | None


class SimilarOptions(TypedDict, total=False):
    """Keyword arguments of `similar`, besides its examples; see `SearchOptions`."""

    limit: int
    offset: int | None
    cursor: str | None
    score_threshold: float | None
    meta_filter: SearchFilter | None
    tenant: str | None
    group_by: str | None
    diversity: float | None
    exact: bool
    ef: int | None
    oversampling: float
    rescore: bool
    with_vectors: bool
    with_meta: bool | Sequence[str]
    with_text: bool
    collections: Sequence[str] | None
    merge: Merge


class SearchOptions(SimilarOptions, total=False):
    """Keyword arguments of `search` and `search_many`.

    Attributes:
        limit: Maximum number of hits, 1 to 10,000; 10 by default.
        offset: Number of best hits to skip, 0 for the first of several pages; offset and limit
            together are at most 10,000. With an offset, the first 100 hits of quantized vectors
            are from as many candidates as those of limit 100.
        cursor: `Hits.cursor` of a page: return the page after it. Repeat the query and the options
            of that search; only `limit` may differ.
        mode: "dense" (the default) compares vectors, "bm25" words; "hybrid" fuses both rankings.
        fusion: How "hybrid" fuses them: "convex", "rrf", "dbsf", or a `Fusion`. None (the
            default) for the collection's default, else "convex".
        score_threshold: Omit hits with a lower score, on the scale of `Hit.score`: a cosine or dot
            product, a BM25 score, the fused score, or with `rerank_depth` the cross-encoder's.
        rerank_depth: Number of best hits to score again with the client's cross-encoder, which
            reads query and passage together; at least `offset` and `limit` together. "auto" for
            the collection's default, else 100. None (the default) disables it.
        rerank_sigmoid: Convert the cross-encoder's scores to 0 to 1, by the logistic function.
        meta_filter: Conditions on `meta` fields, such as `{"lang": "en", "year": Range(gte=2020)}`
            (see `msmarco_qdrant.filters`; dots in a field's name select nested fields, also those
            of the objects of a list), or a `Filter` of Qdrant, whose keys are those of the payload
            ("meta.lang").
        tenant: Only this tenant's passages. A collection with a tenant field requires it; see
            `set_tenant_field`.
        group_by: A `meta` field: return only the best passage for each of its values. A list
            counts as each of its values; a passage without the field is omitted. Reranked hits are
            grouped afterwards, so the result may have fewer than `limit`.
        diversity: 0 to 1: reorder the best 100 hits by maximal marginal relevance, so that each
            differs from those before it; 0 is relevance alone. The hits keep their scores.
        exact: Compare with every vector, instead of searching the graph.
        ef: Candidates considered in the graph. None (the default) for the collection's default,
            else 128.
        oversampling: For quantized vectors, the multiple of the wanted passages that is scored
            again by the original vectors, 1 or more; 2 by default.
        rescore: False to disable that.
        with_vectors: Return the dense vector of each hit.
        with_meta: False to return no `meta`, or the names of the fields to return.
        with_text: False to return no text.
        snippets: The most sentences per hit to return as `Hit.snippets`, those most similar to
            the query; 0 to 20.
        collections: Search these collections of the client's store instead of its own, all of its
            model, for one ranking. `Hit.collection` names that of each hit.
        merge: How their rankings become one: "scores" (the default) compares the scores, as if it
            were one collection; "rrf" the ranks: `1 / (60 + rank)`.
    """

    mode: SearchMode
    fusion: Fusion | FusionMethod | None
    rerank_depth: RerankDepth
    rerank_sigmoid: bool
    snippets: int


class RankOptions(TypedDict, total=False):
    """Keyword arguments of `rank` and `rank_many`; see `SearchOptions`.

    Attributes:
        mode: "dense" (the default), "bm25" or "hybrid"; every score is exact.
        fusion: As in a search; ranks and the best BM25 score are those among the given passages.
        rerank: True to score all passages with the client's cross-encoder.
        rerank_sigmoid: As in a search.
        tenant: As in a search.
        collections: Rank the given passages of these collections instead, as in a search; each
            passage is looked up in each of them.
        merge: As in a search; it does not change the order by the cross-encoder.
    """

    mode: SearchMode
    fusion: Fusion | FusionMethod | None
    rerank: bool
    rerank_sigmoid: bool
    tenant: str | None
    collections: Sequence[str] | None
    merge: Merge


def check_rank(options: RankOptions) -> None:
    """Check the options of a ranking of given passages.

    Raises:
        UsageError: For an invalid option.
    """
    mode, fusion = options.get("mode", "dense"), to_fusion(options.get("fusion"))
    names, merge = options.get("collections"), options.get("merge", "scores")
    tenant = options.get("tenant")
    SearchRequest(mode=mode, fusion=fusion, tenant=tenant, collections=names, merge=merge)
    for name in ("rerank", "rerank_sigmoid"):
        value = options.get(name, False)
        require(isinstance(value, bool), f"{name} must be True or False", value)
    if options.get("rerank_sigmoid") and not options.get("rerank"):
        raise UsageError("rerank_sigmoid converts reranked scores: pass rerank=True as well")


def to_request(
    options: SearchOptions | SimilarOptions, defaults: SearchDefaults = NO_DEFAULTS
) -> SearchRequest:
    """Check the options of a search, and fill in a collection's defaults.

    Raises:
        UsageError: For an invalid option.
    """
    given: dict[str, Any] = {**options}
    if type(names := given.get("with_meta")) is list:  # cannot be a key
        given["with_meta"] = tuple(names)
    kept = (defaults.fusion, defaults.ef, defaults.rerank_depth)
    chosen = {}
    for name in PER_QUERY:
        if (value := given.pop(name, None)) is not None:
            chosen[name] = value
    try:
        request = _known_request(*kept, **given)
    except TypeError:  # the names of collections, for example, cannot be a key
        request = _new_request(*kept, **given)
    return request.for_query(**chosen) if chosen else request


def _new_request(
    fusion: Fusion | None, ef: int | None, rerank_depth: int | None, /, **given: Any
) -> SearchRequest:
    """Make a request; the first arguments are those of the collection's defaults."""
    default_ef = ef or DEFAULT_EFFORT.ef
    given["fusion"] = to_fusion(given.get("fusion"), fusion)
    given["ef"] = default_ef if given.get("ef") is None else given["ef"]
    if given.get("rerank_depth") == "auto":
        limit = given.get("limit", 10)
        check_count("limit", limit)
        given["rerank_depth"] = max(limit, rerank_depth or RERANK_DEPTH)
    return SearchRequest(**given, default_ef=default_ef)


# Most searches of a client differ in what belongs to a query alone, and checking takes as long as
# copying the answer. The types of values count, as True equals 1.
_known_request = lru_cache(maxsize=128, typed=True)(_new_request)


def to_fusion(fusion: object, default: Fusion | None = None) -> Fusion:
    """Return a fusion given by the name of its method, or as it is; None for the default.

    Args:
        fusion: As given by a caller.
        default: The collection's default; None for the package's.

    Raises:
        UsageError: If it is none of these.
    """
    if fusion is None:
        return default or CONVEX
    if isinstance(fusion, str):
        return Fusion(cast("FusionMethod", fusion))
    known = ", ".join(get_args(FusionMethod))
    require(isinstance(fusion, Fusion), f"fusion must be {known}, or a Fusion", fusion)
    return cast("Fusion", fusion)


def check_queries(queries: Sequence[str]) -> None:
    """Check that queries can be searched for.

    Raises:
        UsageError: For one string instead of a list of queries, or an empty query.
    """
    if type(queries) is not list and (  # most are lists
        isinstance(queries, str) or not isinstance(queries, Sequence)
    ):
        raise UsageError("search_many takes a list of queries; for one query call search")
    for query in queries:
        if type(query) is str and query.isascii() and query.strip():
            continue  # most queries
        require(isinstance(query, str), "query must be a string", query)
        is_text = query.isascii() or not any("\ud800" <= one <= "\udfff" for one in query)
        require(is_text, "query must be text without lone surrogates", query)
        require(query.strip() != "", "query must not be empty", query)


def check_pids(queries: Sequence[str], pids: Sequence[Sequence[str]]) -> None:
    """Check that there is one list of pids for each query, and that none is too long.

    Raises:
        UsageError: If not.
    """
    if len(pids) != len(queries):
        raise UsageError(
            f"pids must be one list for each query, got {len(pids)} for {len(queries)} queries"
        )
    for given in pids:
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise UsageError(f"pids must be one list for each query, got {type(given).__name__}")
        for pid in given:
            require(isinstance(pid, str), "pid must be a string", pid)
        if len(given) > MAX_LIMIT:
            raise UsageError(
                f"pids must be at most {MAX_LIMIT:,} for each query, got {len(given):,}"
            )

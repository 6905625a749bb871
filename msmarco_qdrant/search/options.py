"""Options of searches and their checks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, TypedDict, cast, get_args

from msmarco_qdrant.collection.tenants import check_tenant
from msmarco_qdrant.core.field_path import check_field
from msmarco_qdrant.core.limits import NO_LIMITS, RequestLimits, at_most, exact_refusal
from msmarco_qdrant.core.search_defaults import NO_DEFAULTS, SearchDefaults
from msmarco_qdrant.core.search_types import (
    DEFAULT_EFFORT,
    Fusion,
    FusionMethod,
    SearchEffort,
    SearchMode,
)
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter, check_filter
from msmarco_qdrant.search.cursor import Cursor, parse_cursor

MAX_LIMIT = 10_000
PAGES = 100  # hits of quantized vectors whose pages fit together
MAX_SNIPPETS = 20
CONVEX = Fusion()
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
RERANK_DEPTH = 100
"""Hits to rerank with "auto", if the collection keeps no number."""

RerankDepth: TypeAlias = int | Literal["auto"] | None


class SearchOptions(TypedDict, total=False):
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
    """

    limit: int
    offset: int | None
    cursor: str | None
    mode: SearchMode
    fusion: Fusion | FusionMethod | None
    score_threshold: float | None
    rerank_depth: RerankDepth
    rerank_sigmoid: bool
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
    snippets: int


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


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """Checked options of a search; see `SearchOptions`.

    Raises:
        UsageError: For an invalid option.
    """

    limit: int = 10
    offset: int | None = None
    cursor: str | None = None
    mode: SearchMode = "dense"
    fusion: Fusion = CONVEX
    score_threshold: float | None = None
    rerank_depth: int | None = None
    rerank_sigmoid: bool = False
    meta_filter: SearchFilter | None = None
    tenant: str | None = None
    group_by: str | None = None
    diversity: float | None = None
    exact: bool = False
    ef: int = DEFAULT_EFFORT.ef
    oversampling: float = DEFAULT_EFFORT.oversampling
    rescore: bool = True
    with_vectors: bool = False
    with_meta: bool | Sequence[str] = True
    with_text: bool = True
    snippets: int = 0
    limits: RequestLimits = NO_LIMITS
    default_ef: int = DEFAULT_EFFORT.ef

    def __post_init__(self) -> None:
        modes = ", ".join(get_args(SearchMode))
        _check_count("limit", self.limit)
        _check_count("ef", self.ef)
        _require(self.mode in get_args(SearchMode), f"mode must be one of {modes}", self.mode)
        is_factor = _is_number(self.oversampling) and 1 <= self.oversampling < math.inf
        _require(is_factor, "oversampling must be a number, 1 or more", self.oversampling)
        _require(isinstance(self.exact, bool), "exact must be True or False", self.exact)
        _require(isinstance(self.rescore, bool), "rescore must be True or False", self.rescore)
        is_field = self.group_by is None or (isinstance(self.group_by, str) and self.group_by != "")
        _require(is_field, "group_by must be the name of a field", self.group_by)
        if self.group_by is not None:
            check_field(self.group_by)
        check_filter(self.meta_filter)
        check_tenant(self.tenant)
        self._check_page()
        self._check_scores()
        self._check_content()

    @property
    def after(self) -> Cursor | None:
        """The end of the page before, None for a page by offset."""
        return None if self.cursor is None else parse_cursor(self.cursor)

    @property
    def start(self) -> int:
        """The number of hits before the page."""
        return (self.offset or 0) if self.cursor is None else parse_cursor(self.cursor).position

    @property
    def is_page(self) -> bool:
        """True if it is one of several pages."""
        return self.offset is not None or self.cursor is not None

    @property
    def end(self) -> int:
        """The number of best hits up to the end of the page."""
        return min(self.start + self.limit, self.last_end)

    @property
    def last_end(self) -> int:
        """The greatest `end` of pages. The order of ranks and deviations depends on the depth."""
        is_by_depth = self.mode == "hybrid" and self.fusion.method != "convex"
        if self.start and is_by_depth:
            return min(self.fusion.depth, self.max_limit)
        return self.max_limit

    @property
    def first_threshold(self) -> float | None:
        """The threshold of the scores of the first stage; that of reranked scores applies later."""
        return None if self.rerank_depth is not None else self.score_threshold

    @property
    def max_limit(self) -> int:
        """The most passages to retrieve. The engine scores both rankings of "hybrid" at once."""
        if self.limits.points is None:
            return MAX_LIMIT
        return at_most(MAX_LIMIT, self.limits.points // (2 if self.mode == "hybrid" else 1))

    def depth(self, limit: int) -> int:
        """Return the number of best passages of each ranking to fuse."""
        depth = breadth(self.fusion.depth, limit)
        return depth if self.limits.points is None else min(depth, self.max_limit)

    @property
    def first_stage_limit(self) -> int:
        """The number of passages to retrieve before reranking."""
        return self.end if self.rerank_depth is None else self.rerank_depth

    def effort(self, limit: int) -> SearchEffort:
        """Return the engine's parameters for retrieving so many passages."""
        return SearchEffort(
            ef=breadth(self.ef, limit),
            exact=self.exact,
            rescore=self.rescore,
            oversampling=self._oversampling(limit),
        )

    def _oversampling(self, limit: int) -> float:
        """Return the oversampling for so many passages; all pages to 100 score as many again."""
        if not self.is_page or self.mode != "dense" or self.rerank_depth is not None:
            return self.oversampling
        most = PAGES + 1  # one more hit is retrieved, to notice ties
        if limit >= most:
            return self.oversampling
        return (int(self.oversampling * most) + 0.5) / limit  # engines round the product down

    def _check_page(self) -> None:
        offset = 0 if self.offset is None else self.offset
        is_offset = _is_integer(offset) and 0 <= offset < MAX_LIMIT
        _require(is_offset, f"offset must be 0 to {MAX_LIMIT - 1:,}", offset)
        if self.offset is not None and self.cursor is not None:
            raise UsageError("pass either offset or cursor, not both")
        if offset + self.limit > MAX_LIMIT:
            raise UsageError(
                f"offset + limit must be at most {MAX_LIMIT:,}, got {offset:,} + {self.limit:,}"
            )
        self._check_depth()
        if self.start >= MAX_LIMIT:
            raise UsageError(
                f"a search returns its {MAX_LIMIT:,} best hits at most, and this cursor is after "
                "the last of them: search with a meta_filter"
            )
        if self.rerank_depth is None:
            return
        if isinstance(self.rerank_depth, str):
            _require(False, 'rerank_depth must be a number, "auto" or None', self.rerank_depth)
        _check_count("rerank_depth", self.rerank_depth)
        if self.cursor is None and self.rerank_depth < offset + self.limit:
            least = f"offset + limit ({offset} + {self.limit})"
            if not offset:
                least = f"limit ({self.limit})"
            rule = f"rerank_depth must be {least} or more, to score every hit"
            raise UsageError(f"{rule}, got {self.rerank_depth!r}")

    def _check_depth(self) -> None:
        """Refuse a page beyond the depth of a fusion whose order depends on it."""
        end = self.start + (1 if self.cursor is not None else self.limit)
        if self.start and self.rerank_depth is None and end > self.last_end < MAX_LIMIT:
            depth = self.fusion.depth
            raise UsageError(
                f"offset + limit must be at most {depth}, the depth of the fusion "
                f"'{self.fusion.method}', got {end}: its order depends on the depth. Pass "
                f"Fusion('{self.fusion.method}', depth=...) from the first page on, or use the "
                "fusion 'convex'"
            )

    @property
    def fields(self) -> Sequence[str]:
        """The payload fields to retrieve."""
        reranks = self.rerank_depth is not None
        text = ("text",) if self.with_text or self.snippets or reranks else ()
        if self.with_meta is True or (reranks and self.group_by is not None):
            return ("pid", *text, "meta")
        names = self.with_meta or ()
        if all(_PLAIN_NAME.fullmatch(name) for name in names):
            return ("pid", *text, *(f"meta.{name}" for name in names))
        return ("pid", *text, "meta")

    def _check_content(self) -> None:
        if self.diversity is not None:
            is_share = _is_number(self.diversity) and 0 <= self.diversity <= 1
            _require(is_share, "diversity must be 0 to 1", self.diversity)
        for name in ("with_vectors", "with_text"):
            value = getattr(self, name)
            _require(isinstance(value, bool), f"{name} must be True or False", value)
        names = self.with_meta
        if not isinstance(names, bool):
            is_list = isinstance(names, Sequence) and not isinstance(names, str | bytes)
            is_names = is_list and all(isinstance(name, str) and name for name in names)
            rule = "with_meta must be True, False or a list of names of fields"
            _require(is_names, rule, names)
        is_count = _is_integer(self.snippets) and 0 <= self.snippets <= MAX_SNIPPETS
        _require(is_count, f"snippets must be 0 to {MAX_SNIPPETS}", self.snippets)

    def _check_scores(self) -> None:
        threshold, rule = self.score_threshold, "score_threshold must be a finite number"
        _require(
            threshold is None or (_is_number(threshold) and math.isfinite(threshold)),
            rule,
            threshold,
        )
        sigmoid = self.rerank_sigmoid
        _require(isinstance(sigmoid, bool), "rerank_sigmoid must be True or False", sigmoid)
        if self.rerank_sigmoid and self.rerank_depth is None:
            raise UsageError("rerank_sigmoid converts reranked scores: pass rerank_depth as well")


def breadth(least: int, limit: int) -> int:
    """Return the number of candidates for a limit: doubled until it suffices, up to 10,000.

    So limits that differ have the same candidates, and the same order of hits.
    """
    while least < limit:
        least *= 2
    return max(min(least, MAX_LIMIT), limit)


def to_request(
    options: SearchOptions | SimilarOptions, defaults: SearchDefaults = NO_DEFAULTS
) -> SearchRequest:
    """Check the options of a search, and fill in a collection's defaults.

    Raises:
        UsageError: For an invalid option.
    """
    given: dict[str, Any] = {**options}
    default_ef = defaults.ef or DEFAULT_EFFORT.ef
    given["fusion"] = to_fusion(given.get("fusion"), defaults)
    given["ef"] = default_ef if given.get("ef") is None else given["ef"]
    if given.get("rerank_depth") == "auto":
        limit = given.get("limit", 10)
        _check_count("limit", limit)
        given["rerank_depth"] = max(limit, defaults.rerank_depth or RERANK_DEPTH)
    return SearchRequest(**given, default_ef=default_ef)


def to_fusion(fusion: object, defaults: SearchDefaults = NO_DEFAULTS) -> Fusion:
    """Return a fusion given by the name of its method, or as it is; None for the default.

    Raises:
        UsageError: If it is none of these.
    """
    if fusion is None:
        return defaults.fusion or CONVEX
    if isinstance(fusion, str):
        return Fusion(cast("FusionMethod", fusion))
    known = ", ".join(get_args(FusionMethod))
    _require(isinstance(fusion, Fusion), f"fusion must be {known}, or a Fusion", fusion)
    return cast("Fusion", fusion)


def check_limits(request: SearchRequest, collection: str) -> None:
    """Refuse numbers of a caller above the limits of the collection's strict mode.

    Raises:
        UsageError: With the bound, and the name of the setting.
    """
    limits = request.limits
    if request.exact and not limits.exact:
        raise UsageError(f"{exact_refusal(collection)}: omit exact=True")
    points = None if limits.points is None else request.max_limit
    setting = "max_query_limit"
    if request.mode == "hybrid":
        setting = "half of max_query_limit, as both rankings are scored at once"
    _require_within("limit", request.limit, points, setting, collection)
    if request.offset:
        end = request.offset + request.limit
        _require_within("offset + limit", end, points, setting, collection)
    if request.after is not None and request.start >= request.max_limit:
        raise UsageError(
            f"this cursor is after hit {request.start:,}, and {request.max_limit:,} hits are the "
            f"most by the strict mode of collection '{collection}' ({setting}): search with a "
            "meta_filter"
        )
    _require_within("rerank_depth", request.rerank_depth, points, setting, collection)
    if request.mode == "hybrid" and request.fusion.depth != CONVEX.depth:  # the default adapts
        _require_within("fusion depth", request.fusion.depth, points, setting, collection)
    if request.ef != request.default_ef:
        _require_within("ef", request.ef, limits.ef, "search_max_hnsw_ef", collection)
    if request.oversampling != DEFAULT_EFFORT.oversampling:
        setting = "search_max_oversampling"
        bound = limits.oversampling
        _require_within("oversampling", request.oversampling, bound, setting, collection)


def _require_within(
    name: str, value: float | None, bound: float | None, setting: str, collection: str
) -> None:
    if value is not None and bound is not None and value > bound:
        raise UsageError(
            f"{name} must be at most {bound:g} by the strict mode of collection '{collection}' "
            f"({setting}), got {value:g}"
        )


def check_queries(queries: Sequence[str]) -> None:
    """Check that queries can be searched for.

    Raises:
        UsageError: For one string instead of a list of queries, or an empty query.
    """
    if isinstance(queries, str) or not isinstance(queries, Sequence):
        raise UsageError("search_many takes a list of queries; for one query call search")
    for query in queries:
        _require(isinstance(query, str), "query must be a string", query)
        is_text = not any("\ud800" <= character <= "\udfff" for character in query)
        _require(is_text, "query must be text without lone surrogates", query)
        _require(query.strip() != "", "query must not be empty", query)


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
            _require(isinstance(pid, str), "pid must be a string", pid)
        if len(given) > MAX_LIMIT:
            raise UsageError(
                f"pids must be at most {MAX_LIMIT:,} for each query, got {len(given):,}"
            )


def _check_count(name: str, count: int) -> None:
    is_count = _is_integer(count) and 1 <= count <= MAX_LIMIT
    _require(is_count, f"{name} must be 1 to {MAX_LIMIT:,}", count)


def _require(is_valid: bool, rule: str, value: object) -> None:
    if not is_valid:
        raise UsageError(f"{rule}, got {value!r}")


def _is_integer(value: object) -> bool:
    return _is_number(value) and isinstance(value, Integral)


def _is_number(value: object) -> bool:
    """True for numbers of Python and NumPy, except booleans."""
    return isinstance(value, Real) and not isinstance(value, bool)

"""A search with checked options, and what they mean for the engine."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, get_args

from msmarco_qdrant.collection.tenants import check_tenant
from msmarco_qdrant.core.field_path import check_field
from msmarco_qdrant.core.limits import NO_LIMITS, RequestLimits, at_most, exact_refusal
from msmarco_qdrant.core.search_types import (
    DEFAULT_EFFORT,
    Fusion,
    Merge,
    SearchEffort,
    SearchMode,
)
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter, check_filter
from msmarco_qdrant.search.cursor import Cursor, parse_cursor

MAX_LIMIT = 10_000
PAGES = 100  # hits of quantized vectors whose pages fit together
MAX_SNIPPETS = 20
MAX_COLLECTIONS = 100

# The alias may point to another collection during a query, and back when its metadata are read. An
# error is raised after the metadata were unchanged this many times in a row.
MAX_UNCHANGED = 5
CONVEX = Fusion()
_MODES = get_args(SearchMode)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """Checked options of a search; see `options.SearchOptions`.

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
    collections: Sequence[str] | None = None
    merge: Merge = "scores"
    limits: RequestLimits = NO_LIMITS
    default_ef: int = DEFAULT_EFFORT.ef

    def __post_init__(self) -> None:
        check_count("limit", self.limit)
        check_count("ef", self.ef)
        if self.mode not in _MODES:
            require(False, f"mode must be one of {', '.join(_MODES)}", self.mode)
        is_factor = _is_number(self.oversampling) and 1 <= self.oversampling < math.inf
        require(is_factor, "oversampling must be a number, 1 or more", self.oversampling)
        require(isinstance(self.exact, bool), "exact must be True or False", self.exact)
        require(isinstance(self.rescore, bool), "rescore must be True or False", self.rescore)
        is_field = self.group_by is None or (isinstance(self.group_by, str) and self.group_by != "")
        require(is_field, "group_by must be the name of a field", self.group_by)
        if self.group_by is not None:
            check_field(self.group_by)
        check_filter(self.meta_filter)
        check_tenant(self.tenant)
        self._check_page()
        self._check_scores()
        self._check_content()
        self._check_collections()

    def copy(self, **changes: Any) -> SearchRequest:
        """Return a copy with checked values in place of some; `replace` would check all again."""
        copied = object.__new__(SearchRequest)
        for name in SearchRequest.__slots__:
            value = changes[name] if name in changes else getattr(self, name)
            object.__setattr__(copied, name, value)
        return copied

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
        ef, oversampling = breadth(self.ef, limit), self._oversampling(limit)
        return _effort(ef, self.exact, self.rescore, oversampling)

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
        require(is_offset, f"offset must be 0 to {MAX_LIMIT - 1:,}", offset)
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
            require(False, 'rerank_depth must be a number, "auto" or None', self.rerank_depth)
        check_count("rerank_depth", self.rerank_depth)
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
            require(is_share, "diversity must be 0 to 1", self.diversity)
        for name in ("with_vectors", "with_text"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"{name} must be True or False", value)
        names = self.with_meta
        if not isinstance(names, bool):
            is_list = isinstance(names, Sequence) and not isinstance(names, str | bytes)
            is_names = is_list and all(isinstance(name, str) and name for name in names)
            rule = "with_meta must be True, False or a list of names of fields"
            require(is_names, rule, names)
        is_count = _is_integer(self.snippets) and 0 <= self.snippets <= MAX_SNIPPETS
        require(is_count, f"snippets must be 0 to {MAX_SNIPPETS}", self.snippets)

    def _check_collections(self) -> None:
        names, merges = self.collections, get_args(Merge)
        require(self.merge in merges, f"merge must be one of {', '.join(merges)}", self.merge)
        if names is None:
            if self.merge != "scores":
                raise UsageError("merge is for several collections: pass collections as well")
            return
        is_list = isinstance(names, Sequence) and not isinstance(names, str | bytes)
        is_names = is_list and all(isinstance(name, str) and name for name in names)
        require(is_names, "collections must be a list of names, also for one", names)
        is_count = 1 <= len(names) <= MAX_COLLECTIONS
        require(is_count, f"collections must be 1 to {MAX_COLLECTIONS} names", names)
        require(len({*names}) == len(names), "collections must differ", names)
        object.__setattr__(self, "collections", tuple(names))
        if self.merge == "rrf" and self.first_threshold is not None:
            raise UsageError(
                "score_threshold has no meaning with merge='rrf', whose scores are those of ranks: "
                "pass merge='scores', or rerank_depth"
            )

    def _check_scores(self) -> None:
        threshold, rule = self.score_threshold, "score_threshold must be a finite number"
        require(
            threshold is None or (_is_number(threshold) and math.isfinite(threshold)),
            rule,
            threshold,
        )
        sigmoid = self.rerank_sigmoid
        require(isinstance(sigmoid, bool), "rerank_sigmoid must be True or False", sigmoid)
        if self.rerank_sigmoid and self.rerank_depth is None:
            raise UsageError("rerank_sigmoid converts reranked scores: pass rerank_depth as well")


@lru_cache(maxsize=64)
def _effort(ef: int, exact: bool, rescore: bool, oversampling: float) -> SearchEffort:
    return SearchEffort(ef, exact, rescore=rescore, oversampling=oversampling)


def breadth(least: int, limit: int) -> int:
    """Return the number of candidates for a limit: doubled until it suffices, up to 10,000.

    So limits that differ have the same candidates, and the same order of hits.
    """
    while least < limit:
        least *= 2
    return max(min(least, MAX_LIMIT), limit)


def check_limits(request: SearchRequest, collection: str) -> None:
    """Refuse numbers of a caller above the limits of the collection's strict mode.

    Raises:
        UsageError: With the bound, and the name of the setting.
    """
    limits = request.limits
    if limits is NO_LIMITS:
        return
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


def check_count(name: str, count: int) -> None:
    """Check a number of hits or candidates.

    Raises:
        UsageError: If it is not 1 to 10,000.
    """
    if not (_is_integer(count) and 1 <= count <= MAX_LIMIT):
        require(False, f"{name} must be 1 to {MAX_LIMIT:,}", count)


def require(is_valid: bool, rule: str, value: object) -> None:
    """Refuse an invalid value with its rule.

    Raises:
        UsageError: If it is not valid.
    """
    if not is_valid:
        raise UsageError(f"{rule}, got {value!r}")


def _is_integer(value: object) -> bool:
    return type(value) is int or (_is_number(value) and isinstance(value, Integral))


def _is_number(value: object) -> bool:
    """True for numbers of Python and NumPy, except booleans."""
    if type(value) in (int, float):  # the others take longer to recognize
        return True
    return isinstance(value, Real) and not isinstance(value, bool)

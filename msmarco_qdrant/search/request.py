"""A search with checked options, and what they mean for the engine."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from numbers import Integral, Real
from operator import attrgetter
from typing import Any, get_args

from msmarco_qdrant.collection.tenants import check_tenant
from msmarco_qdrant.core.field_path import check_field
from msmarco_qdrant.core.limits import NO_LIMITS, RequestLimits, at_most
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
from msmarco_qdrant.stores.payload import HIT_FIELDS

MAX_LIMIT = 10_000
PAGES = 100  # hits of quantized vectors whose pages fit together
MAX_SNIPPETS = 20
MAX_COLLECTIONS = 100

# The alias may point to another collection during a query, and back when its metadata are read. An
# error is raised after the metadata were unchanged this many times in a row.
MAX_UNCHANGED = 5
CONVEX = Fusion()
PER_QUERY = ("cursor", "score_threshold", "meta_filter")
"""Options that often belong to one query."""

_MODES, _MERGES = get_args(SearchMode), get_args(Merge)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """Checked options of a search; see `options.SearchOptions`.

    Attributes:
        start: The number of hits before the page.
        is_page: True if it is one of several pages.
        max_limit: The most passages to retrieve. The engine scores both rankings of "hybrid" at
            once.
        first_threshold: The threshold of the scores of the first stage; that of reranked scores
            applies later.
        last_end: The greatest `end` of pages. The order of ranks and deviations depends on the
            depth.
        fields: The payload fields to retrieve.
        is_plain: True if hits have their text and `meta`, and nothing else.

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
    start: int = field(init=False, compare=False, repr=False)
    is_page: bool = field(init=False, compare=False, repr=False)
    max_limit: int = field(init=False, compare=False, repr=False)
    first_threshold: float | None = field(init=False, compare=False, repr=False)
    last_end: int = field(init=False, compare=False, repr=False)
    fields: Sequence[str] = field(init=False, compare=False, repr=False)
    is_plain: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("limit", "offset", "rerank_depth"):  # those of NumPy are not those of JSON
            if _is_integer(count := getattr(self, name)):
                object.__setattr__(self, name, int(count))
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
        check_tenant(self.tenant)
        self._check_content()
        _derive(self)
        self.check_query()

    def for_query(self, **changes: Any) -> SearchRequest:
        """Return a copy with other values of `PER_QUERY`, and check these.

        Raises:
            UsageError: For an invalid value.
        """
        copied = self.copy(**changes)
        copied.check_query()
        return copied

    def check_query(self) -> None:
        """Check the values of `PER_QUERY`, and what they allow of the others.

        Raises:
            UsageError: For an invalid value.
        """
        check_filter(self.meta_filter)
        self._check_page()
        self._check_scores()
        self._check_collections()

    def copy(self, **changes: Any) -> SearchRequest:
        """Return a copy with checked values in place of some; `replace` would check all again."""
        copied = object.__new__(SearchRequest)
        for name, value in zip(_OPTIONS, _options(self), strict=True):
            object.__setattr__(copied, name, changes.get(name, value))
        _derive(copied)
        return copied

    @property
    def after(self) -> Cursor | None:
        """The end of the page before, None for a page by offset."""
        return None if self.cursor is None else parse_cursor(self.cursor)

    @property
    def end(self) -> int:
        """The number of best hits up to the end of the page."""
        return min(self.start + self.limit, self.last_end)

    def depth(self, limit: int) -> int:
        """Return the number of best passages of each ranking to fuse."""
        depth = breadth(self.fusion.depth, limit)
        return depth if self.limits.points is None else min(depth, self.max_limit)

    @property
    def first_stage_limit(self) -> int:
        """The number of passages to retrieve before reranking."""
        return self.end if self.rerank_depth is None else self.rerank_depth

    def effort(self, limit: int, *, is_page: bool | None = None) -> SearchEffort:
        """Return the engine's parameters for retrieving so many passages.

        Args:
            limit: Number of passages.
            is_page: True for those of a page also if the search is not for one.
        """
        as_page = self.is_page if is_page is None else is_page
        oversampling = self._page_oversampling(limit) if as_page else self.oversampling
        return _effort(breadth(self.ef, limit), self.exact, self.rescore, oversampling)

    def _page_oversampling(self, limit: int) -> float:
        """Return the oversampling of a page; all pages to 100 score as many again."""
        if self.mode != "dense" or self.rerank_depth is not None:
            return self.oversampling
        most = PAGES + 1  # one more hit is retrieved, to notice ties
        if limit >= most:
            return self.oversampling
        return (int(self.oversampling * most) + 0.5) / limit  # engines round the product down

    def _check_page(self) -> None:
        offset = 0 if self.offset is None else self.offset
        is_offset = _is_integer(offset) and 0 <= offset < MAX_LIMIT
        if not is_offset:
            require(False, f"offset must be 0 to {MAX_LIMIT - 1:,}", offset)
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

    def _check_content(self) -> None:
        if self.diversity is not None:
            is_share = _is_number(self.diversity) and 0 <= self.diversity <= 1
            require(is_share, "diversity must be 0 to 1", self.diversity)
            object.__setattr__(self, "diversity", float(self.diversity))
        for name in ("with_vectors", "with_text"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"{name} must be True or False", value)
        names = self.with_meta
        if not isinstance(names, bool):
            is_list = isinstance(names, Sequence) and not isinstance(names, str | bytes)
            is_names = is_list and all(isinstance(name, str) and name for name in names)
            rule = "with_meta must be True, False or a list of names of fields"
            shown = [*names] if isinstance(names, tuple) else names
            require(is_names, rule, shown)
        is_count = _is_integer(self.snippets) and 0 <= self.snippets <= MAX_SNIPPETS
        require(is_count, f"snippets must be 0 to {MAX_SNIPPETS}", self.snippets)

    def _check_collections(self) -> None:
        names, merge = self.collections, self.merge
        if merge not in _MERGES:
            require(False, f"merge must be one of {', '.join(_MERGES)}", merge)
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


_OPTIONS = tuple(one.name for one in fields(SearchRequest) if one.init)
_options = attrgetter(*_OPTIONS)


def _derive(request: SearchRequest) -> None:
    """Set what follows from the options, which a search reads again and again.

    Raises:
        UsageError: For two starts of a page, or an invalid cursor.
    """
    cursor, offset, points = request.cursor, request.offset, request.limits.points
    max_limit, fusion = MAX_LIMIT, request.fusion
    if points is not None:
        max_limit = at_most(MAX_LIMIT, points // (2 if request.mode == "hybrid" else 1))
    threshold = None if request.rerank_depth is not None else request.score_threshold
    if offset is not None and cursor is not None:
        raise UsageError("pass either offset or cursor, not both")
    start = (offset or 0) if cursor is None else parse_cursor(cursor).position
    last_end, is_by_depth = max_limit, request.mode == "hybrid" and fusion.method != "convex"
    if start and is_by_depth:
        last_end = min(fusion.depth, max_limit)
    reduces = request.with_meta is not True or not request.with_text
    is_plain = not (reduces or request.with_vectors or request.snippets)
    object.__setattr__(request, "fields", HIT_FIELDS if is_plain else _fields(request))
    object.__setattr__(request, "is_plain", is_plain)
    object.__setattr__(request, "start", start)
    object.__setattr__(request, "last_end", last_end)
    object.__setattr__(request, "is_page", offset is not None or cursor is not None)
    object.__setattr__(request, "max_limit", max_limit)
    object.__setattr__(request, "first_threshold", threshold)


def _fields(request: SearchRequest) -> Sequence[str]:
    reranks = request.rerank_depth is not None
    text = ("text",) if request.with_text or request.snippets or reranks else ()
    if request.with_meta is True or (reranks and request.group_by is not None):
        return HIT_FIELDS if text else ("pid", "meta")
    names = request.with_meta or ()
    if all(_PLAIN_NAME.fullmatch(name) for name in names):
        return ("pid", *text, *(f"meta.{name}" for name in names))
    return ("pid", *text, "meta")


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

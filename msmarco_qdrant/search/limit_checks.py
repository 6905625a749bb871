"""Checks of a search by the limits of the collection's strict mode."""

from __future__ import annotations

from msmarco_qdrant.core.limits import NO_LIMITS, exact_refusal
from msmarco_qdrant.core.search_types import DEFAULT_EFFORT
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.search.request import CONVEX, SearchRequest


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

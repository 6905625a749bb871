"""Strict mode: what a collection's `strict_mode_config` makes the real server refuse.

From lib/collection/src/operations/verification (mod.rs, query.rs, update.rs, count.rs,
local_shard.rs) of qdrant/qdrant; the order of the checks is that of `check_strict_mode`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from tests.loopback.engine import Shelf
from tests.loopback.statuses import Mistake

_DEFAULT_LIMIT = 10


def scroll(shelf: Shelf, request: grpc.ScrollPoints) -> None:
    """Refuse a page that is too large, and its filter."""
    limit = request.limit if request.HasField("limit") else _DEFAULT_LIMIT
    _limit(shelf, "max_query_limit", limit, "limit")
    _read(shelf, request)


def count(shelf: Shelf, request: grpc.CountPoints) -> None:
    """Refuse an exact count, and its filter. Exact is the default."""
    _read(shelf, request)
    _exact(shelf, exact=request.exact if request.HasField("exact") else True)


def facet(shelf: Shelf, request: grpc.FacetCounts) -> None:
    """Refuse too many values, a filter and an exact count. Exact is not the default."""
    limit = request.limit if request.HasField("limit") else _DEFAULT_LIMIT
    _limit(shelf, "max_query_limit", limit, "limit")
    _read(shelf, request)
    _exact(shelf, exact=request.exact)


def batch(shelf: Shelf, request: grpc.QueryBatchPoints) -> None:
    """Refuse too many queries."""
    _limit(shelf, "search_max_batchsize", len(request.query_points), "search batch size")


def query(shelf: Shelf, request: Any) -> None:
    """Refuse a query, or a prefetch of it."""
    for prefetch in request.prefetch:
        query(shelf, prefetch)
    limit = request.limit if request.HasField("limit") else _DEFAULT_LIMIT
    _limit(shelf, "max_query_limit", limit, "limit")
    _read(shelf, request)
    params = request.params
    _limit(shelf, "search_max_oversampling", params.quantization.oversampling, "oversampling")
    _limit(shelf, "search_max_hnsw_ef", params.hnsw_ef, "hnsw_ef")
    _exact(shelf, exact=params.exact)


def upsert(shelf: Shelf, request: Any, name: str = "upsert limit") -> None:
    """Refuse too many points, and the filter of a conditional write."""
    _limit(shelf, "upsert_max_batchsize", len(request.points), name)
    if request.HasField("update_filter"):
        _filter(shelf, GrpcToRest.convert_filter(request.update_filter), "update")


def select(shelf: Shelf, selector: grpc.PointsSelector) -> None:
    """Refuse the filter of a delete or of a change of payloads."""
    if selector.WhichOneof("points_selector_one_of") == "filter":
        _filter(shelf, GrpcToRest.convert_filter(selector.filter), "update")


def _read(shelf: Shelf, request: Any) -> None:
    if request.HasField("filter"):
        _filter(shelf, GrpcToRest.convert_filter(request.filter), "retrieve")


def _setting(shelf: Shelf, name: str) -> Any:
    """A setting, None where it is not set or strict mode is off."""
    config: Any = shelf.config.strict_mode_config
    return getattr(config, name) if config.enabled and config.HasField(name) else None


def _limit(shelf: Shelf, setting: str, value: float, name: str) -> None:
    bound = _setting(shelf, setting)
    if bound is not None and value > bound:
        raise Mistake.STRICT_MODE.refusal(
            problem=f'Limit exceeded {value:g} > {bound:g} for "{name}"',
            help=f'Reduce the "{name}" parameter to or below {bound:g}.',
        )


def _exact(shelf: Shelf, *, exact: bool) -> None:
    if exact and _setting(shelf, "search_allow_exact") is False:
        raise Mistake.STRICT_MODE.refusal(problem="Exact search disabled!", help="Set exact=false.")


def _filter(shelf: Shelf, given: models.Filter, purpose: str) -> None:
    conditions = [*_conditions(given)]
    most = _setting(shelf, "filter_max_conditions")
    if most is not None and len(conditions) > most:
        raise Mistake.STRICT_MODE.refusal(
            problem=f"Filter condition limit reached ({len(conditions)} > {most})",
            help="Reduce the amount of conditions of your filter.",
        )
    most, size = _setting(shelf, "condition_max_size"), max(map(_size, conditions), default=0)
    if most is not None and size > most:
        raise Mistake.STRICT_MODE.refusal(
            problem=f"Condition size limit reached ({size} > {most})",
            help="Reduce the size of your condition.",
        )
    if _setting(shelf, f"unindexed_filtering_{purpose}") is False:
        _indexed(shelf, conditions)


def _indexed(shelf: Shelf, conditions: list[Any]) -> None:
    """Refuse the first key that has no index for one of its conditions."""
    needs: dict[str, set[str]] = {}
    missing = None
    for one in conditions:
        key, kinds = _need(one)
        if key is None:
            continue
        needs.setdefault(key, set()).update(kinds)
        index = shelf.indexes.get(key)
        kind = grpc.PayloadSchemaType.Name(index.data_type).lower() if index else None
        if missing is None and (kind is None or (kinds and kind not in kinds)):
            missing = key
    if missing is not None:
        types = ", ".join(sorted(needs[missing]))
        raise Mistake.STRICT_MODE.refusal(
            problem=f'Index required but not found for "{missing}" of one of the following '
            f"types: [{types}]",
            help="Create an index for this key or use a different filter.",
        )


def _need(one: Any) -> tuple[str | None, set[str]]:
    """The key of a condition and the kinds of index that serve it; none for any kind."""
    if isinstance(one, models.IsEmptyCondition):
        return one.is_empty.key, set()
    if isinstance(one, models.IsNullCondition):
        return one.is_null.key, set()
    return (one.key, _kinds(one)) if isinstance(one, models.FieldCondition) else (None, set())


def _kinds(one: models.FieldCondition) -> set[str]:
    """The kinds of index that serve a condition."""
    if one.range is not None:
        is_time = isinstance(one.range, models.DatetimeRange)
        return {"datetime"} if is_time else {"integer", "float"}
    if one.geo_radius or one.geo_bounding_box or one.geo_polygon:
        return {"geo"}
    if isinstance(one.match, models.MatchText):
        return {"text"}
    values = getattr(one.match, "any", None) or getattr(one.match, "except_", None)
    value = values[0] if values else getattr(one.match, "value", "")
    kinds: dict[type, str] = {bool: "bool", int: "integer"}
    return {kinds.get(type(value), "keyword")}


def _prefixed(inside: str, one: Any) -> Any:
    """A condition on a field of a nested object, by its whole path."""
    if isinstance(one, models.FieldCondition):
        return one.model_copy(update={"key": inside + one.key})
    if isinstance(one, models.IsEmptyCondition):
        field = models.PayloadField(key=inside + one.is_empty.key)
        return models.IsEmptyCondition(is_empty=field)
    return one


def _size(one: Any) -> int:
    if isinstance(one, models.HasIdCondition):
        return len(one.has_id)
    match = getattr(one, "match", None)
    return len(getattr(match, "any", None) or getattr(match, "except_", None) or ())


def _conditions(given: models.Filter) -> Iterator[Any]:
    """Every condition of a filter, nested ones too."""
    counted = given.min_should.conditions if given.min_should else []
    for clause in (given.should, given.must, given.must_not, counted):
        for one in clause if isinstance(clause, list) else [clause] if clause else []:
            if isinstance(one, models.Filter):
                yield from _conditions(one)
            elif isinstance(one, models.NestedCondition):
                inside = f"{one.nested.key.removesuffix('[]')}[]."
                yield from (_prefixed(inside, each) for each in _conditions(one.nested.filter))
            else:
                yield one

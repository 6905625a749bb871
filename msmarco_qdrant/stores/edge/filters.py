"""Conversion of qdrant-client's filters to Qdrant Edge's types."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import qdrant_edge

from msmarco_qdrant.core.filter_values import to_utc
from msmarco_qdrant.errors import MsmarcoQdrantError, UnsupportedError, UsageError
from msmarco_qdrant.stores.filters import is_fixed, list_conditions

if TYPE_CHECKING:
    from qdrant_client import models
    from qdrant_edge import ConditionType  # only in its stubs


def edge_filter(given: models.Filter) -> qdrant_edge.Filter:
    """Convert a filter.

    For a `FieldCondition` with several conditions, Edge 0.9 matches any of them, or one of them
    with a payload index; the local mode evaluates one. Use a `FieldCondition` for each.

    Raises:
        UnsupportedError: For a condition that Edge does not have.
        UsageError: For a value that Edge refuses (an invalid JSON path, UUID or coordinate).
    """
    return _fixed_filter(given) if is_fixed(given) else _edge_filter(given)


def _edge_filter(given: models.Filter) -> qdrant_edge.Filter:
    try:
        return _filter(given)
    except MsmarcoQdrantError:
        raise
    except (TypeError, ValueError, OverflowError) as exc:
        raise UsageError(f"Qdrant Edge refuses the filter: {exc}") from exc


_fixed_filter = lru_cache(maxsize=256)(_edge_filter)


def _filter(given: models.Filter) -> qdrant_edge.Filter:
    counted = None
    if (least := given.min_should) is not None:
        counted = qdrant_edge.MinShould(list(map(_condition, least.conditions)), least.min_count)
    return qdrant_edge.Filter(
        must=_conditions(given.must),
        should=_conditions(given.should),
        must_not=_conditions(given.must_not),
        min_should=counted,
    )


def _conditions(
    given: list[models.Condition] | models.Condition | None,
) -> list[ConditionType] | None:
    return None if given is None else [_condition(each) for each in list_conditions(given)]


def _condition(given: models.Condition) -> ConditionType:
    from qdrant_client import models

    edge: ConditionType
    match given:
        case models.Filter():
            edge = _filter(given)
        case models.FieldCondition():
            edge = _field(given)
        case models.IsEmptyCondition():
            edge = qdrant_edge.IsEmptyCondition(given.is_empty.key)
        case models.IsNullCondition():
            edge = qdrant_edge.IsNullCondition(given.is_null.key)
        case models.HasIdCondition():
            edge = qdrant_edge.HasIdCondition({*given.has_id})
        case models.HasVectorCondition():
            edge = qdrant_edge.HasVectorCondition(given.has_vector)
        case models.NestedCondition():
            edge = qdrant_edge.NestedCondition(given.nested.key, _filter(given.nested.filter))
        case _:
            raise _unsupported(given)
    return edge


def _field(given: models.FieldCondition) -> qdrant_edge.FieldCondition:
    fields: dict[str, Any] = {"key": given.key}
    if given.match is not None:
        fields["match"] = _match(given.match)
    if given.range is not None:
        fields["range"] = _range(given.range)
    if (box := given.geo_bounding_box) is not None:
        corners = _point(box.top_left), _point(box.bottom_right)
        fields["geo_bounding_box"] = qdrant_edge.GeoBoundingBox(*corners)
    if (circle := given.geo_radius) is not None:
        fields["geo_radius"] = qdrant_edge.GeoRadius(_point(circle.center), circle.radius)
    if (polygon := given.geo_polygon) is not None:
        holes = [_line(hole) for hole in polygon.interiors or []]
        fields["geo_polygon"] = qdrant_edge.GeoPolygon(_line(polygon.exterior), holes)
    if (count := given.values_count) is not None:
        fields["values_count"] = qdrant_edge.ValuesCount(**count.model_dump())
    return qdrant_edge.FieldCondition(**fields, is_empty=given.is_empty, is_null=given.is_null)


def _match(given: models.Match) -> Any:
    import numpy as np

    match = getattr(qdrant_edge, type(given).__name__, None)
    if match is None:
        raise _unsupported(given)
    ((_, value),) = given  # each match has one field
    # Edge 0.9 converts Python's True to the integer 1, but NumPy's to a boolean.
    return match(np.bool_(value) if isinstance(value, bool) else value)


def _range(given: models.RangeInterface) -> qdrant_edge.RangeFloat | qdrant_edge.RangeDateTime:
    from qdrant_client import models

    if isinstance(given, models.DatetimeRange):
        moments = {name: to_utc(moment).isoformat() for name, moment in given if moment}
        return qdrant_edge.RangeDateTime(**moments)
    return qdrant_edge.RangeFloat(gte=given.gte, gt=given.gt, lte=given.lte, lt=given.lt)


def _line(given: models.GeoLineString) -> list[qdrant_edge.GeoPoint]:
    return [_point(point) for point in given.points]


def _point(given: models.GeoPoint) -> qdrant_edge.GeoPoint:
    return qdrant_edge.GeoPoint(given.lon, given.lat)


def _unsupported(given: object) -> UnsupportedError:
    return UnsupportedError(
        f"Qdrant Edge has no {type(given).__name__}: leave it out of the filter, or search on a "
        "Qdrant server"
    )

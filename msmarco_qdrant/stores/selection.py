"""Which points a query is about, as one filter of Qdrant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.records import PointId
from msmarco_qdrant.search_records import PointQuery
from msmarco_qdrant.stores.filters import to_qdrant

if TYPE_CHECKING:
    from qdrant_client import models


def point_filter(query: PointQuery) -> models.Filter | None:
    """The ids and the conditions of a query; None for every point.

    A filter stands inside another one, whole: engines merge the filter of a query into those of
    its prefetches, and conditions of which some number must hold (`min_should`) would be counted
    twice.
    """
    if query.ids is None and query.meta_filter is None:
        return None
    from qdrant_client import models

    must: list[models.Condition] = []
    if query.ids is not None:
        must.append(models.HasIdCondition(has_id=[from_id(id_) for id_ in query.ids]))
    if query.meta_filter is not None:
        must.append(to_qdrant(query.meta_filter))
    return models.Filter(must=must)


def from_id(point: PointId) -> int | str:
    """A point id as the client takes it."""
    return point if isinstance(point, int) else str(point)

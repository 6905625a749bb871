"""Which points a query is about, as one filter of Qdrant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.records import PointId, PointQuery
from msmarco_qdrant.stores.filters import to_qdrant

if TYPE_CHECKING:
    from qdrant_client import models


def point_filter(query: PointQuery) -> models.Filter | None:
    """The ids and the conditions of a query; None for every point."""
    conditions = [] if query.meta_filter is None else [to_qdrant(query.meta_filter)]
    if query.ids is None:
        return conditions[0] if conditions else None
    from qdrant_client import models

    known = models.HasIdCondition(has_id=[from_id(id_) for id_ in query.ids])
    return models.Filter(must=[known, *conditions])


def from_id(point: PointId) -> int | str:
    """A point id as the client takes it."""
    return point if isinstance(point, int) else str(point)

"""Dense vectors of stored passages, by one more query to the engine."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.search_types import Hit, PointQuery, ScoredPoint
from msmarco_qdrant.errors import SchemaError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.search.step import Query, Refresh, Steps
from msmarco_qdrant.stores.foreign import pid_problem
from msmarco_qdrant.stores.payload import point_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from msmarco_qdrant.search.steps import Searcher

StoredVectors: TypeAlias = "dict[PointId, NDArray[np.float32]]"


def read_vectors(
    ids: Sequence[PointId], searcher: Searcher, scope: SearchFilter | None = None
) -> Steps[StoredVectors]:
    """Read the vectors of points; those that the collection lacks are omitted.

    Args:
        ids: The points.
        searcher: Searches the collection.
        scope: Omit points that do not match, such as those of other tenants.

    Raises:
        SchemaError: If the collection holds vectors of another model now.
    """
    if not ids:
        return {}
    import numpy as np

    name = searcher.metadata.encoder.vector_name
    query = PointQuery(None, len(ids), meta_filter=scope, ids=ids, fields=("pid",), vector=name)
    answers: list[list[ScoredPoint]] = yield Query([query])
    found = {
        point.id: np.frombuffer(
            array("f", point.vector), np.float32
        )  # a third of np.asarray's time
        for point in own_points(answers[0])
        if point.vector is not None
    }
    if len(found) < len(ids) and (yield Refresh(searcher)) is not searcher:
        raise SchemaError(f"collection '{searcher.collection}' was re-embedded")
    return found


def own_points(points: Sequence[ScoredPoint]) -> Sequence[ScoredPoint]:
    """Return the points that have their pid; the others are not passages."""
    return [point for point in points if pid_problem(point.id, point.payload) is None]


def with_vectors(found: Sequence[Sequence[Hit]], searcher: Searcher) -> Steps[list[list[Hit]]]:
    """Add the vectors of hits; omit passages deleted since they were found."""
    ids = [*dict.fromkeys(point_id(hit.pid) for hits in found for hit in hits)]
    stored = yield from read_vectors(ids, searcher)
    return [
        [
            replace(hit, vector=tuple(stored[point_id(hit.pid)].tolist()))
            for hit in hits
            if point_id(hit.pid) in stored
        ]
        for hits in found
    ]

"""A sample of queries asked of two physical collections, before a name is led to the second.

A sample of a stream of points that is the same of the same points, in whatever order.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.records import PointId
from msmarco_qdrant.core.reports import ModelComparison
from msmarco_qdrant.core.search_types import Nearest, PointQuery
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import EncodingError
from msmarco_qdrant.stores import Collection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_WORDS = 8
_TOP = 10


@dataclass(frozen=True, slots=True)
class SearchableCollection:
    """A physical collection and the encoder of its vectors."""

    collection: Collection
    encoder: Encoder


def compare(
    before: SearchableCollection | None,
    after: SearchableCollection,
    passages: Mapping[PointId, Mapping[str, Any]],
) -> ModelComparison:
    """Ask two collections for some passages by the words that these begin with.

    Args:
        before: The old collection; None if its model is not to be had.
        after: The new one.
        passages: Payloads with a text, by point.
    """
    queries = {id_: " ".join(payload["text"].split()[:_WORDS]) for id_, payload in passages.items()}
    new = _answers(after, queries)
    old = _answers(before, queries) if before is not None else None
    asked = [id_ for id_ in queries if id_ in new and (old is None or id_ in old)]
    overlaps = (
        [len({*old[id_]} & {*new[id_]}) / max(len(old[id_]), 1) for id_ in asked] if old else []
    )
    return ModelComparison(
        queries=len(asked),
        found_before=None if old is None else sum(id_ in old[id_] for id_ in asked),
        found_after=sum(id_ in new[id_] for id_ in asked),
        overlap=sum(overlaps) / len(overlaps) if overlaps else None,
    )


def _answers(
    place: SearchableCollection, queries: Mapping[PointId, str]
) -> Mapping[PointId, Sequence[PointId]]:
    """The points that each query finds; a query without a vector is left out."""
    vectors = _vectors(place.encoder, queries)
    using = place.encoder.info.vector_name
    point_queries = [
        PointQuery(Nearest(vector, using), _TOP, fields=()) for vector in vectors.values()
    ]
    answers = place.collection.query(point_queries) if point_queries else []
    return {id_: [hit.id for hit in hits] for id_, hits in zip(vectors, answers, strict=True)}


def _vectors(
    encoder: Encoder, queries: Mapping[PointId, str]
) -> Mapping[PointId, NDArray[np.float32]]:
    """The vectors of those queries that have one; a passage may have its own by other words."""
    if not queries:
        return {}
    try:
        return dict(zip(queries, encoder.encode_queries([*queries.values()]), strict=True))
    except EncodingError:
        found = {}
        for id_, query in queries.items():
            with suppress(EncodingError):
                found[id_] = encoder.encode_queries([query])[0]
        return found


_SIZE = 64


class Sample:
    """The points whose pids have the highest digests.

    Args:
        size: How many are kept at most.
    """

    def __init__(self, size: int = _SIZE) -> None:
        self._size = size
        self._kept: list[tuple[bytes, str, PointId]] = []

    def add(self, id_: PointId, pid: str) -> None:
        """Meet a point; each once."""
        one = (hashlib.blake2b(pid.encode(), digest_size=8).digest(), pid, id_)
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, one)
        elif one > self._kept[0]:
            heapq.heapreplace(self._kept, one)

    @property
    def ids(self) -> Sequence[PointId]:
        """The points that were kept."""
        return [id_ for *_, id_ in sorted(self._kept, reverse=True)]

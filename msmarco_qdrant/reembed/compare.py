"""Compare the search results of two physical collections on sample queries."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.limits import at_most
from msmarco_qdrant.core.reports import ModelComparison
from msmarco_qdrant.core.search_types import Nearest, PointQuery
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.checks import encode_queries
from msmarco_qdrant.errors import EncodingError
from msmarco_qdrant.stores import Collection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_QUERY_WORDS = 8
_HITS = 10
_SAMPLE_SIZE = 64


@dataclass(frozen=True, slots=True)
class SearchableCollection:
    """A physical collection and the encoder of its vectors."""

    collection: Collection
    encoder: Encoder


class Sample:
    """A sample of points that does not depend on their order: those with the highest pid digests.

    Args:
        size: Maximum number of points in the sample.
    """

    def __init__(self, size: int = _SAMPLE_SIZE) -> None:
        self._size = size
        self._heap: list[tuple[bytes, str, PointId]] = []

    def add(self, id_: PointId, pid: str) -> None:
        """Offer a point to the sample; each only once."""
        entry = (hashlib.blake2b(pid.encode(), digest_size=8).digest(), pid, id_)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def merge(self, other: Sample) -> None:
        """Offer the points of another sample, which has none of this one's."""
        self._heap = heapq.nlargest(self._size, [*self._heap, *other._heap])
        heapq.heapify(self._heap)

    @property
    def ids(self) -> Sequence[PointId]:
        """The points of the sample."""
        return [id_ for *_, id_ in sorted(self._heap, reverse=True)]


def compare_models(
    before: SearchableCollection | None,
    after: SearchableCollection,
    passages: Mapping[PointId, Mapping[str, Any]],
    max_hits: int | None = None,
) -> ModelComparison:
    """Search two collections for passages by the first words of their texts.

    Args:
        before: The old collection; None if its model is not available.
        after: The new collection.
        passages: Payloads with a text, by point.
        max_hits: The most hits that a query may have; None for no limit.
    """
    hits = at_most(_HITS, max_hits)
    queries = {
        id_: " ".join(payload["text"].split()[:_QUERY_WORDS]) for id_, payload in passages.items()
    }
    new = _search(after, queries, hits)
    old = _search(before, queries, hits) if before is not None else None
    compared = [id_ for id_ in queries if id_ in new and (old is None or id_ in old)]
    overlaps = (
        [len({*old[id_]} & {*new[id_]}) / max(len(old[id_]), 1) for id_ in compared] if old else []
    )
    return ModelComparison(
        queries=len(compared),
        found_before=None if old is None else sum(id_ in old[id_] for id_ in compared),
        found_after=sum(id_ in new[id_] for id_ in compared),
        overlap=sum(overlaps) / len(overlaps) if overlaps else None,
    )


def _search(
    searched: SearchableCollection, queries: Mapping[PointId, str], hits: int
) -> Mapping[PointId, Sequence[PointId]]:
    """The points found by each query; queries without a vector are skipped."""
    vectors = _encode(searched.encoder, queries)
    using = searched.collection.spec().dense
    point_queries = [
        PointQuery(Nearest(vector, using), hits, fields=()) for vector in vectors.values()
    ]
    answers = searched.collection.query(point_queries) if point_queries else []
    return {id_: [hit.id for hit in hits] for id_, hits in zip(vectors, answers, strict=True)}


def _encode(
    encoder: Encoder, queries: Mapping[PointId, str]
) -> Mapping[PointId, NDArray[np.float32]]:
    """Encode the queries; those without a vector are skipped, though their passages have one."""
    if not queries:
        return {}
    try:
        return dict(zip(queries, encode_queries(encoder, [*queries.values()]), strict=True))
    except EncodingError:
        found = {}
        for id_, query in queries.items():
            with suppress(EncodingError):
                found[id_] = encode_queries(encoder, [query])[0]
        return found

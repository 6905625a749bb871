"""The order of the hits of several collections of one model.

Hits of the same pid in two collections are two hits: a token names a hit among those of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.encoder_types import Similarity
from msmarco_qdrant.core.search_types import Fusion, Hit, ScoredPoint
from msmarco_qdrant.search.ranking import fuse
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.search.ties import merge_rounded, merge_rounded_hits, rank_key

_K: Final = 60  # of reciprocal rank fusion


class CombinedOrder:
    """The order of the hits of several collections.

    Args:
        names: The collections, in the caller's order, which is that of equal scores.
        request: The request for the ranking of all.

    Attributes:
        names: As given.
    """

    def __init__(self, names: Sequence[str], request: SearchRequest) -> None:
        self.names = names
        self._request = request
        self._places = {name: place for place, name in enumerate(names)}
        self._tokens = {str(place): place for place in range(len(names))}

    def merge(self, rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
        """Make one ranking of those of the collections."""
        merged = [
            replace(hit, collection=name)
            for name, ranking in zip(self.names, rankings, strict=True)
            for hit in ranking
        ]
        if self._request.merge == "rrf":
            merged = [replace(hit, score=1 / (_K + hit.rank)) for hit in merged]
        elif self._request.mode == "dense":
            merged = merge_rounded_hits(self.sort(merged))
        return self.sort(merged)

    def sort(self, hits: Sequence[Hit]) -> list[Hit]:
        """Sort hits; see `key`."""
        return sorted(hits, key=lambda hit: self.key(hit.score, self.token(hit)))

    def place(self, hit: Hit) -> int:
        """Return the position of a hit's collection."""
        return self._places[str(hit.collection)]

    def token(self, hit: Hit) -> str:
        """Return the name of a hit among those of all collections, for cursors."""
        return f"{self.place(hit)} {hit.pid}"

    def key(self, score: float, token: str) -> tuple[Any, ...]:
        """Return the sort key of a hit: by descending score.

        Equal scores are in the order of the pids, as in one collection; equal ranks in the order of
        the collections.
        """
        place, _, pid = token.partition(" ")
        negative, by_pid = rank_key(score, pid)
        by_place = self._tokens.get(place, 0)
        is_by_rank = self._request.merge == "rrf"
        return (negative, by_place, by_pid) if is_by_rank else (negative, by_pid, by_place)


def fuse_collections(
    inputs: Sequence[Sequence[Sequence[ScoredPoint]]],
    fusion: Fusion,
    *,
    depth: int,
    similarity: Similarity,
) -> list[ScoredPoint]:
    """Fuse the candidates of several collections at once, as of one collection.

    Args:
        inputs: The candidates of each collection by dense score, and those by BM25 score.
        fusion: Method and weights.
        depth: See `fuse`.
        similarity: Kind of the dense score.

    Returns:
        The best first; the payload has the point's id by the position of its collection.
    """
    numbers: dict[tuple[int, PointId], int] = {}

    def number(place: int, id_: PointId) -> int:
        return numbers.setdefault((place, id_), len(numbers))

    def join(rankings: Sequence[Sequence[ScoredPoint]]) -> list[ScoredPoint]:
        points = [
            ScoredPoint(number(place, point.id), point.score, {str(place): point.id})
            for place, ranking in enumerate(rankings)
            for point in ranking
        ]
        return sorted(points, key=lambda point: -point.score)

    dense = merge_rounded(join([both[0] for both in inputs]))
    bm25 = join([both[1] for both in inputs])
    return fuse(dense, bm25, fusion, depth=depth, similarity=similarity)

"""Order of passages with equal scores, so that pages of different limits fit together.

Engines return points with equal scores in any order, and with a limit any of them. Here they are in
the order of their pids: numbers by value, then other pids as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter, gt, sub

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.search_types import Hit, ScoredPoint
from msmarco_qdrant.stores.payload import point_id

_NEAR, _WIDER = 128, 1024
_score = attrgetter("score")
ROUNDING = 2.5e-7  # two units in the last place of float32


def wider_limits(limit: int, most: int) -> Sequence[int]:
    """Return the numbers of points to ask for, one after the other, while a tie goes on.

    The last is the same for all limits up to 512, so that their pages agree even if more points
    than this have one score. The first costs little: a search of the graph considers as many.
    """
    double = 1 << (2 * int(limit) - 1).bit_length()
    return [min(max(least, double), most) for least in (_NEAR, _WIDER)]


def is_open(points: Sequence[ScoredPoint], limit: int, asked: int) -> bool:
    """True if points after those asked for may have the score of the last one of the limit."""
    return len(points) >= asked > limit and points[-1].score == points[limit - 1].score


def with_tied(points: Sequence[ScoredPoint], limit: int) -> Sequence[ScoredPoint]:
    """Return the first points, and those after the limit with the score of the last one."""
    end = limit
    while len(points) > end and points[end].score == points[limit - 1].score:
        end += 1
    return points[:end]


def is_ranking(points: Sequence[ScoredPoint]) -> bool:
    """True if scores descend by more than the rounding of float32, so that no order is left."""
    scores = [*map(_score, points)]
    if not scores:
        return True
    widest = ROUNDING * max(1.0, abs(scores[0]), abs(scores[-1]))  # of descending scores
    if all(map(widest.__lt__, map(sub, scores, scores[1:]))):
        return True
    return all(one - another > ROUNDING * max(1.0, abs(one)) for one, another in pairwise(scores))


def has_choice(
    chosen: Sequence[ScoredPoint], candidates: Sequence[ScoredPoint], depth: int
) -> bool:
    """True if points were chosen that an engine could replace by others with the same scores.

    Args:
        chosen: Points that were chosen among the best ones.
        candidates: The best points, the best first, and one more if there is one.
        depth: The number of best points.
    """
    if is_ranking(candidates):
        return False
    tied: set[PointId] = set()
    for place, (one, another) in enumerate(pairwise(candidates), start=1):
        if one.score - another.score <= ROUNDING * max(1.0, abs(one.score)):
            if place == depth:  # any of them may be a candidate
                return True
            tied |= {one.id, another.id}
    return any(one.id in tied for one in chosen)


def sort_by_id(points: Sequence[ScoredPoint]) -> list[ScoredPoint]:
    """Sort points by descending score; ties by point id, for points without payload."""
    return sorted(points, key=lambda point: (-point.score, _id_order(point.id)))


def sort_by_pid(points: Sequence[ScoredPoint]) -> list[ScoredPoint]:
    """Sort points by descending score; ties by pid, those without one last."""
    scores = [*map(_score, points)]
    if all(map(gt, scores, scores[1:])):
        return [*points]
    return sorted(points, key=_point_key)


def sort_hits(hits: Sequence[Hit]) -> list[Hit]:
    """Sort hits by descending score; ties by pid."""
    return sorted(hits, key=lambda hit: rank_key(hit.score, hit.pid))


def rank_key(score: float, pid: str) -> tuple[float, tuple[int, int, str]]:
    """Return the sort key of a passage in a ranking: by descending score; ties by pid."""
    return -score, _pid_order(pid, 0)


def complete_tie(
    points: Sequence[ScoredPoint], wider: Sequence[ScoredPoint], limit: int
) -> list[ScoredPoint]:
    """Replace the points with the score of the limit by all those of a wider ranking.

    Points with better scores stay as they are, so that shorter pages have the same ones.
    """
    score = points[limit - 1].score
    better = [point for point in points[:limit] if point.score > score]
    width, known = ROUNDING * max(1.0, abs(score)), {point.id for point in better}
    tied = {
        point.id: replace(point, score=score)
        for point in (*wider, *points)
        if abs(point.score - score) <= width and point.id not in known
    }
    return [*better, *tied.values()]


def extend_ranking(
    points: Sequence[ScoredPoint], wider: Sequence[ScoredPoint]
) -> list[ScoredPoint]:
    """Return a ranking, and after its last point those of a wider one that belong there.

    Its points stay as they are, so that a shorter result is the start of a longer one. Both have
    pids and are sorted by them.
    """
    if not points:
        return [*wider]
    known, last = {point.id for point in points}, _point_key(points[-1])
    return [*points, *(p for p in wider if p.id not in known and _point_key(p) > last)]


def merge_rounded(points: Sequence[ScoredPoint]) -> list[ScoredPoint]:
    """Return points, the best first, with equal scores where only the rounding of float32 differs.

    The same vector can have other last bits in another place of an engine's memory.
    """
    scores = _round([*map(_score, points)])
    return [p if p.score == s else replace(p, score=s) for p, s in zip(points, scores, strict=True)]


def merge_rounded_hits(hits: Sequence[Hit]) -> list[Hit]:
    """Return hits, the best first, with equal scores where only the rounding differs."""
    scores = _round([hit.score for hit in hits])
    return [h if h.score == s else replace(h, score=s) for h, s in zip(hits, scores, strict=True)]


def _round(scores: Sequence[float]) -> list[float]:
    merged = [*scores[:1]]
    for score in scores[1:]:
        first = merged[-1]
        merged.append(first if 0 < first - score <= ROUNDING * max(1.0, abs(first)) else score)
    return merged


def clip_cosines(points: Sequence[ScoredPoint]) -> Sequence[ScoredPoint]:
    """Return points with scores in [-1, 1], which the rounding of float32 exceeds."""
    scores = [*map(_score, points)]
    if not scores or (min(scores) >= -1 and max(scores) <= 1):
        return points
    return [replace(point, score=min(max(point.score, -1.0), 1.0)) for point in points]


def _point_key(point: ScoredPoint) -> tuple[float, tuple[int, int, str]]:
    return -point.score, _pid_order(point.payload.get("pid"), point.id)


def _id_order(id_: PointId) -> tuple[bool, int]:
    return (False, id_) if isinstance(id_, int) else (True, id_.int)


def _pid_order(pid: object, id_: PointId) -> tuple[int, int, str]:
    if not isinstance(pid, str):
        return 2, _id_order(id_)[1], ""
    number = point_id(pid) if pid.isdecimal() else None
    return (0, number, "") if isinstance(number, int) else (1, 0, pid)

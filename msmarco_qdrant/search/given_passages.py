"""Ranking of given passages, of one collection or of several. Steps without I/O, as in `steps`.

Each passage is scored exactly. Scores that depend on other passages (ranks, the query's best BM25
score) depend on the given ones alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msmarco_qdrant.collection.tenants import is_tenants
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.search_types import Fusion, Hit, ScoredPoint, SearchMode
from msmarco_qdrant.search.combined_order import CombinedOrder, fuse_collections
from msmarco_qdrant.search.combined_ranking import Part, encode_for
from msmarco_qdrant.search.options import RankOptions
from msmarco_qdrant.search.point_parts import (
    QueryVectors,
    payloads_of,
    retrieve_payloads,
    score_queries,
)
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.search.step import Steps, together
from msmarco_qdrant.search.steps import Searcher, renumber, rerank_hits
from msmarco_qdrant.search.ties import sort_by_pid
from msmarco_qdrant.stores.payload import point_id


@dataclass(frozen=True, slots=True, eq=False)
class ScoredPassages:
    """Those of a query's passages that a collection holds.

    Attributes:
        answers: The points by each score that the mode needs, the best first.
        payloads: The payload of each point.
    """

    answers: Sequence[Sequence[ScoredPoint]]
    payloads: Mapping[PointId, dict[str, Any]]


def rank_passages(
    searcher: Searcher,
    queries: Sequence[str],
    pids: Sequence[Sequence[str]],
    fusion: Fusion,
    options: RankOptions,
) -> Steps[list[list[Hit]]]:
    """Return for each query those of its pids that the collection holds, the best first."""
    mode = options.get("mode", "dense")
    ids = yield from _find_ids(searcher, pids, options.get("tenant"))
    vectors = yield from searcher.encode(queries, mode)
    scored = yield from _score(searcher, vectors, ids, mode)
    found = [_to_hits(searcher, one, mode, fusion) for one in scored]
    if options.get("rerank"):
        sigmoid = options.get("rerank_sigmoid", False)
        found = yield from rerank_hits(queries, found, sigmoid=sigmoid)
    return [renumber(hits, 0) for hits in found]


def rank_of_several(
    parts: Sequence[Part],
    request: SearchRequest,
    queries: Sequence[str],
    pids: Sequence[Sequence[str]],
    options: RankOptions,
) -> Steps[list[list[Hit]]]:
    """Return one ranking for each query: its pids are looked up in each of several collections.

    Args:
        parts: The collections, in the caller's order, which is that of equal scores.
        request: The mode, fusion, tenant and merge of the ranking of all.
        queries: The queries.
        pids: The pids of each query.
        options: The options of the ranking.
    """
    order = CombinedOrder([part.searcher.collection for part in parts], request)
    ids = yield from together(
        [(part.session, _find_ids(part.searcher, pids, request.tenant)) for part in parts]
    )
    vectors = yield from encode_for(parts, queries, request.mode)
    scored = yield from together(
        [
            (part.session, _score(part.searcher, its_vectors, its_ids, request.mode))
            for part, its_vectors, its_ids in zip(parts, vectors, ids, strict=True)
        ]
    )
    found = [
        _rank_all(parts, order, request, [each[query] for each in scored])
        for query in range(len(queries))
    ]
    if options.get("rerank"):
        sigmoid = options.get("rerank_sigmoid", False)
        found = yield from rerank_hits(queries, found, sigmoid=sigmoid)
        found = [order.sort(hits) for hits in found]
    return [renumber(hits, 0) for hits in found]


def _find_ids(
    searcher: Searcher, pids: Sequence[Sequence[str]], tenant: str | None
) -> Steps[Sequence[Sequence[PointId]]]:
    """Return the points of each list of pids, each once; with tenants only this one's."""
    ids = [[point_id(pid) for pid in dict.fromkeys(given)] for given in pids]
    if searcher.scope(tenant) is None:
        return ids
    stored = yield from retrieve_payloads(ids)  # before scores: they depend on the others
    return [
        [
            id_
            for id_, payload in payloads.items()
            if is_tenants(searcher.metadata, payload.get("meta") or {}, tenant)
        ]
        for payloads in stored
    ]


def _score(
    searcher: Searcher,
    vectors: Sequence[QueryVectors],
    ids: Sequence[Sequence[PointId]],
    mode: SearchMode,
) -> Steps[list[ScoredPassages]]:
    """Score the points of each query that exist."""
    plans = [score_queries(one, given) for one, given in zip(vectors, ids, strict=True)]
    rankings = yield from searcher.retriever.query(plans)
    if mode == "bm25":  # its ranking omits passages without a word of the query
        payloads = yield from retrieve_payloads(ids)
    else:
        payloads = [payloads_of(*answers[:1]) for answers in rankings]
    return [ScoredPassages(*both) for both in zip(rankings, payloads, strict=True)]


def _to_hits(
    searcher: Searcher, scored: ScoredPassages, mode: SearchMode, fusion: Fusion
) -> list[Hit]:
    """Rank the passages of a query; one without a token of it has a BM25 score of 0."""
    payloads = scored.payloads
    ranked = scored.answers[0] if scored.answers else ()
    if mode == "hybrid":
        depth = max(fusion.depth, len(payloads))
        ranked = searcher.retriever.fuse_answers(scored.answers, fusion, depth)
    scores = {point.id: point.score for point in ranked if point.id in payloads}
    if mode == "bm25":
        scores |= {id_: 0.0 for id_ in payloads if id_ not in scores}
    points = [ScoredPoint(id_, score, payloads[id_]) for id_, score in scores.items()]
    return searcher.retriever.to_hits(sort_by_pid(points))


def _rank_all(
    parts: Sequence[Part],
    order: CombinedOrder,
    request: SearchRequest,
    scored: Sequence[ScoredPassages],
) -> list[Hit]:
    """Rank the passages that all collections hold of one query's."""
    if request.mode == "hybrid" and request.merge == "scores":
        return _fuse_all(parts, order, request.fusion, scored)
    rankings = [
        _to_hits(part.searcher, one, request.mode, part.request.fusion)
        for part, one in zip(parts, scored, strict=True)
    ]
    return order.merge(rankings)


def _fuse_all(
    parts: Sequence[Part],
    order: CombinedOrder,
    fusion: Fusion,
    scored: Sequence[ScoredPassages],
) -> list[Hit]:
    """Fuse the scores of all passages at once, as of one collection."""
    depth = max(fusion.depth, sum(len(one.payloads) for one in scored))
    inputs = [(*one.answers, [], [])[:2] for one in scored]
    similarity = parts[0].searcher.metadata.encoder.similarity
    fused = fuse_collections(inputs, fusion, depth=depth, similarity=similarity)
    found: list[Hit] = []
    for place, (part, one) in enumerate(zip(parts, scored, strict=True)):
        name, key = part.searcher.collection, str(place)
        ids = [(point.payload[key], point.score) for point in fused if key in point.payload]
        points = [ScoredPoint(id_, score, one.payloads[id_]) for id_, score in ids]
        hits = part.searcher.retriever.to_hits(points)
        found += [replace(hit, collection=name) for hit in hits]
    return order.sort(found)

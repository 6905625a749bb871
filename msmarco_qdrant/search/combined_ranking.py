"""The ranking of several collections of one model; see `combined`. Steps without I/O.

The dense scores of all collections are on one scale, as the vectors of one model are compared with
one query vector. "hybrid" fuses the candidates of all of them at once. BM25 scores are comparable
as far as words are equally rare: each collection has its own weights of words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.search_types import Hit, Nearest, ScoredPoint, SearchMode
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.search.combined_order import CombinedOrder, fuse_collections
from msmarco_qdrant.search.content import add_content
from msmarco_qdrant.search.diversity import CANDIDATES, candidate_request, diversify
from msmarco_qdrant.search.pages import PageCursors, page_slice
from msmarco_qdrant.search.point_parts import QueryVectors, with_parts
from msmarco_qdrant.search.ranking import best_per_group
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.search.step import Encode, Steps, together
from msmarco_qdrant.search.steps import Searcher, group_limits, renumber, rerank_hits
from msmarco_qdrant.search.stored_vectors import StoredVectors, read_vectors, with_vectors
from msmarco_qdrant.search.thresholds import check_threshold
from msmarco_qdrant.search.ties import with_tied
from msmarco_qdrant.stores.filters import without_points
from msmarco_qdrant.stores.payload import point_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from msmarco_qdrant.search.session import SearchSession


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One of the collections that are searched together."""

    session: SearchSession
    searcher: Searcher
    request: SearchRequest


def _without(request: SearchRequest, ids: Sequence[PointId]) -> SearchRequest:
    """Return a request that leaves out points."""
    return request.copy(meta_filter=without_points(request.meta_filter, ids)) if ids else request


def encode_for(
    parts: Sequence[Part], queries: Sequence[str], mode: SearchMode
) -> Steps[list[list[QueryVectors]]]:
    """Return for each collection the vectors of the queries, which are encoded once."""
    encoded: NDArray[np.float32] | None = None
    if mode != "bm25":
        encoded = yield Encode(parts[0].searcher.encoder, queries)
    vectors = []
    for part in parts:
        searcher, name = part.searcher, part.searcher.metadata.encoder.vector_name
        bm25 = [None if mode == "dense" else searcher.encode_bm25(query) for query in queries]
        rows: Sequence[Any] = [None] * len(queries) if encoded is None else [*encoded]
        dense = [None if row is None else Nearest(row, name) for row in rows]
        vectors.append([QueryVectors(*both) for both in zip(dense, bm25, strict=True)])
    return vectors


class CombinedSearch:
    """A search of several collections of one model.

    Args:
        parts: The collections, in the caller's order, which is that of equal scores.
        request: The request for the ranking of all.
    """

    def __init__(self, parts: Sequence[Part], request: SearchRequest) -> None:
        self._parts = parts
        self._request = request
        self._order = CombinedOrder([part.searcher.collection for part in parts], request)
        self._vectors: Sequence[Sequence[QueryVectors]] = ()

    def search(self, queries: Sequence[str]) -> Steps[list[Hits]]:
        """Return the page of hits of each query."""
        given = self._request.meta_filter
        yield from self._prepare()
        self._vectors = yield from encode_for(self._parts, queries, self._request.mode)
        return (yield from self._answer(queries, given))

    def similar(
        self, target: NDArray[np.float32], examples: Mapping[str, Sequence[PointId]]
    ) -> Steps[Hits]:
        """Return the page of hits for a vector.

        Args:
            target: The vector, float32 `(dimension,)`.
            examples: The points to leave out, by collection.
        """
        given = self._request.meta_filter
        yield from self._prepare()
        self._parts = [
            replace(
                part, request=_without(part.request, examples.get(part.searcher.collection, ()))
            )
            for part in self._parts
        ]
        names = [part.searcher.metadata.encoder.vector_name for part in self._parts]
        self._vectors = [[QueryVectors(Nearest(target, name), None)] for name in names]
        (hits,) = yield from self._answer([f"similar {target.tobytes().hex()}"], given)
        return hits

    def _answer(self, queries: Sequence[str], given: SearchFilter | None) -> Steps[list[Hits]]:
        """Return the page of each query, with its cursor; `given` is the filter of the caller."""
        first = self._parts[0].searcher
        cursors = PageCursors(self._request, first.metadata, repr([*self._order.names]))
        if not isinstance(given, Mapping | None):
            cursors.fix()  # a caller may change a filter of Qdrant before a cursor is read
        if self._request.after is not None:
            cursors.check(self._request.after, queries[0])
        found = yield from self._pages(queries)
        if given is not None and not self._request.start:
            yield from self._check_fields(given, found)
        found = yield from self._add_content(queries, found)
        pages = [renumber(hits, self._request.start) for hits in found]
        return [
            Hits(hits, cursor=partial(cursors.after, self._named(hits), query))
            for hits, query in zip(pages, queries, strict=True)
        ]

    def _prepare(self) -> Steps[None]:
        """Check the threshold; convert and check the filter, of the tenant's passages."""
        for part in self._parts:
            if (threshold := self._request.score_threshold) is not None:
                similarity = part.searcher.metadata.encoder.similarity
                check_threshold(threshold, self._request, similarity)
        prepared = yield from together(
            [(one.session, one.searcher.prepare_filter(one.request)) for one in self._parts]
        )
        self._parts = [
            replace(part, request=request)
            for part, request in zip(self._parts, prepared, strict=True)
        ]
        self._request = self._request.copy(meta_filter=prepared[0].meta_filter)

    def _pages(self, queries: Sequence[str]) -> Steps[list[list[Hit]]]:
        request = self._request
        if request.diversity:
            return (yield from self._diverse_pages(queries))
        end = request.end
        while True:
            found = yield from self._rank(queries, request, end)
            pages = [self._cut(hits) for hits in found]
            is_full = request.after is None or all(len(page) == request.limit for page in pages)
            is_whole = request.rerank_depth is not None or all(len(hits) < end for hits in found)
            if is_full or is_whole or end >= request.max_limit:
                return pages
            end = min(2 * end, request.max_limit)  # other passages were written before the page

    def _diverse_pages(self, queries: Sequence[str]) -> Steps[list[list[Hit]]]:
        """Return the page of each query in the order of maximal marginal relevance."""
        request = candidate_request(self._request)
        found = yield from self._rank(queries, request, request.limit)
        heads = [hit for hits in found for hit in hits[:CANDIDATES]]
        stored = yield from self._read_vectors(heads)
        scaled = self._request
        if request.merge == "rrf" and request.rerank_depth is None:
            scaled = replace(scaled, mode="bm25")  # its scores are not on the scale of cosines
        pages = []
        for hits in found:
            named = {self._order.token(hit): hit for hit in hits}
            tokens = [replace(hit, pid=token) for token, hit in named.items()]
            pages.append([named[hit.pid] for hit in diversify(tokens, stored, scaled)])
        return pages

    def _read_vectors(self, hits: Sequence[Hit]) -> Steps[StoredVectors]:
        """Return the vectors of hits, by the point ids of their tokens."""
        wanted: list[dict[Any, str]] = [{} for _ in self._parts]
        for hit in hits:
            wanted[self._order.place(hit)][point_id(hit.pid)] = self._order.token(hit)
        read = yield from together(
            [
                (part.session, read_vectors([*ids], part.searcher))
                for part, ids in zip(self._parts, wanted, strict=True)
            ]
        )
        return {
            point_id(tokens[id_]): vector
            for tokens, vectors in zip(wanted, read, strict=True)
            for id_, vector in vectors.items()
        }

    def _rank(
        self, queries: Sequence[str], request: SearchRequest, limit: int
    ) -> Steps[list[list[Hit]]]:
        """Return the best hits of each query, reranked and grouped."""
        field, depth = request.group_by, request.rerank_depth
        if depth is None:
            if field is None:
                return (yield from self._retrieve(len(queries), limit))
            return (yield from self._group(len(queries), request, field, limit))
        found = yield from self._retrieve(len(queries), depth)
        found = yield from rerank_hits(queries, found, sigmoid=request.rerank_sigmoid)
        least = request.score_threshold
        found = [
            [hit for hit in self._order.sort(hits) if least is None or hit.score >= least]
            for hits in found
        ]
        return found if field is None else [best_per_group(hits, field) for hits in found]

    def _group(
        self, queries: int, request: SearchRequest, field: str, limit: int
    ) -> Steps[list[list[Hit]]]:
        """Return the best hit of each group; retrieve more until there are enough groups."""
        best: list[list[Hit]] = []
        for wanted in group_limits(replace(request, limit=limit, offset=None, cursor=None)):
            found = yield from self._retrieve(queries, wanted)
            best = [best_per_group(hits, field) for hits in found]
            pairs = zip(best, found, strict=True)
            if all(len(groups) >= limit or len(hits) < wanted for groups, hits in pairs):
                break
        return [hits[:limit] for hits in best]

    def _retrieve(self, queries: int, limit: int) -> Steps[list[list[Hit]]]:
        """Return the best hits of each query, before reranking."""
        if self._request.mode == "hybrid" and self._request.merge == "scores":
            return (yield from self._fuse(queries, limit))
        found = yield from together(
            [
                (part.session, part.searcher.retriever.retrieve(vectors, part.request, limit))
                for part, vectors in zip(self._parts, self._vectors, strict=True)
            ]
        )
        return [
            self._order.merge([each[query] for each in found])[:limit] for query in range(queries)
        ]

    def _fuse(self, queries: int, limit: int) -> Steps[list[list[Hit]]]:
        """Fuse the dense and the BM25 candidates of all collections, as of one collection."""
        wanted = limit
        while True:
            inputs = yield from together(
                [
                    (part.session, part.searcher.retriever.fusion_inputs(its, part.request, wanted))
                    for part, its in zip(self._parts, self._vectors, strict=True)
                ]
            )
            by_query = [[each[query] for each in inputs] for query in range(queries)]
            fused = [self._fuse_one(candidates, wanted) for candidates in by_query]
            found = yield from self._read(fused)
            pairs = zip(found, fused, strict=True)
            if wanted >= self._request.max_limit or all(
                len(hits) >= limit or len(points) < wanted for hits, points in pairs
            ):
                return [self._order.sort(hits)[:limit] for hits in found]
            wanted = min(2 * wanted, self._request.max_limit)  # some points are not passages

    def _fuse_one(
        self, inputs: Sequence[tuple[Sequence[ScoredPoint], Sequence[ScoredPoint]]], limit: int
    ) -> list[ScoredPoint]:
        """Return the best points of one query; the payload has the collection and its id there."""
        request, similarity = self._request, self._parts[0].searcher.metadata.encoder.similarity
        depth, least = request.depth(limit), request.first_threshold
        fused = fuse_collections(inputs, request.fusion, depth=depth, similarity=similarity)
        kept = [point for point in fused if least is None or point.score >= least]
        return [*with_tied(kept, limit)]

    def _read(self, rankings: Sequence[Sequence[ScoredPoint]]) -> Steps[list[list[Hit]]]:
        """Read the passages of points that `_fuse_one` returned."""
        reads = []
        for place, part in enumerate(self._parts):
            own = [
                [
                    replace(point, id=point.payload[str(place)])
                    for point in points
                    if str(place) in point.payload
                ]
                for points in rankings
            ]
            parts = part.searcher.retriever.parts_of(part.request)
            steps = with_parts(self._vectors[place], own, parts)
            reads.append((part.session, steps))
        read = yield from together(reads)
        found: list[list[Hit]] = [[] for _ in rankings]
        for part, answers in zip(self._parts, read, strict=True):
            retriever, name = part.searcher.retriever, part.searcher.collection
            for hits, points in zip(found, answers, strict=True):
                passages = retriever.to_hits(points, retriever.parts_of(part.request))
                hits += [replace(hit, collection=name) for hit in passages]
        return found

    def _check_fields(self, given: SearchFilter, found: Sequence[Sequence[Hit]]) -> Steps[None]:
        """Warn of fields that no collection has."""
        tenant = self._request.tenant
        checks = [
            (part.session, part.searcher.filters.notes(given, found, part.searcher.scope(tenant)))
            for part in self._parts
        ]
        notes = yield from together(checks)
        common = [note for note in notes[0] if all(note in other for other in notes)]
        self._parts[0].searcher.filters.report(common)

    def _add_content(
        self, queries: Sequence[str], found: Sequence[list[Hit]]
    ) -> Steps[list[list[Hit]]]:
        hits = [*found]
        if self._request.with_vectors:
            hits = yield from self._with_vectors(hits)
        plain, first = replace(self._request, with_vectors=False), self._parts[0].searcher
        return (yield from add_content(queries, hits, plain, first))

    def _with_vectors(self, found: Sequence[Sequence[Hit]]) -> Steps[list[list[Hit]]]:
        """Add the vectors of hits; omit passages deleted since they were found."""
        reads = []
        for place, part in enumerate(self._parts):
            own = [[hit for hit in hits if self._order.place(hit) == place] for hits in found]
            reads.append((part.session, with_vectors(own, part.searcher)))
        read = yield from together(reads)
        stored = {
            self._order.token(hit): hit.vector for each in read for hits in each for hit in hits
        }
        return [
            [
                replace(hit, vector=stored[self._order.token(hit)])
                for hit in hits
                if self._order.token(hit) in stored
            ]
            for hits in found
        ]

    def _cut(self, hits: Sequence[Hit]) -> list[Hit]:
        ranking = [(hit.score, self._order.token(hit)) for hit in hits]
        return [*hits[page_slice(ranking, self._request, self._order.key)]]

    def _named(self, hits: Sequence[Hit]) -> list[Hit]:
        return [replace(hit, pid=self._order.token(hit)) for hit in hits]

"""Steps of a search, without the I/O that executes them.

The generators below yield a step (`Encode`, `Query`, ...), are sent its result, and return hits.
The blocking and the asyncio client thus share them.

One `Searcher`, and so one model, serves a search from its first to its last step. Each query to
the engine names the vectors of that model. If the alias points to a collection of another model,
the engine refuses the query: no result mixes two models.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msmarco_qdrant.collection.tenants import tenant_filter
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.fast_init import fast_init
from msmarco_qdrant.core.field_path import root_key
from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.search_types import (
    Hit,
    Nearest,
    PointQuery,
    ScoredPoint,
    SearchMode,
)
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.bm25 import Bm25Encoder
from msmarco_qdrant.errors import SchemaError, UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.search.content import add_content
from msmarco_qdrant.search.cursor import parse_cursor
from msmarco_qdrant.search.diverse_retrieval import retrieve_diverse
from msmarco_qdrant.search.diversity import (
    CANDIDATES,
    candidate_request,
    diversify,
)
from msmarco_qdrant.search.filter_checks import FilterChecks
from msmarco_qdrant.search.page_retrieval import PageRetriever
from msmarco_qdrant.search.pages import (
    PageCursors,
    cut_page,
    cut_points,
)
from msmarco_qdrant.search.point_parts import Parts, QueryVectors, with_parts
from msmarco_qdrant.search.ranking import best_per_group
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.search.retrieval import Retriever
from msmarco_qdrant.search.similar import Examples, check_found, find_target
from msmarco_qdrant.search.step import Encode, Score, Steps, with_query
from msmarco_qdrant.search.stored_vectors import own_points, read_vectors
from msmarco_qdrant.search.thresholds import check_threshold
from msmarco_qdrant.search.ties import extend_ranking, sort_hits
from msmarco_qdrant.stores.filters import combine, to_qdrant, without_points
from msmarco_qdrant.stores.foreign import ForeignPoints
from msmarco_qdrant.stores.payload import SPARSE_VECTOR, point_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)
_rank, _rest = attrgetter("rank"), attrgetter(*(one.name for one in fields(Hit)[1:]))
_new_hit = fast_init(Hit)

# A group's best passage may hide others of the same group.
_PASSAGES_PER_GROUP = 4


class Searcher:
    """Searches one collection with one model.

    Args:
        metadata: The collection's metadata.
        encoder: The encoder of that collection; None to search by "bm25" only.
        collection: The collection's name, for messages.
        indexed: True if the engine has payload indexes, so that a filter may lack one.
        words_need_index: See `Capabilities`.
        foreign: Counts the points that are not passages.

    Attributes:
        metadata: The collection's metadata.
        retriever: Retrieves points of the collection.
        collection: As given.
        filters: Checks of filters.
        bm25_only: True if no encoder was given.
    """

    def __init__(
        self,
        metadata: CollectionMetadata,
        encoder: Encoder | None,
        *,
        collection: str,
        indexed: bool,
        words_need_index: bool = False,
        foreign: ForeignPoints,
    ) -> None:
        self.metadata = metadata
        self.retriever = Retriever(metadata, foreign)
        self.collection = collection
        self._pages = PageRetriever(self.retriever)
        self._encoder = encoder
        self.bm25_only = encoder is None
        self._dsn = foreign.dsn
        self.filters = FilterChecks(
            collection, foreign.dsn, indexed=indexed, words_need_index=words_need_index
        )

    @property
    def encoder(self) -> Encoder:
        """The encoder of queries.

        Raises:
            UsageError: If no encoder was given.
        """
        if self._encoder is None:
            raise UsageError("this client was opened with bm25_only: it has no encoder")
        return self._encoder

    def scope(self, tenant: str | None) -> SearchFilter | None:
        """Return the filter of a tenant's passages, None for a collection without tenants.

        Raises:
            UsageError: If the collection has tenants and none is given, or the other way round.
        """
        return tenant_filter(self.metadata, self.collection, tenant, self._dsn)

    def search(self, queries: Sequence[str], request: SearchRequest) -> Steps[list[Hits]]:
        """Return the page of hits of each query."""
        if request.score_threshold is not None:
            check_threshold(request.score_threshold, request, self.metadata.encoder.similarity)
        prepared = yield from self.prepare_filter(request)
        vectors = yield from self.encode(queries, request.mode)
        return (yield from self._answer(queries, vectors, prepared, request.meta_filter))

    def find_pids(
        self, vectors: Sequence[QueryVectors], request: SearchRequest
    ) -> Steps[list[list[str]]]:
        """Return the pids of the best passages of each query: those of `search`, in less time.

        Args:
            vectors: The vectors of each query.
            request: Its mode, limit, filter, tenant and accuracy.
        """
        prepared = yield from self.prepare_filter(request)
        return (yield from self.retriever.retrieve_pids(vectors, prepared, request.limit))

    def similar(self, examples: Examples, request: SearchRequest) -> Steps[Hits]:
        """Return the page of hits of a search by examples, without these."""
        if request.score_threshold is not None:
            check_threshold(request.score_threshold, request, self.metadata.encoder.similarity)
        prepared = yield from self.prepare_filter(request)
        one_id = examples.one_id
        if one_id is not None and self.scope(request.tenant) is None:
            example = PointQuery(None, 1, ids=[one_id], fields=("pid",))
            steps = self._similar_to(one_id, examples, prepared, request)
            try:
                hits, found = yield from with_query(steps, example)
            except SchemaError:  # that point or its vector is not there: find out which
                pass
            else:
                check_found(examples, [point.id for point in own_points(found)], self.collection)
                return hits
        target = yield from find_target(examples, self, self.scope(request.tenant))
        return (yield from self._similar_to(target, examples, prepared, request))

    def _similar_to(
        self,
        target: NDArray[np.float32] | PointId,
        examples: Examples,
        prepared: SearchRequest,
        request: SearchRequest,
    ) -> Steps[Hits]:
        """Return the page of hits for a vector, or for that of a point, without the examples."""
        if isinstance(target, int | UUID):  # the engine leaves it out
            shown = str(target)
        else:
            others = without_points(prepared.meta_filter, examples.ids)
            prepared, shown = prepared.copy(meta_filter=others), target.tobytes().hex()
        vectors = [QueryVectors(Nearest(target, self.retriever.vector_name), None)]
        query = f"similar {shown}"  # cursors contain a digest of it
        (hits,) = yield from self._answer([query], vectors, prepared, request.meta_filter)
        return hits

    def prepare_filter(self, request: SearchRequest) -> Steps[SearchRequest]:
        """Convert and check the filter of a search, of a tenant's passages, for all its queries."""
        given = request.meta_filter
        if given is None and request.tenant is None and self.metadata.tenant_field is None:
            return request
        asked = combine(self.scope(request.tenant), given)
        if asked is None:
            return request
        chosen = to_qdrant(asked)
        yield from self.filters.check_indexes(chosen, request.limits)
        return request.copy(meta_filter=chosen)

    def _answer(
        self,
        queries: Sequence[str],
        vectors: Sequence[QueryVectors],
        request: SearchRequest,
        given: SearchFilter | None,
    ) -> Steps[list[Hits]]:
        """Return the page of each query, with its cursor; `given` is the filter of the caller."""
        cursors = PageCursors(request, self.metadata, self.collection)
        if given is not None and not isinstance(given, Mapping):
            cursors.fix()  # a caller may change a filter of Qdrant before a cursor is read
        if request.cursor is not None:
            cursors.check(parse_cursor(request.cursor), queries[0])
        found = yield from self._search(queries, vectors, request)
        if given is not None and not request.start:
            yield from self.filters.check_fields(given, found, self.scope(request.tenant))
        if not request.is_plain:
            found = yield from add_content(queries, found, request, self)
        answers = []
        for hits, query in zip(found, queries, strict=True):
            page = renumber(hits, request.start)
            answers.append(Hits(page, cursor=partial(cursors.after, page, query)))
        return answers

    def _search(
        self, queries: Sequence[str], vectors: Sequence[QueryVectors], request: SearchRequest
    ) -> Steps[list[list[Hit]]]:
        if request.diversity:
            return self._search_diverse(queries, vectors, request)
        if request.rerank_depth is not None:
            return self._search_reranked(queries, vectors, request)
        if request.group_by is not None:
            return self._search_groups(vectors, request, request.group_by)
        return self._pages.retrieve(vectors, request)

    def _search_reranked(
        self, queries: Sequence[str], vectors: Sequence[QueryVectors], request: SearchRequest
    ) -> Steps[list[list[Hit]]]:
        found = yield from self.retriever.retrieve(vectors, request, request.first_stage_limit)
        found = yield from rerank_hits(queries, found, sigmoid=request.rerank_sigmoid)
        least = request.score_threshold
        if least is not None:
            found = [[hit for hit in hits if hit.score >= least] for hits in found]
        if request.group_by is not None:
            found = [best_per_group(hits, request.group_by) for hits in found]
        return [cut_page(hits, request) for hits in found]

    def _search_diverse(
        self, queries: Sequence[str], vectors: Sequence[QueryVectors], request: SearchRequest
    ) -> Steps[list[list[Hit]]]:
        """Return the page of each query in the order of maximal marginal relevance."""
        hits = yield from retrieve_diverse(vectors, request, self.retriever)
        if hits is not None:
            return hits
        found = yield from self._search(queries, vectors, candidate_request(request))
        heads = [point_id(hit.pid) for hits in found for hit in hits[:CANDIDATES]]
        stored = yield from read_vectors([*dict.fromkeys(heads)], self)
        return [diversify(hits, stored, request) for hits in found]

    def encode(self, queries: Sequence[str], mode: SearchMode) -> Steps[list[QueryVectors]]:
        """Return the vectors that a mode needs of each query."""
        rows: Any = (yield Encode(self.encoder, queries)) if mode != "bm25" else None
        name = self.retriever.vector_name
        found = []
        for index, query in enumerate(queries):
            dense = Nearest(rows[index], name) if rows is not None else None
            found.append(QueryVectors(dense, self.encode_bm25(query) if mode != "dense" else None))
        return found

    def encode_bm25(self, query: str) -> Nearest | None:
        """Return the BM25 vector of a query; None for one without a word."""
        weights = self._bm25.encode_query(query)
        return Nearest(weights, SPARSE_VECTOR) if weights.indices else None

    def _search_groups(
        self, vectors: Sequence[QueryVectors], request: SearchRequest, field: str
    ) -> Steps[list[list[Hit]]]:
        """Return the best hit of each group; retrieve more until there are enough groups.

        Only pids and the field are retrieved for that, and the rest of the best afterwards.
        """
        rankings: list[list[ScoredPoint]] = [[] for _ in vectors]
        found = [*rankings]
        unfinished = list(range(len(vectors)))
        for limit in group_limits(request):
            if not unfinished:
                break
            asked = [vectors[i] for i in unfinished]
            fields = Parts(("pid", root_key(field)))
            ranked = yield from self.retriever.retrieve_points(asked, request, limit, fields)
            for index, points in zip(unfinished, ranked, strict=True):
                rankings[index] = extend_ranking(rankings[index], self.retriever.own(points))
                found[index] = best_per_group(rankings[index], field)
            unfinished = [
                index
                for index, points in zip(unfinished, ranked, strict=True)
                if len(points) == limit and len(cut_points(found[index], request)) < request.limit
            ]
            if any(ranked) and not any(found):
                _log.warning("no passage found has the field '%s' to group by", field)
        pages = [cut_points(points, request) for points in found]
        parts = self.retriever.parts_of(request)
        whole = yield from with_parts(vectors, pages, parts)
        return [self.retriever.to_hits(points, parts) for points in whole]

    @cached_property
    def _bm25(self) -> Bm25Encoder:
        return Bm25Encoder(self.metadata.bm25)


def group_limits(request: SearchRequest) -> Iterator[int]:
    """Return the numbers of points to retrieve for groups, one after the other.

    After the first, they are the same for each limit, and each is the most with the same
    candidates: so the groups of a smaller limit are the start of those of a larger one.
    """
    limit, most = request.end * _PASSAGES_PER_GROUP, request.max_limit
    spare = 0 if request.mode == "hybrid" else 1  # one more is retrieved, to notice ties
    whole = request.fusion.depth if request.mode == "hybrid" else max(request.ef - spare, 1)
    if limit < min(whole, most) and not request.is_page:
        yield limit
    while whole < most:
        yield whole
        whole = (whole + spare) * _PASSAGES_PER_GROUP - spare
    yield most


def rerank_hits(
    queries: Sequence[str], found: Sequence[list[Hit]], *, sigmoid: bool = False
) -> Steps[list[list[Hit]]]:
    """Sort hits by the scores of the cross-encoder; ties by pid."""
    pairs = [(query, hit.text) for query, hits in zip(queries, found, strict=True) for hit in hits]
    scores = iter((yield Score(pairs)).tolist() if pairs else ())
    scored = [[replace(hit, score=next(scores)) for hit in hits] for hits in found]
    if sigmoid:
        scored = [[replace(hit, score=_sigmoid(hit.score)) for hit in hits] for hits in scored]
    return [sort_hits(hits) for hits in scored]


def _sigmoid(score: float) -> float:
    """Return the logistic function of a score, without overflow."""
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    return math.exp(score) / (1 + math.exp(score))


def renumber(hits: Sequence[Hit], start: int) -> list[Hit]:
    """Return hits with the ranks after `start`."""
    if [*map(_rank, hits)] == [*range(start + 1, start + 1 + len(hits))]:
        return [*hits]
    return [_new_hit(rank, *_rest(hit)) for rank, hit in enumerate(hits, start + 1)]

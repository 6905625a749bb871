"""Search session of one collection: checks searches, and returns their steps.

`driver` and `async_driver` execute them. `searcher_refresh` follows a change of the collection's
model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, get_args

from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.limits import NO_LIMITS
from msmarco_qdrant.core.search_defaults import NO_DEFAULTS
from msmarco_qdrant.core.search_types import Hit, SearchMode
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.checks import applies_sigmoid, check_reranker
from msmarco_qdrant.errors import StoreError, UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.search.combined import (
    different_models,
    rank_combined,
    search_combined,
    similar_combined,
)
from msmarco_qdrant.search.given_passages import rank_passages
from msmarco_qdrant.search.limit_checks import check_limits
from msmarco_qdrant.search.options import (
    RankOptions,
    SearchOptions,
    SimilarOptions,
    check_pids,
    check_queries,
    check_rank,
    to_fusion,
    to_request,
)
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.search.searcher_refresh import (
    LoadEncoder,
    SearcherRefresh,
    retry_after_model_swap,
)
from msmarco_qdrant.search.session_group import SessionGroup
from msmarco_qdrant.search.similar import Examples
from msmarco_qdrant.search.step import GetPayloadIndexes, Steps
from msmarco_qdrant.search.steps import Searcher
from msmarco_qdrant.stores import (
    AliasedCollection,
    AsyncCollection,
    Store,
    open_async_collection,
    redact_dsn,
)
from msmarco_qdrant.stores.filters import to_qdrant
from msmarco_qdrant.stores.foreign import ForeignPoints

_T = TypeVar("_T")


class SearchSession:
    """Shared part of the blocking and the asyncio client. Thread-safe.

    Arguments and errors are those of `SearchClient`.

    Attributes:
        store: The store.
        searched: The collection, also for searches that began before `close`.
        group: The sessions of the same client.
        refresh: The searcher of new searches, which follows a change of the collection's model.
    """

    def __init__(
        self,
        store: Store,
        collection: str,
        encoder: Encoder | None,
        reranker: Reranker | None,
        load_encoder: LoadEncoder,
        group: SessionGroup | None = None,
    ) -> None:
        self.store = store
        self._name = collection
        self._load_encoder = load_encoder
        if reranker is not None:
            check_reranker(reranker)
        self.group = group or SessionGroup(self, self._open_other)
        self.refresh = SearcherRefresh(
            store, collection, encoder, load_encoder, self.group.encoder_of
        )
        self.searched = AliasedCollection(store, collection)
        self._reranker = reranker
        self._closed = False

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._name

    @property
    def current(self) -> Searcher:
        """The searcher of new searches."""
        return self.refresh.current

    @property
    def foreign(self) -> ForeignPoints:
        """Counts the points left out of answers, because they are not passages."""
        return self.refresh.foreign

    @property
    def collection(self) -> AliasedCollection:
        """The collection that is searched.

        Raises:
            StoreError: If the client was closed.
        """
        self.check_open()
        return self.searched

    @property
    def foreign_points(self) -> int:
        """Number of points left out of answers, because they are not passages."""
        return self.foreign.count

    @property
    def modes(self) -> Sequence[SearchMode]:
        """The search modes: without an encoder, only "bm25"."""
        return ("bm25",) if self.current.bm25_only else get_args(SearchMode)

    @property
    def can_rerank(self) -> bool:
        """True if the session has a cross-encoder."""
        return self._reranker is not None

    @property
    def reranker(self) -> Reranker:
        """The cross-encoder.

        Raises:
            UsageError: If the client was opened without one.
        """
        if self._reranker is None:
            raise UsageError(
                "this client was opened without a reranker: pass reranker='ms-marco-MiniLM-L6-v2', "
                "or another cross-encoder, to open()"
            )
        return self._reranker

    def search(self, queries: Sequence[str], options: SearchOptions) -> Steps[list[Hits]]:
        """Check a search, and return its steps."""
        self.check_open()
        check_queries(queries)
        first = self.refresh.current
        is_combined = options.get("collections") is not None  # each has defaults of its own
        request = to_request(options) if is_combined else self.fill_in(options, first)
        if request.cursor is not None and len(queries) != 1:
            raise UsageError(
                f"cursor continues the search of one query, got {len(queries)} queries: call search"
            )
        self._check_models(request.mode, rerank=request.rerank_depth is not None)
        if request.snippets and first.bm25_only:
            raise UsageError("this client was opened with bm25_only: snippets need its model")

        if is_combined:
            return search_combined(self, queries, options)

        def search(searcher: Searcher) -> Steps[list[Hits]]:
            chosen = request if searcher is first else self.fill_in(options, searcher)
            if self._is_limited:
                chosen = yield from self.within_limits(chosen)
            return (yield from searcher.search(queries, chosen))

        return self._follow(search, by_words=request.mode == "bm25" and not request.snippets)

    def find_pids(self, queries: Sequence[str], options: SearchOptions) -> Steps[list[list[str]]]:
        """Check a search for the pids of the best passages, and return its steps.

        The options are those of `Searcher.find_pids`.
        """
        self.check_open()
        check_queries(queries)
        first = self.current
        request = self.fill_in(options, first)
        self._check_models(request.mode, rerank=False)

        def find(searcher: Searcher) -> Steps[list[list[str]]]:
            chosen = request if searcher is first else self.fill_in(options, searcher)
            if self._is_limited:
                chosen = yield from self.within_limits(chosen)
            vectors = yield from searcher.encode(queries, chosen.mode)
            return (yield from searcher.find_pids(vectors, chosen))

        return self._follow(find, by_words=request.mode == "bm25")

    def _follow(
        self, search: Callable[[Searcher], Steps[_T]], *, by_words: bool = False
    ) -> Steps[_T]:
        """Search by the current metadata, which are read again once a minute."""
        refresh = self.refresh
        return retry_after_model_swap(
            refresh.current, search, is_due=refresh.is_due(), loads_model=not by_words
        )

    def scope(self, tenant: str | None) -> SearchFilter | None:
        """Return the filter of a tenant's passages, for a read without a query.

        It reads metadata that are old again, but never loads a model.

        Raises:
            UsageError: See `Searcher.scope`.
        """
        searcher = self.current
        if self.refresh.is_due():
            searcher = self.refresh.update(searcher, loads_model=False)
        return searcher.scope(tenant)

    def fill_in(self, options: SearchOptions | SimilarOptions, searcher: Searcher) -> SearchRequest:
        """Return the request of options, with the defaults of a collection."""
        chosen = to_request(options, searcher.metadata.search_defaults)
        if chosen.rerank_sigmoid and applies_sigmoid(self.reranker):
            return chosen.copy(rerank_sigmoid=False)
        return chosen

    def rank(
        self,
        queries: Sequence[str],
        pids: Sequence[Sequence[str]],
        options: RankOptions,
    ) -> Steps[list[list[Hit]]]:
        """Check a ranking of given passages, and return its steps."""
        self.check_open()
        check_queries(queries)
        check_pids(queries, pids)
        check_rank(options)
        self._check_models(options.get("mode", "dense"), rerank=options.get("rerank", False))

        if options.get("rerank_sigmoid") and applies_sigmoid(self.reranker):
            options = {**options, "rerank_sigmoid": False}
        if options.get("collections") is not None:
            return rank_combined(self, queries, pids, options)

        def rank(searcher: Searcher) -> Steps[list[list[Hit]]]:
            fusion = to_fusion(options.get("fusion"), searcher.metadata.search_defaults.fusion)
            return rank_passages(searcher, queries, pids, fusion, options)

        return self._follow(rank, by_words=options.get("mode") == "bm25")

    def similar(self, examples: Examples, options: SimilarOptions) -> Steps[Hits]:
        """Check a search by examples, and return its steps."""
        self.check_open()
        first = self.refresh.current
        is_combined = options.get("collections") is not None  # each has defaults of its own
        defaults = NO_DEFAULTS if is_combined else first.metadata.search_defaults
        request = to_request(options, defaults)
        if first.bm25_only and examples.texts:
            raise UsageError(
                "this client was opened with bm25_only: it cannot encode the text of an example; "
                "pass pids or vectors"
            )
        if is_combined:
            return similar_combined(self, examples, options)

        def search(searcher: Searcher) -> Steps[Hits]:
            chosen = request
            if searcher is not first:
                chosen = to_request(options, searcher.metadata.search_defaults)
            if self._is_limited:
                chosen = yield from self.within_limits(chosen)
            return (yield from searcher.similar(examples, chosen))

        return self._follow(search)

    def open_async(self) -> AsyncCollection:
        """Return the collection for the running event loop; see `open_async_collection`."""
        return open_async_collection(self.store, self._name)

    def describe(self) -> str:
        """Return the collection, its store without secrets, and the models, in one line."""
        searcher = self.current
        model = "bm25 only" if searcher.bm25_only else searcher.metadata.encoder.model
        reranker = f", reranked by {self._reranker.model}" if self._reranker is not None else ""
        closed = ", closed" if self._closed else ""
        return f"'{self._name}' in {redact_dsn(self.store.dsn)}, {model}{reranker}{closed}"

    def warm_up(self) -> None:
        """Run the first call of each model, and import what filters need."""
        to_qdrant({"any": "value"})
        if not self.current.bm25_only:
            self.current.encoder.warm_up()
        if self._reranker is not None:
            self._reranker.warm_up()

    def close(self) -> None:
        """Refuse new searches."""
        self._closed = True

    def check_open(self) -> None:
        """Raise if the client was closed.

        Raises:
            StoreError: If it was.
        """
        if self._closed:
            raise StoreError(f"this client of '{self._name}' was closed: open another")

    def _open_other(self, name: str) -> SearchSession:
        """Open the session of another collection, which must be of this one's model.

        Raises:
            CollectionNotFoundError: If the store has no collection of that name.
            ModelMismatchError: If it holds vectors of another model.
        """
        theirs, current = self.store.metadata(name).encoder, self.current
        if not theirs.has_same_vectors_as(current.metadata.encoder):
            current = self.refresh.update(current)
        if not theirs.has_same_vectors_as(current.metadata.encoder):
            raise different_models({self._name: current.metadata.encoder, name: theirs})
        return SearchSession(
            self.store,
            name,
            None if current.bm25_only else current.encoder,
            self._reranker,
            self._load_encoder,
            self.group,
        )

    @property
    def _is_limited(self) -> bool:
        return self.store.request_limits(self._name) is not NO_LIMITS

    def within_limits(self, request: SearchRequest) -> Steps[SearchRequest]:
        """Return a request with the collection's limits, once checked by them.

        Raises:
            UsageError: If limits that were just read refuse it.
        """
        fitted = self._with_limits(request)
        try:
            check_limits(fitted, self._name)
        except UsageError:
            yield GetPayloadIndexes()  # it also reads the limits: an operator may have relaxed them
            fitted = self._with_limits(request)
            check_limits(fitted, self._name)
        return fitted

    def _with_limits(self, request: SearchRequest) -> SearchRequest:
        """Return a request with the collection's limits as they were last read."""
        limits = self.store.request_limits(self._name)
        return request if limits is request.limits else request.copy(limits=limits)

    def _check_models(self, mode: SearchMode, *, rerank: bool) -> None:
        """Raise if the client was opened without a model that the search needs."""
        if mode != "bm25" and self.refresh.current.bm25_only:
            raise UsageError(f"this client was opened with bm25_only: it cannot search by {mode}")
        if rerank:
            _ = self.reranker

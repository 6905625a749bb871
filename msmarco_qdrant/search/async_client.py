"""Search client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from os import PathLike
from typing import TypeAlias

from msmarco_qdrant.collection.scroll import ScrollRequest
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.example import Example, VectorLike
from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.records import WINDOW, Passage, Reject
from msmarco_qdrant.core.reports import UpsertReport
from msmarco_qdrant.core.search_types import (
    DEFAULT_EFFORT,
    Facet,
    Fusion,
    FusionMethod,
    Merge,
    SearchMode,
)
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.options import EncoderChoices
from msmarco_qdrant.errors import StoreError, UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.ingest.upsert import Outcome
from msmarco_qdrant.runtime.daemon_executor import call_in_daemon_thread
from msmarco_qdrant.runtime.micro_batcher import MicroBatcher
from msmarco_qdrant.search.async_driver import AsyncDriver
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.search.options import (
    RankOptions,
    RerankDepth,
    SearchOptions,
    SimilarOptions,
)
from msmarco_qdrant.search.searcher_refresh import LoadEncoder
from msmarco_qdrant.search.similar import to_examples
from msmarco_qdrant.search.writer import Deletion
from msmarco_qdrant.sources.python_rows import PythonRows, Rows
from msmarco_qdrant.stores import (
    DEFAULT_CONNECTION,
    AsyncCollection,
    Connection,
    Store,
    open_async_collection,
)

_ROWS_PER_BATCH = 1024
_SCROLL_PAGE = 100

_Opened: TypeAlias = tuple[SearchClient, AsyncCollection]


class AsyncSearchClient:
    """Client that searches one collection, and writes to it, without blocking the event loop.

    Concurrent queries are encoded in one forward pass, in a thread. If the collection is
    re-embedded, its searches wait until a thread has loaded the new model. A search can be
    cancelled, or have a timeout of `asyncio.timeout`::

        async with await AsyncSearchClient.open("./qdrant_data", collection="msmarco") as client:
            hits = await client.search("how big is london", limit=5)

    It belongs to the event loop that opened it.

    Args:
        client: The client with the encoder and the store.
        collection: The collection of that client; it is closed with this one.
        owns_client: False to leave `client` open when this one is closed, for several event loops.

    Attributes:
        store: The store.
        collection: The collection's name.
        session: The session, which executes the steps of a search.
    """

    def __init__(
        self, client: SearchClient, collection: AsyncCollection, *, owns_client: bool = True
    ) -> None:
        self.store = client.store
        self.collection = client.collection
        self.session = client.session
        self._client = client
        self._owns_client = owns_client
        self._loop = asyncio.get_running_loop()
        self._collection = collection
        self._driver = AsyncDriver(client.session, collection)
        self._upsert: MicroBatcher[Passage | Reject, Outcome] = MicroBatcher(
            client.writer.upsert,
            max_items=_ROWS_PER_BATCH,
            name="msmarco-qdrant-upsert",
        )
        self._delete: MicroBatcher[Deletion, int] = MicroBatcher(
            lambda calls: [client.writer.delete(call) for call in calls],
            max_items=1,
            name="msmarco-qdrant-delete",
        )
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    @suggest_keywords
    async def open(  # noqa: PLR0913  # all but one have defaults
        cls,
        store: Store | str | PathLike[str],
        *,
        collection: str = "msmarco",
        model: str | PathLike[str] | None = None,
        encoder: Encoder | None = None,
        encoder_options: EncoderChoices | None = None,
        reranker: str | PathLike[str] | Reranker | None = None,
        bm25_only: bool = False,
        connection: Connection = DEFAULT_CONNECTION,
        load_encoder: LoadEncoder | None = None,
    ) -> AsyncSearchClient:
        """Open a client on a collection; a thread opens the store and loads the model.

        Errors are those of `SearchClient.open`.

        Args:
            store: The path or URL of a store, or an open store, which stays open.
            collection: Name of the collection.
            model: Location of the collection's model; by default the name in its metadata.
            encoder: A loaded encoder, instead of `model`.
            encoder_options: An `EncoderOptions`, a dictionary of its fields, such as
                `{"precision": "float32"}`, or a device such as "cuda:1"; None for the fastest here.
                An `encoder` has its own.
            reranker: A cross-encoder, or the location of one: a name of the catalog, a hub id or
                a directory. It runs on the encoder's device, the first if there are several.
            bm25_only: True to load no model: only "bm25" searches are possible.
            connection: API key, port and timeouts, if `store` is a URL.
            load_encoder: Loads the model of a collection that was re-embedded, given the encoder
                info of its new metadata. The default loads it by name, with `encoder_options`.
        """

        def open_blocking() -> _Opened:
            client = SearchClient.open(
                store,
                collection=collection,
                model=model,
                encoder=encoder,
                encoder_options=encoder_options,
                reranker=reranker,
                bm25_only=bm25_only,
                connection=connection,
                load_encoder=load_encoder,
            )
            try:
                return client, open_async_collection(client.store, client.collection)
            except BaseException:
                client.close()
                raise

        opening = call_in_daemon_thread(open_blocking, "msmarco-qdrant-open")
        try:
            client, opened = await asyncio.wrap_future(opening)
        except BaseException:
            opening.add_done_callback(_close_opened)  # cancelled: no caller receives the client
            raise
        return cls(client, opened)

    @property
    def metadata(self) -> CollectionMetadata:
        """The collection's metadata; see `SearchClient.metadata`."""
        return self._client.metadata

    @property
    def foreign_points(self) -> int:
        """Number of points left out of answers, because they are not passages."""
        return self.session.foreign_points

    @suggest_keywords
    async def search(  # noqa: PLR0913  # all but one have defaults
        self,
        query: str,
        *,
        limit: int = 10,
        offset: int | None = None,
        cursor: str | None = None,
        mode: SearchMode = "dense",
        fusion: Fusion | FusionMethod | None = None,
        score_threshold: float | None = None,
        rerank_depth: RerankDepth = None,
        rerank_sigmoid: bool = False,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        group_by: str | None = None,
        diversity: float | None = None,
        exact: bool = False,
        ef: int | None = None,
        oversampling: float = DEFAULT_EFFORT.oversampling,
        rescore: bool = True,
        with_vectors: bool = False,
        with_meta: bool | Sequence[str] = True,
        with_text: bool = True,
        snippets: int = 0,
        collections: Sequence[str] | None = None,
        merge: Merge = "scores",
    ) -> Hits:
        """Search for the passages that answer a query best.

        Args:
            query: Keywords, a sentence or a question.
            limit: Maximum number of hits, 1 to 10,000.
            offset: Number of best hits to skip, 0 for the first of several pages; offset and limit
                together are at most 10,000.
            cursor: `cursor` of the hits of the page before, for the next page of the same search.
            mode: "dense" compares vectors, "bm25" words; "hybrid" fuses both rankings.
            fusion: How "hybrid" fuses them: "convex", "rrf", "dbsf", or a `Fusion` with weights.
                None for the collection's default, else "convex".
            score_threshold: Omit hits with a lower score, on the scale of `Hit.score`.
            rerank_depth: Number of best hits to score again with the client's cross-encoder; at
                least `offset` and `limit` together. "auto" for the collection's default, else 100;
                None disables it.
            rerank_sigmoid: Convert the cross-encoder's scores to 0 to 1, by the logistic function.
            meta_filter: Conditions on `meta` fields, such as
                `{"lang": "en", "year": Range(gte=2020)}`, or a `Filter` of Qdrant.
            tenant: Only this tenant's passages, which a collection with a tenant field requires.
            group_by: A `meta` field: return only the best passage for each of its values.
            diversity: 0 to 1: reorder the best 100 hits so that each differs from those before it.
            exact: Compare with every vector, instead of searching the graph.
            ef: Candidates considered in the graph. None for the collection's default, else 128.
            oversampling: For quantized vectors, the multiple of the wanted passages that is
                scored again by the original vectors, 1 or more.
            rescore: False to disable that.
            with_vectors: Return the dense vector of each hit.
            with_meta: False to return no `meta`, or the names of the fields to return.
            with_text: False to return no text.
            snippets: The most sentences per hit to return, those most similar to the query.
            collections: Search these collections of the store instead, all of this client's model,
                for one ranking; `Hit.collection` names that of each hit.
            merge: How their rankings become one: by "scores", or by ranks with "rrf".

        Returns:
            Hits by descending score; fewer than `limit` if the collection holds fewer.

        Raises:
            UsageError: For an empty query, or an invalid option.
            ModelMismatchError: If `collections` hold vectors of different models.
            EncodingError: If the model has no vector for the query.
            StoreError: If the engine fails.
        """
        (hits,) = await self.search_many(
            [query],
            limit=limit,
            offset=offset,
            cursor=cursor,
            mode=mode,
            fusion=fusion,
            score_threshold=score_threshold,
            rerank_depth=rerank_depth,
            rerank_sigmoid=rerank_sigmoid,
            meta_filter=meta_filter,
            tenant=tenant,
            group_by=group_by,
            diversity=diversity,
            exact=exact,
            ef=ef,
            oversampling=oversampling,
            rescore=rescore,
            with_vectors=with_vectors,
            with_meta=with_meta,
            with_text=with_text,
            snippets=snippets,
            collections=collections,
            merge=merge,
        )
        return hits

    @suggest_keywords
    async def search_many(  # noqa: PLR0913  # all but one have defaults
        self,
        queries: Sequence[str],
        *,
        limit: int = 10,
        offset: int | None = None,
        cursor: str | None = None,
        mode: SearchMode = "dense",
        fusion: Fusion | FusionMethod | None = None,
        score_threshold: float | None = None,
        rerank_depth: RerankDepth = None,
        rerank_sigmoid: bool = False,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        group_by: str | None = None,
        diversity: float | None = None,
        exact: bool = False,
        ef: int | None = None,
        oversampling: float = DEFAULT_EFFORT.oversampling,
        rescore: bool = True,
        with_vectors: bool = False,
        with_meta: bool | Sequence[str] = True,
        with_text: bool = True,
        snippets: int = 0,
        collections: Sequence[str] | None = None,
        merge: Merge = "scores",
    ) -> list[Hits]:
        """Search for several queries, in one batch for encoder and engine.

        The other arguments and errors are those of `search`.

        Returns:
            The hits of each query, in the order of the queries.
        """
        options: SearchOptions = {
            "limit": limit,
            "offset": offset,
            "cursor": cursor,
            "mode": mode,
            "fusion": fusion,
            "score_threshold": score_threshold,
            "rerank_depth": rerank_depth,
            "rerank_sigmoid": rerank_sigmoid,
            "meta_filter": meta_filter,
            "tenant": tenant,
            "group_by": group_by,
            "diversity": diversity,
            "exact": exact,
            "ef": ef,
            "oversampling": oversampling,
            "rescore": rescore,
            "with_vectors": with_vectors,
            "with_meta": with_meta,
            "with_text": with_text,
            "snippets": snippets,
            "collections": collections,
            "merge": merge,
        }
        with self._track():
            return await self._driver.run(self.session.search(queries, options))

    @suggest_keywords
    async def similar(  # noqa: PLR0913  # all have defaults
        self,
        pid: str | None = None,
        *,
        text: str | None = None,
        vector: VectorLike | None = None,
        positive: Sequence[str | Example] = (),
        negative: Sequence[str | Example] = (),
        limit: int = 10,
        offset: int | None = None,
        cursor: str | None = None,
        score_threshold: float | None = None,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        group_by: str | None = None,
        diversity: float | None = None,
        exact: bool = False,
        ef: int | None = None,
        oversampling: float = DEFAULT_EFFORT.oversampling,
        rescore: bool = True,
        with_vectors: bool = False,
        with_meta: bool | Sequence[str] = True,
        with_text: bool = True,
        collections: Sequence[str] | None = None,
        merge: Merge = "scores",
    ) -> Hits:
        """Search by examples: for passages similar to some, and less similar to others.

        Args:
            pid: A passage of the collection. Passages that are examples are not among the hits.
            text: A text, encoded as a passage; it needs the model.
            vector: A vector `(dimension,)` of the collection's model.
            positive: More examples, of equal weight: pids, or `Example` values for texts and
                vectors.
            negative: Examples that hits are to differ from, in the same form.
            limit: Maximum number of hits, 1 to 10,000.
            offset: Number of best hits to skip, 0 for the first of several pages.
            cursor: `Hits.cursor` of a page of the same call: return the page after it.
            score_threshold: Omit hits with a lower score.
            meta_filter: Conditions on `meta` fields, as in `search`.
            tenant: Only this tenant's passages, which a collection with a tenant field requires.
            group_by: A `meta` field: return only the best passage for each of its values.
            diversity: 0 to 1: reorder the best 100 hits so that each differs from those before it.
            exact: Compare with every vector, instead of searching the graph.
            ef: Candidates considered in the graph; None for the collection's default.
            oversampling: As in `search`.
            rescore: As in `search`.
            with_vectors: Return the dense vector of each hit.
            with_meta: False to return no `meta`, or the names of the fields to return.
            with_text: False to return no text.
            collections: As in `search`; the passages of the examples are this client's.
            merge: As in `search`.

        Returns:
            Hits by descending score: the similarity to the mean of the positive examples, moved
            away from the mean of the negative ones.

        Raises:
            UsageError: If no example is positive, or for an invalid one or an invalid option.
            ModelMismatchError: If `collections` hold vectors of different models.
            PassageNotFoundError: If the collection lacks a passage of the examples.
            EncodingError: If the model has no vector for a text.
            StoreError: If the engine fails.
        """
        examples = to_examples(pid, text, vector, positive, negative)
        options: SimilarOptions = {
            "limit": limit,
            "offset": offset,
            "cursor": cursor,
            "score_threshold": score_threshold,
            "meta_filter": meta_filter,
            "tenant": tenant,
            "group_by": group_by,
            "diversity": diversity,
            "exact": exact,
            "ef": ef,
            "oversampling": oversampling,
            "rescore": rescore,
            "with_vectors": with_vectors,
            "with_meta": with_meta,
            "with_text": with_text,
            "collections": collections,
            "merge": merge,
        }
        with self._track():
            return await self._driver.run(self.session.similar(examples, options))

    @suggest_keywords
    async def rank(  # noqa: PLR0913  # most have defaults
        self,
        query: str,
        pids: Sequence[str],
        *,
        mode: SearchMode = "dense",
        fusion: Fusion | FusionMethod | None = None,
        rerank: bool = False,
        rerank_sigmoid: bool = False,
        tenant: str | None = None,
        collections: Sequence[str] | None = None,
        merge: Merge = "scores",
    ) -> Hits:
        """Rank given passages for a query; those that the collection lacks are omitted.

        Args:
            query: Keywords, a sentence or a question.
            pids: The passages, at most 10,000.
            mode: "dense" (vectors), "bm25" (words) or "hybrid" (both); every score is exact.
            fusion: How "hybrid" fuses both rankings; see `search`. Ranks, and the query's best
                BM25 score, are those among the given passages.
            rerank: True to score all of them with the client's cross-encoder.
            rerank_sigmoid: Convert its scores to 0 to 1, by the logistic function.
            tenant: Only this tenant's passages, which a collection with a tenant field requires.
            collections: Look the passages up in each of these collections of the store instead,
                all of this client's model, for one ranking; `Hit.collection` names that of each
                hit.
            merge: How their rankings become one: by "scores", or by ranks with "rrf".

        Raises:
            UsageError: For an empty query, too many passages, or an invalid option.
            ModelMismatchError: If `collections` hold vectors of different models.
            EncodingError: If the model has no vector for the query.
            StoreError: If the engine fails.
        """
        (hits,) = await self.rank_many(
            [query],
            [pids],
            mode=mode,
            fusion=fusion,
            rerank=rerank,
            rerank_sigmoid=rerank_sigmoid,
            tenant=tenant,
            collections=collections,
            merge=merge,
        )
        return hits

    @suggest_keywords
    async def rank_many(  # noqa: PLR0913  # most have defaults
        self,
        queries: Sequence[str],
        pids: Sequence[Sequence[str]],
        *,
        mode: SearchMode = "dense",
        fusion: Fusion | FusionMethod | None = None,
        rerank: bool = False,
        rerank_sigmoid: bool = False,
        tenant: str | None = None,
        collections: Sequence[str] | None = None,
        merge: Merge = "scores",
    ) -> list[Hits]:
        """Rank given passages for each of several queries; see `rank`."""
        with self._track():
            options: RankOptions = {
                "mode": mode,
                "fusion": fusion,
                "rerank": rerank,
                "rerank_sigmoid": rerank_sigmoid,
                "tenant": tenant,
                "collections": collections,
                "merge": merge,
            }
            steps = self.session.rank(queries, pids, options)
            found = await self._driver.run(steps)
        return [Hits(hits) for hits in found]

    @suggest_keywords
    async def upsert(self, passages: Rows) -> UpsertReport:
        """Write passages, durably; unchanged ones are skipped, as by an ingest.

        Searches find them at once. An index is built after some thousand passages, not by each
        call. Concurrent calls are merged.
        A cancelled call that waits writes nothing; one that is being written may be written.

        Args:
            passages: `Passage` values, dictionaries with the fields of a row, tuples
                `(pid, text)` or `(pid, text, meta)`, a DataFrame of pandas or Polars, an Arrow
                table, a dataset of Hugging Face, or an iterable of these. Of rows with the same
                pid the last one is written.

        Returns:
            The counts, and the rejected rows with their reasons, which are also logged.

        Raises:
            UsageError: For an argument of another type, or if the client has no encoder.
            EncodingError: If the forward pass fails.
            StoreError: If the store fails. Of more than 8,192 rows, earlier ones may be written;
                the same upsert resumes there.
        """
        with self._track():
            report = UpsertReport()
            batches = in_batches(PythonRows(passages), WINDOW)
            while batch := await asyncio.to_thread(next, batches, None):
                report += self._client.writer.report(await self._upsert(batch))
            return report

    @suggest_keywords
    async def delete(
        self,
        pids: Iterable[str] | None = None,
        *,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
    ) -> int:
        """Delete passages, durably; return the number of those that existed.

        Args:
            pids: The passages to delete.
            meta_filter: Instead of pids: delete the passages that match, as in `search`.
            tenant: Delete only this tenant's passages; None for those of any tenant.

        Raises:
            UsageError: For both or none of them, an invalid filter, or an invalid pid.
            StoreError: If the store fails.
        """
        with self._track():
            (count,) = await self._delete([Deletion(pids, meta_filter, tenant)])
            return count

    async def get(self, pids: Iterable[str], *, tenant: str | None = None) -> dict[str, Passage]:
        """Read passages by their pids; those that the collection lacks are omitted.

        Args:
            pids: The passages to read.
            tenant: Only this tenant's passages, which a collection with a tenant field requires.

        Raises:
            UsageError: If a pid is not a non-empty string.
            StoreError: If the store fails.
        """
        with self._track():
            return await asyncio.to_thread(self._client.get, pids, tenant=tenant)

    @suggest_keywords
    async def count(
        self,
        *,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        exact: bool = True,
    ) -> int:
        """Count the passages of the collection.

        Args:
            meta_filter: Count those that match, as in `search`.
            tenant: Only this tenant's passages, which a collection with a tenant field requires.
            exact: False to estimate the number, which is faster in a large collection.

        Raises:
            UsageError: For an invalid filter.
            StoreError: If the store fails.
        """
        with self._track():
            return await asyncio.to_thread(
                self._client.count, meta_filter=meta_filter, tenant=tenant, exact=exact
            )

    @suggest_keywords
    async def facets(
        self,
        field: str,
        *,
        limit: int = 10,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        exact: bool = True,
    ) -> list[Facet]:
        """Count the passages of each value of a `meta` field, the most frequent first.

        Args:
            field: A field of strings, integers or booleans; a payload index makes it fast.
            limit: Maximum number of values, 1 to 10,000.
            meta_filter: Count only passages that match, as in `search`.
            tenant: Only this tenant's passages, which a collection with a tenant field requires.
            exact: False to estimate the counts of an indexed field, which is faster.

        Raises:
            UsageError: For an invalid field, limit or filter, or a field of other values.
            StoreError: If the store fails.
        """
        with self._track():
            return await asyncio.to_thread(
                self._client.facets,
                field,
                limit=limit,
                meta_filter=meta_filter,
                tenant=tenant,
                exact=exact,
            )

    @suggest_keywords
    def scroll(
        self,
        *,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        order_by: str | None = None,
        after: str | None = None,
    ) -> AsyncIterator[Passage]:
        """Read all passages, or those that match, one after the other.

        They are read page by page while you iterate. One that is written or deleted then may
        be missing; every other is returned once. To continue later, keep the last pid.

        Args:
            meta_filter: Only passages that match, as in `search`.
            tenant: Only this tenant's passages, which a collection with a tenant field requires.
            order_by: A `meta` field of numbers or moments that orders them, lowest first, or
                "-year" for the highest first; passages without a value are left out. It needs a
                payload index of kind integer, float or datetime. None for the order of ids.
            after: The pid of a passage to continue behind, for the same `order_by`.

        Raises:
            UsageError: For an invalid argument, or an `order_by` without an index.
            StoreError: If the store fails.
        """
        scroll = partial(
            self._client.scroll,
            meta_filter=meta_filter,
            tenant=tenant,
            order_by=order_by,
            after=after,
        )
        ScrollRequest(meta_filter, order_by, after)  # refuses invalid arguments at once
        if not self.session.refresh.has_old_metadata:
            self.session.current.scope(tenant)
        return self._pages(scroll)

    async def _pages(self, scroll: Callable[[], Iterator[Passage]]) -> AsyncIterator[Passage]:
        """Yield what a blocking iterator yields, read in a thread page by page."""
        with self._track():
            pages = await asyncio.to_thread(lambda: in_batches(scroll(), _SCROLL_PAGE))
        while True:
            with self._track():
                page = await asyncio.to_thread(next, pages, None)
            if not page:
                return
            for passage in page:
                yield passage

    async def warm_up(self) -> None:
        """Run the first call of each model now, so that the first search is fast."""
        with self._track():
            await asyncio.to_thread(self._client.warm_up)

    async def close(self) -> None:
        """Refuse new calls, wait for the active ones, and close the client.

        Further calls have no effect. A cancelled close continues in the background.

        Raises:
            UsageError: In another event loop than its own, unless that one is closed.
        """
        if not self._loop.is_closed():
            self._check_loop()
        if self._closing is None:
            self._closing = asyncio.create_task(self._drain())
        await asyncio.shield(self._closing)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.session.describe()}>"

    async def __aenter__(self) -> AsyncSearchClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _drain(self) -> None:
        async with AsyncExitStack() as stack:  # closes each, also if another fails to close
            if self._owns_client:
                stack.push_async_callback(asyncio.to_thread, self._client.close)
            stack.push_async_callback(self._collection.close)
            stack.push_async_callback(self._driver.close)
            stack.push_async_callback(self._upsert.close)
            stack.push_async_callback(self._delete.close)
            await self._idle.wait()
            await self._driver.drain()

    @contextmanager
    def _track(self) -> Iterator[None]:
        """Count an active search: `close` waits for it."""
        self._check_loop()
        if self._closing is not None:
            raise StoreError(f"this client of '{self._client.collection}' was closed: open another")
        self._active += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._active -= 1
            if self._active == 0:
                self._idle.set()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("this client belongs to another event loop: open one in each loop")


def _close_opened(opening: Future[_Opened]) -> None:
    """Close a client that was opened, in the thread that opened it."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()

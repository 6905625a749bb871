"""Blocking search client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from os import PathLike

from msmarco_qdrant.collection.facets import FacetRequest, read_facets
from msmarco_qdrant.collection.passages import check_count, get_passages, read_count
from msmarco_qdrant.collection.scroll import ScrollRequest, read_scroll
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.example import Example, VectorLike
from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.records import WINDOW, Passage
from msmarco_qdrant.core.reports import UpsertReport
from msmarco_qdrant.core.search_types import (
    DEFAULT_EFFORT,
    Facet,
    Fusion,
    FusionMethod,
    Merge,
    SearchMode,
)
from msmarco_qdrant.encoding import Encoder, Reranker, load_reranker
from msmarco_qdrant.encoding.matching import load_collection_encoder
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.encoding.options import (
    EncoderChoices,
    EncoderOptions,
    resolve_devices,
)
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.search.driver import run_steps
from msmarco_qdrant.search.options import (
    RankOptions,
    RerankDepth,
    SearchOptions,
    SimilarOptions,
)
from msmarco_qdrant.search.searcher_refresh import LoadEncoder
from msmarco_qdrant.search.session import SearchSession
from msmarco_qdrant.search.similar import to_examples
from msmarco_qdrant.search.writer import Deletion, PassageWriter
from msmarco_qdrant.sources.python_rows import PythonRows, Rows
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store


class SearchClient:
    """Client that searches one collection, and writes to it.

    If the collection is re-embedded, the next search loads the new model. Thread-safe. Use it as a
    context manager, or call `close`::

        with SearchClient.open("./qdrant_data", collection="msmarco") as client:
            hits = client.search("how big is london", limit=5)

    Args:
        store: An open store.
        collection: The collection's name.
        encoder: The encoder of that collection; None to search by "bm25" only.
        reranker: The cross-encoder for `rerank_depth`.
        owns_store: True to close the store with the client.
        load_encoder: See `open`.

    Attributes:
        store: The store.
        collection: The collection's name.
        session: The session, for drivers that execute the steps of a search themselves.
        writer: The writer, for drivers that batch writes themselves.

    Raises:
        CollectionNotFoundError: If the store has no collection of that name.
        ModelMismatchError: If the encoder is not the collection's.
    """

    def __init__(
        self,
        store: Store,
        collection: str,
        encoder: Encoder | None,
        *,
        reranker: Reranker | None = None,
        owns_store: bool = False,
        load_encoder: LoadEncoder | None = None,
    ) -> None:
        self.store = store
        self.collection = collection
        self._owns_store = owns_store
        load_encoder = load_encoder or partial(load_collection_encoder, collection)
        self.session = SearchSession(store, collection, encoder, reranker, load_encoder)
        self.writer = PassageWriter(self.session, store, collection)

    @classmethod
    @suggest_keywords
    def open(  # noqa: PLR0913  # all but one have defaults
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
    ) -> SearchClient:
        """Open a client on a collection.

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

        Raises:
            StoreNotFoundError: If there is nothing at that path.
            StoreInUseError: If another process uses the directory.
            CollectionNotFoundError: If the store has no collection of that name.
            ModelNotFoundError: If the model cannot be loaded.
            ModelMismatchError: If it is not the model of the collection's vectors.
            UsageError: For `encoder` together with `model`, or with options that no model has.
        """
        models = ModelChoice.of(model, encoder_options)
        models.require_instead_of(encoder, loads_others=isinstance(reranker, str | PathLike))
        if bm25_only and (encoder is not None or model is not None):
            raise UsageError("bm25_only loads no model: omit model and encoder")
        owns_store = isinstance(store, str | PathLike)
        with ExitStack() as stack:
            opened = stack.enter_context(use_store(store, connection))
            info = opened.metadata(collection).encoder
            if encoder is None and not bm25_only:
                encoder = _load_current_encoder(opened, collection, info, models)
            client = cls(
                opened,
                collection,
                encoder,
                reranker=load_reranker_for(reranker, models.options),
                owns_store=owns_store,
                load_encoder=load_encoder
                or partial(load_collection_encoder, collection, model=None, options=models.options),
            )
            stack.pop_all()
        return client

    @property
    def encoder(self) -> Encoder:
        """The encoder of queries; a re-embedding of the collection replaces it.

        Raises:
            UsageError: If the client was opened without one.
        """
        return self.session.current.encoder

    @property
    def reranker(self) -> Reranker:
        """The cross-encoder.

        Raises:
            UsageError: If the client was opened without one.
        """
        return self.session.reranker

    @property
    def metadata(self) -> CollectionMetadata:
        """The collection's encoder, BM25 settings and migrations.

        After a re-embedding, the new ones once a search noticed it.
        """
        return self.session.current.metadata

    @suggest_keywords
    def search(  # noqa: PLR0913  # all but one have defaults
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
        (hits,) = run_steps(self.session, self.session.search([query], options))
        return hits

    @suggest_keywords
    def search_many(  # noqa: PLR0913  # all but one have defaults
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
        return run_steps(self.session, self.session.search(queries, options))

    @suggest_keywords
    def similar(  # noqa: PLR0913  # all have defaults
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
        return run_steps(self.session, self.session.similar(examples, options))

    @suggest_keywords
    def rank(  # noqa: PLR0913  # most have defaults
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
        (hits,) = self.rank_many(
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
    def rank_many(  # noqa: PLR0913  # most have defaults
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
        found = run_steps(self.session, steps)
        return [Hits(hits) for hits in found]

    @suggest_keywords
    def upsert(self, passages: Rows) -> UpsertReport:
        """Write passages, durably; unchanged ones are skipped, as by an ingest.

        Searches find them at once. An index is built after some thousand passages, not by each
        call.

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
        report = UpsertReport()
        for batch in in_batches(PythonRows(passages), WINDOW):
            report += self.writer.report(self.writer.upsert(batch))
        return report

    @suggest_keywords
    def delete(
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
        return self.writer.delete(Deletion(pids, meta_filter, tenant))

    def get(self, pids: Iterable[str], *, tenant: str | None = None) -> dict[str, Passage]:
        """Read passages by their pids; those that the collection lacks are omitted.

        Args:
            pids: The passages to read.
            tenant: Only this tenant's passages, which a collection with a tenant field requires.

        Raises:
            UsageError: If a pid is not a non-empty string.
            StoreError: If the store fails.
        """
        self.session.check_open()
        return get_passages(self.store, pids, tenant=tenant, collection=self.collection)

    @suggest_keywords
    def count(
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
        check_count(meta_filter, exact=exact)
        scope = self.session.scope(tenant)
        return read_count(self.session.collection, meta_filter, exact=exact, scope=scope)

    @suggest_keywords
    def facets(
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
        scope = self.session.scope(tenant)
        request = FacetRequest(field, limit, meta_filter, exact, scope)
        return read_facets(self.store, self.session.collection, self.collection, request)

    @suggest_keywords
    def scroll(
        self,
        *,
        meta_filter: SearchFilter | None = None,
        tenant: str | None = None,
        order_by: str | None = None,
        after: str | None = None,
    ) -> Iterator[Passage]:
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
        scope = self.session.scope(tenant)
        request = ScrollRequest(meta_filter, order_by, after, scope)
        source, foreign = self.session.collection, self.session.foreign
        return read_scroll(self.store, source, self.collection, foreign, request)

    def warm_up(self) -> None:
        """Run the first call of each model now, so that the first search is fast."""
        self.session.warm_up()

    def close(self) -> None:
        """Close the store, if this client opened it. Further calls have no effect."""
        self.session.close()
        if self._owns_store:
            self.store.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.session.describe()}>"

    def __enter__(self) -> SearchClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load_current_encoder(
    store: Store, collection: str, info: EncoderInfo, models: ModelChoice
) -> Encoder:
    """Load a collection's encoder, and again if the collection is re-embedded while it loads."""
    while True:
        encoder = models.load_for(collection, info)
        loaded, info = info, store.metadata(collection).encoder
        if info.fingerprint == loaded.fingerprint:
            return encoder


def load_reranker_for(
    reranker: str | PathLike[str] | Reranker | None, options: EncoderOptions | None
) -> Reranker | None:
    """Load a cross-encoder given by name, to run on the encoder's device and precision."""
    if not isinstance(reranker, str | PathLike):
        return reranker
    options = options or EncoderOptions()
    return load_reranker(
        reranker,
        device=resolve_devices(options.device)[0],
        # no backend runs a cross-encoder in 8 bits
        precision=None if options.precision in ("int8", "fp8") else options.precision,
    )

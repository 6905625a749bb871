"""Queries to ranked passages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import PathLike
from typing import TypeVar, Unpack

from msmarco_qdrant.core.records import CollectionMetadata, EncoderInfo
from msmarco_qdrant.core.search_types import Fusion, Hit, SearchMode
from msmarco_qdrant.encoding import Encoder, Reranker, load_reranker
from msmarco_qdrant.encoding.matching import load_collection_encoder
from msmarco_qdrant.encoding.options import EncoderOptions, resolve_devices
from msmarco_qdrant.errors import SchemaError, UsageError
from msmarco_qdrant.search.options import CONVEX, SearchOptions
from msmarco_qdrant.search.session import LoadEncoder, SearchSession
from msmarco_qdrant.search.steps import Steps
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, open_store

_T = TypeVar("_T")


class SearchClient:
    """Answers queries from one collection.

    If the collection is re-embedded meanwhile, the search that notices it loads the new model.
    Thread-safe. Use it as a context manager, or call `close`::

        with SearchClient.open("./qdrant_data", collection="msmarco") as client:
            hits = client.search("how big is london", limit=5)

    Args:
        store: An open store; the client closes it only if `owns_store`.
        collection: The collection's name.
        encoder: The encoder of that collection; None to search by "bm25" only.
        reranker: What `rerank_depth` scores the best again with.
        owns_store: Whether `close` closes the store.
        load_encoder: What loads the model of a collection that was re-embedded meanwhile, from
            what its metadata say of it; by default by the name that they remember.

    Raises:
        CollectionNotFoundError: If the store holds no collection of that name.
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
        self._store = store
        self._owns_store = owns_store
        self._name = collection
        load_encoder = load_encoder or partial(load_collection_encoder, collection)
        self._session = SearchSession(store, collection, encoder, reranker, load_encoder)

    @classmethod
    def open(  # noqa: PLR0913  # all but one have defaults
        cls,
        store: Store | str | PathLike[str],
        *,
        collection: str = "msmarco",
        model: str | PathLike[str] | None = None,
        encoder: Encoder | None = None,
        encoder_options: EncoderOptions | None = None,
        reranker: str | PathLike[str] | Reranker | None = None,
        bm25_only: bool = False,
        connection: Connection = DEFAULT_CONNECTION,
        load_encoder: LoadEncoder | None = None,
    ) -> SearchClient:
        """Open a client on a collection.

        Args:
            store: Where the collection is, or an open store, which stays the caller's.
            collection: Its name.
            model: Where to load its model from, if not by the name that the collection remembers.
            encoder: A ready encoder, instead.
            encoder_options: Where and how the model runs, and how many queries' vectors it
                remembers; None for what is fastest here, and 1,024.
            reranker: A cross-encoder, or what to load one from: a name of the catalog, a hub id or
                a directory. It runs where the encoder does, on the first of several devices.
            bm25_only: Load no model: only "bm25" searches can be served.
            connection: The API key, port and time limits of a server, where `store` is a URL.
            load_encoder: What loads the model of a collection that was re-embedded meanwhile, from
                what its metadata say of it; by default by the name that they remember, with
                `encoder_options`.

        Raises:
            StoreNotFoundError: If nothing is stored there.
            StoreInUseError: If another process holds the directory.
            CollectionNotFoundError: If the store holds no collection of that name.
            ModelNotFoundError: If the model cannot be loaded.
            ModelMismatchError: If it is not the one whose vectors the collection holds.
        """
        if encoder is not None and model is not None:
            raise UsageError("pass a model or an encoder, not both")
        if bm25_only and (encoder is not None or model is not None):
            raise UsageError("with bm25_only no model is loaded: leave model and encoder out")
        owns_store = isinstance(store, str | PathLike)
        opened = (
            open_store(store, connection=connection) if isinstance(store, str | PathLike) else store
        )
        try:
            encoder_info = opened.metadata(collection).encoder
            if encoder is None and not bm25_only:
                encoder = _encoder_by_now(opened, collection, encoder_info, model, encoder_options)
            return cls(
                opened,
                collection,
                encoder,
                reranker=load_reranker_for(reranker, encoder_options),
                owns_store=owns_store,
                load_encoder=load_encoder
                or partial(
                    load_collection_encoder, collection, model=None, options=encoder_options
                ),
            )
        except BaseException:
            if owns_store:
                opened.close()
            raise

    @property
    def store(self) -> Store:
        """The store that it searches in."""
        return self._store

    @property
    def collection(self) -> str:
        """The collection's name."""
        return self._name

    @property
    def encoder(self) -> Encoder:
        """What encodes its queries now; a re-embed of the collection brings another.

        Raises:
            UsageError: If it was opened without one.
        """
        return self._session.current.encoder

    @property
    def reranker(self) -> Reranker:
        """What scores the best again.

        Raises:
            UsageError: If it was opened without one.
        """
        return self._session.reranker

    @property
    def metadata(self) -> CollectionMetadata:
        """What the collection says of itself: its encoder, BM25 settings and migrations.

        After a re-embed, what it says since a search has noticed it.
        """
        return self._session.current.metadata

    @property
    def session(self) -> SearchSession:
        """What it searches with, for who does the steps of a search in another way."""
        return self._session

    def search(self, query: str, **options: Unpack[SearchOptions]) -> list[Hit]:
        """The passages that answer a query best.

        Args:
            query: A search query, keywords, or a question.
            **options: See `SearchOptions`: `limit`, `mode`, `rerank_depth`, `meta_filter`, ...

        Returns:
            Hits by descending score; fewer than `limit` when the collection holds fewer.

        Raises:
            UsageError: For an empty query, or an option that cannot be served.
            EncodingError: If the model has no vector for the query.
            StoreError: If the engine fails.
        """
        return self.search_many([query], **options)[0]

    def search_many(
        self, queries: Sequence[str], **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """The passages that answer each of several queries: one batch to encoder and engine.

        Options and errors are those of `search`; the answers come in the order of the queries.
        """
        return self._done(self._session.search(queries, options))

    def rank(
        self,
        query: str,
        pids: Sequence[str],
        *,
        mode: SearchMode = "dense",
        fusion: Fusion = CONVEX,
        rerank: bool = False,
    ) -> list[Hit]:
        """Given passages by how well they answer a query; those that are not there are left out.

        Args:
            query: A search query, keywords, or a question.
            pids: The passages.
            mode: What they are scored by, as in `search`; every score is exact.
            fusion: How "hybrid" makes one ranking of two. Ranks, and the query's best BM25 score,
                are those among the given passages.
            rerank: Score them all by the client's cross-encoder.

        Raises:
            UsageError: For an empty query, or more passages than 10,000.
            EncodingError: If the model has no vector for the query.
            StoreError: If the engine fails.
        """
        return self.rank_many([query], [pids], mode=mode, fusion=fusion, rerank=rerank)[0]

    def rank_many(
        self,
        queries: Sequence[str],
        pids: Sequence[Sequence[str]],
        *,
        mode: SearchMode = "dense",
        fusion: Fusion = CONVEX,
        rerank: bool = False,
    ) -> list[list[Hit]]:
        """Given passages for each of several queries; see `rank`."""
        return self._done(
            self._session.rank(queries, pids, mode=mode, fusion=fusion, rerank=rerank)
        )

    def warm_up(self) -> None:
        """Do now what happens once in the model, so that the first search does not wait for it."""
        self._session.warm_up()

    def close(self) -> None:
        """Give the store back, if this client opened it. Closing twice is no error."""
        self._session.close()
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> SearchClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _done(self, steps: Steps[_T]) -> _T:
        """Do every step of a search, one after the other."""
        try:
            step = next(steps)
            while True:
                try:
                    told = self._session.do(step)
                except SchemaError as exc:  # which the search may get over
                    step = steps.throw(exc)
                else:
                    step = steps.send(told)
        except StopIteration as end:
            found: _T = end.value
            return found


def _encoder_by_now(
    store: Store,
    collection: str,
    encoder_info: EncoderInfo,
    model: str | PathLike[str] | None,
    options: EncoderOptions | None,
) -> Encoder:
    """The encoder of a collection, which may be re-embedded while its model is being loaded."""
    while True:
        encoder = load_collection_encoder(collection, encoder_info, model, options)
        loaded, encoder_info = encoder_info, store.metadata(collection).encoder
        if encoder_info.fingerprint == loaded.fingerprint:
            return encoder


def load_reranker_for(
    reranker: str | PathLike[str] | Reranker | None, options: EncoderOptions | None
) -> Reranker | None:
    """A cross-encoder, loaded if it is given by name, to run as the encoder does."""
    if not isinstance(reranker, str | PathLike):
        return reranker
    options = options or EncoderOptions()
    return load_reranker(
        reranker,
        device=resolve_devices(options.device)[0],
        # int8 is of a backend that cross-encoders have not
        precision=None if options.precision == "int8" else options.precision,
    )

"""Phrases to ranked passages."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, TypeVar, Unpack

from msmarco_qdrant._search_steps import (
    Ask,
    Encode,
    Inspect,
    Read,
    Score,
    SearchSteps,
    Step,
    Steps,
)
from msmarco_qdrant.encoding import Encoder, Reranker, load_reranker
from msmarco_qdrant.encoding.matching import check_same, encoder_of
from msmarco_qdrant.encoding.options import EncoderOptions, devices_of
from msmarco_qdrant.errors import StoreError, UsageError
from msmarco_qdrant.records import CollectionMetadata, Fusion, Hit, SearchMode
from msmarco_qdrant.search_request import (
    CONVEX,
    SearchOptions,
    SearchRequest,
    check_phrases,
    check_pids,
)
from msmarco_qdrant.stores import NO_SETTINGS, Connection, Store, open_store
from msmarco_qdrant.stores.points import HIT_FIELDS

_T = TypeVar("_T")


class SearchClient:
    """Answers phrases from one collection.

    Thread-safe. Use it as a context manager, or call `close`::

        with SearchClient.open("./qdrant_data", collection="msmarco") as client:
            hits = client.search("how big is london", limit=5)

    Args:
        store: An open store; the client closes it only if `owns_store`.
        collection: The collection's name.
        encoder: The encoder of that collection; None to search by "bm25" only.
        reranker: What `rerank_depth` scores the best again with.
        owns_store: Whether `close` closes the store.

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
    ) -> None:
        self._store = store
        self._owns_store = owns_store
        self._name = collection
        self._metadata = store.metadata(collection)
        if encoder is not None:
            check_same(collection, self._metadata.encoder, encoder.card)
        self._encoder = encoder
        self._reranker = reranker
        self._collection = store.collection(collection)
        self._steps = SearchSteps(self._metadata, indexed=store.capabilities.payload_indexes)
        self._closed = False

    @classmethod
    def open(
        cls,
        store: Store | str | PathLike[str],
        *,
        collection: str = "msmarco",
        model: str | PathLike[str] | None = None,
        encoder: Encoder | None = None,
        encoder_options: EncoderOptions | None = None,
        reranker: str | PathLike[str] | Reranker | None = None,
        bm25_only: bool = False,
        connection: Connection = NO_SETTINGS,
    ) -> SearchClient:
        """Open a client on a collection.

        Args:
            store: Where the collection is, or an open store, which stays the caller's.
            collection: Its name.
            model: Where to load its model from, if not by the name that the collection remembers.
            encoder: A ready encoder, instead.
            encoder_options: Where and how the model runs, and how many phrases' vectors it
                remembers; None for what is fastest here, and 1,024.
            reranker: A cross-encoder, or what to load one from: a name of the catalog, a hub id or
                a directory. It runs where the encoder does, on the first of several devices.
            bm25_only: Load no model: only "bm25" searches can be served.
            connection: The API key, port and time limits of a server, where `store` is a URL.

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
            card = opened.metadata(collection).encoder
            if encoder is None and not bm25_only:
                encoder = encoder_of(collection, card, model, encoder_options)
            return cls(
                opened,
                collection,
                encoder,
                reranker=_loaded(reranker, encoder_options),
                owns_store=owns_store,
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
        """What encodes its phrases.

        Raises:
            UsageError: If it was opened without one.
        """
        if self._encoder is None:
            raise UsageError("this client was opened with bm25_only: it has no encoder")
        return self._encoder

    @property
    def reranker(self) -> Reranker:
        """What scores the best again.

        Raises:
            UsageError: If it was opened without one.
        """
        if self._reranker is None:
            raise UsageError("this client was opened without a reranker")
        return self._reranker

    @property
    def metadata(self) -> CollectionMetadata:
        """What the collection says of itself: its encoder, BM25 settings and migrations."""
        return self._metadata

    def search(self, phrase: str, **options: Unpack[SearchOptions]) -> list[Hit]:
        """The passages that answer a phrase best.

        Args:
            phrase: A search phrase, keywords, or a question.
            **options: See `SearchOptions`: `limit`, `mode`, `rerank_depth`, `meta_filter`, ...

        Returns:
            Hits by descending score; fewer than `limit` when the collection holds fewer.

        Raises:
            UsageError: For an empty phrase, or an option that cannot be served.
            EncodingError: If the model has no vector for the phrase.
            StoreError: If the engine fails.
        """
        return self.search_many([phrase], **options)[0]

    def search_many(
        self, phrases: Sequence[str], **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """The passages that answer each of several phrases: one batch to encoder and engine.

        Options and errors are those of `search`; the answers come in the order of the phrases.
        """
        return self._done(self.steps_of_search(phrases, options))

    def rank(
        self,
        phrase: str,
        pids: Sequence[str],
        *,
        mode: SearchMode = "dense",
        fusion: Fusion = CONVEX,
        rerank: bool = False,
    ) -> list[Hit]:
        """Given passages by how well they answer a phrase; those that are not there are left out.

        Args:
            phrase: A search phrase, keywords, or a question.
            pids: The passages.
            mode: What they are scored by, as in `search`; every score is exact.
            fusion: How "hybrid" makes one ranking of two. Ranks, and the phrase's best BM25 score,
                are those among the given passages.
            rerank: Score them all by the client's cross-encoder.

        Raises:
            UsageError: For an empty phrase, or more passages than 10,000.
            EncodingError: If the model has no vector for the phrase.
            StoreError: If the engine fails.
        """
        return self.rank_many([phrase], [pids], mode=mode, fusion=fusion, rerank=rerank)[0]

    def rank_many(
        self,
        phrases: Sequence[str],
        pids: Sequence[Sequence[str]],
        *,
        mode: SearchMode = "dense",
        fusion: Fusion = CONVEX,
        rerank: bool = False,
    ) -> list[list[Hit]]:
        """Given passages for each of several phrases; see `rank`."""
        return self._done(
            self.steps_of_rank(phrases, pids, mode=mode, fusion=fusion, rerank=rerank)
        )

    def steps_of_search(
        self, phrases: Sequence[str], options: SearchOptions
    ) -> Steps[list[list[Hit]]]:
        """The steps of `search_many`, checked and not begun: for who does them in another way."""
        self._check_open()
        check_phrases(phrases)
        request = SearchRequest(**options)
        self._check_has(request.mode, reranking=request.rerank_depth is not None)
        return self._steps.search(phrases, request)

    def steps_of_rank(
        self,
        phrases: Sequence[str],
        pids: Sequence[Sequence[str]],
        *,
        mode: SearchMode,
        fusion: Fusion,
        rerank: bool,
    ) -> Steps[list[list[Hit]]]:
        """The steps of `rank_many`, checked and not begun."""
        self._check_open()
        check_phrases(phrases)
        check_pids(phrases, pids)
        request = SearchRequest(mode=mode, fusion=fusion)
        self._check_has(mode, reranking=rerank)
        return self._steps.rank(phrases, pids, request.mode, request.fusion, rerank=rerank)

    def do(self, step: Step) -> Any:
        """Do one step of a search, and give what it wants."""
        match step:
            case Encode(phrases):
                return self.encoder.encode_queries(phrases)
            case Ask(queries):
                return self._collection.query(queries)
            case Read(ids):
                return self._collection.retrieve(ids, HIT_FIELDS)
            case Score(pairs):
                return self.reranker.scores(pairs)
            case Inspect():
                return self._collection.info().spec.payload_indexes

    def warm_up(self) -> None:
        """Do now what happens once in the model, so that the first search does not wait for it."""
        for model in (self._encoder, self._reranker):
            if model is not None:
                model.warm_up()

    def close(self) -> None:
        """Give the store back, if this client opened it. Closing twice is no error."""
        self._closed = True
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
                step = steps.send(self.do(step))
        except StopIteration as end:
            found: _T = end.value
            return found

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"this client of '{self._name}' was closed: open another")

    def _check_has(self, mode: SearchMode, *, reranking: bool) -> None:
        """Refuse what the client was opened without."""
        if mode != "bm25" and self._encoder is None:
            raise UsageError(f"this client was opened with bm25_only: it cannot search by {mode}")
        if reranking and self._reranker is None:
            raise UsageError(
                "this client was opened without a reranker: pass reranker='ms-marco-MiniLM-L6-v2', "
                "or another cross-encoder, to open()"
            )


def _loaded(
    reranker: str | PathLike[str] | Reranker | None, options: EncoderOptions | None
) -> Reranker | None:
    """A cross-encoder, loaded if it is given by name, to run as the encoder does."""
    if not isinstance(reranker, str | PathLike):
        return reranker
    options = options or EncoderOptions()
    return load_reranker(
        reranker,
        device=devices_of(options.device)[0],
        # int8 is of a backend that cross-encoders have not
        precision=None if options.precision == "int8" else options.precision,
    )

"""Phrases to ranked passages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING

from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.matching import check_same, encoder_of
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import StoreError, UsageError
from msmarco_qdrant.records import CollectionMetadata, DenseQuery, Hit, MetaFilter, ScoredPoint
from msmarco_qdrant.stores import NO_SETTINGS, Connection, Store, open_store
from msmarco_qdrant.stores.points import passage_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EF = 128
"""Candidates considered in the graph: with it no query of TREC DL 2019 or MS MARCO dev lost half
of its exact top 10 on 47,283 real passages."""

_MAX_LIMIT = 10_000


class SearchClient:
    """Answers phrases from one collection.

    Thread-safe. Use it as a context manager, or call `close`::

        with SearchClient.open("./qdrant_data", collection="msmarco") as client:
            hits = client.search("how big is london", limit=5)

    Args:
        store: An open store; the client closes it only if `owns_store`.
        collection: The collection's name.
        encoder: The encoder of that collection.
        owns_store: Whether `close` closes the store.

    Raises:
        CollectionNotFoundError: If the store holds no collection of that name.
        ModelMismatchError: If the encoder is not the collection's.
    """

    def __init__(
        self, store: Store, collection: str, encoder: Encoder, *, owns_store: bool = False
    ) -> None:
        self._store = store
        self._owns_store = owns_store
        self._name = collection
        self._metadata = store.metadata(collection)
        check_same(collection, self._metadata.encoder, encoder.card)
        self._encoder = encoder
        self._collection = store.collection(collection)
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
        owns_store = isinstance(store, str | PathLike)
        opened = (
            open_store(store, connection=connection) if isinstance(store, str | PathLike) else store
        )
        try:
            if encoder is None:
                card = opened.metadata(collection).encoder
                encoder = encoder_of(collection, card, model, encoder_options)
            return cls(opened, collection, encoder, owns_store=owns_store)
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
        """What encodes its phrases."""
        return self._encoder

    @property
    def metadata(self) -> CollectionMetadata:
        """What the collection says of itself: its encoder, BM25 settings and migrations."""
        return self._metadata

    def search(
        self,
        phrase: str,
        *,
        limit: int = 10,
        meta_filter: MetaFilter | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """The passages nearest to a phrase.

        Args:
            phrase: A search phrase, keywords, or a question.
            limit: Most hits wanted, 1 to 10,000.
            meta_filter: Conditions on `meta` fields, such as
                `{"lang": "en", "year": [2023, 2024]}`; dots in a field's name go into objects.
            exact: Compare with every passage, instead of following the graph.

        Returns:
            Hits by descending score; fewer than `limit` when the collection holds fewer.

        Raises:
            UsageError: For an empty phrase, a limit out of range, or a filter that cannot match.
            EncodingError: If the model has no vector for the phrase.
            StoreError: If the engine fails.
        """
        return self.search_many([phrase], limit=limit, meta_filter=meta_filter, exact=exact)[0]

    def search_many(
        self,
        phrases: Sequence[str],
        *,
        limit: int = 10,
        meta_filter: MetaFilter | None = None,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """The passages nearest to each of several phrases: one batch to encoder and engine.

        Args and errors are those of `search`; the answers come in the order of the phrases.
        """
        if self._closed:
            raise StoreError(f"this client of '{self._name}' was closed: open another")
        check_request(phrases, limit)
        check_filter(meta_filter)
        if not phrases:
            return []
        vectors = self._encoder.encode_queries(phrases)
        queries = dense_queries(
            vectors, self._metadata, limit=limit, meta_filter=meta_filter, exact=exact
        )
        return [to_hits(points) for points in self._collection.query(queries)]

    def warm_up(self) -> None:
        """Do now what happens once in the model, so that the first search does not wait for it."""
        self._encoder.warm_up()

    def close(self) -> None:
        """Give the store back, if this client opened it. Closing twice is no error."""
        self._closed = True
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> SearchClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- requests and answers, without I/O -----------------------------------------------------


def check_request(phrases: Sequence[str], limit: int) -> None:
    """Refuse what cannot be asked.

    Raises:
        UsageError: For one string where several were expected, an empty phrase, or a limit out of
            range.
    """
    if isinstance(phrases, str) or not isinstance(phrases, Sequence):
        raise UsageError("search_many takes a list of phrases; for one phrase call search")
    if not isinstance(limit, int) or not 1 <= limit <= _MAX_LIMIT:
        raise UsageError(f"a limit of {limit} cannot be served: expected 1 to {_MAX_LIMIT:,}")
    for phrase in phrases:
        if not isinstance(phrase, str):
            raise UsageError(f"a phrase is a string, not a {type(phrase).__name__}")
        if not _is_text(phrase):
            raise UsageError(f"the phrase {phrase!r} holds a lone surrogate: expected text")
        if not phrase.strip():
            raise UsageError("the phrase is empty: expected some words to search for")


def check_filter(meta_filter: MetaFilter | None) -> None:
    """Refuse a filter that no engine can compare with.

    Raises:
        UsageError: For a field without a value, or a value that is no string, boolean, finite
            number, or integer of 64 bits with a sign.
    """
    if meta_filter is not None and not isinstance(meta_filter, Mapping):
        raise UsageError(f"a filter is a mapping of fields, not a {type(meta_filter).__name__}")
    for field, given in (meta_filter or {}).items():
        if not isinstance(field, str) or '"' in field or "\0" in field or not _is_text(field):
            raise UsageError(f"{field!r} cannot name a field of a filter")
        values = (
            [given] if isinstance(given, str | bytes) or not isinstance(given, Sequence) else given
        )
        if not values:
            raise UsageError(f"the filter on '{field}' has no value: leave it out, or give one")
        for value in values:
            if not _comparable(value):
                raise UsageError(
                    f"the filter on '{field}' has the value {value!r}: expected a string, a "
                    "boolean, a finite number, or an integer that fits 64 bits with a sign"
                )


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _comparable(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, str) and _is_text(value)


def dense_queries(
    vectors: NDArray[np.float32],
    metadata: CollectionMetadata,
    *,
    limit: int,
    meta_filter: MetaFilter | None,
    exact: bool,
) -> list[DenseQuery]:
    """One query to the engine for each row of float32 `(n, dimension)`."""
    return [
        DenseQuery(
            vector=vector,
            using=metadata.encoder.vector_name,
            limit=limit,
            ef=max(EF, limit),
            exact=exact,
            meta_filter=meta_filter,
        )
        for vector in vectors
    ]


def to_hits(points: Sequence[ScoredPoint]) -> list[Hit]:
    """Ranked hits from the engine's answer, in its order.

    Raises:
        PidCollisionError: If a point was not written by this package.
        StoreCorruptError: If a point holds no text.
    """
    passages = [passage_of(point.id, point.payload) for point in points]
    return [
        Hit(rank=rank, pid=found.pid, score=point.score, text=found.text, meta=found.meta)
        for rank, (point, found) in enumerate(zip(points, passages, strict=True), start=1)
    ]

"""Searching one collection by the model whose vectors it holds, also when that changes meanwhile.

The name that users see may lead to a collection of another model at any time. What a search goes
by (the metadata, the encoder, the steps) is therefore one value, replaced as a whole: a search
that finds its vectors gone has the metadata read again and the new model loaded, once for all
that wait for it, and begins anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from msmarco_qdrant.core.records import CollectionMetadata, EncoderInfo
from msmarco_qdrant.core.search_types import Fusion, Hit, SearchMode
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.matching import require_same_model
from msmarco_qdrant.errors import ModelNotFoundError, SchemaError, StoreError, UsageError
from msmarco_qdrant.search.options import SearchOptions, SearchRequest, check_pids, check_queries
from msmarco_qdrant.search.steps import (
    Encode,
    GetPayloadIndexes,
    Query,
    Refresh,
    Retrieve,
    Score,
    Searcher,
    Step,
    Steps,
)
from msmarco_qdrant.stores import AliasedCollection, Store
from msmarco_qdrant.stores.filters import to_qdrant
from msmarco_qdrant.stores.payload import HIT_FIELDS

LoadEncoder: TypeAlias = Callable[[EncoderInfo], Encoder]

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# A name may lead to another collection while it is asked and back again when its metadata are
# read: an error is believed when they were the same so often in a row.
_UNCHANGED_AT_MOST = 5


def retry_after_model_swap(steps: Searcher, search: Callable[[Searcher], Steps[_T]]) -> Steps[_T]:
    """A search, done again as a whole as often as the collection holds another model's vectors.

    Whoever does its steps throws a `SchemaError` into it.

    Args:
        steps: What it goes by at first.
        search: Begins it.
    """
    unchanged = 0
    while True:
        try:
            return (yield from search(steps))
        except SchemaError:
            newer: Searcher = yield Refresh(steps)
            unchanged = unchanged + 1 if newer is steps else 0
            if unchanged > _UNCHANGED_AT_MOST:
                raise
            steps = newer


class SearchSession:
    """What the blocking client and the one of an event loop have in common. Thread-safe.

    Args:
        store: An open store, which stays the caller's.
        collection: The collection's name.
        encoder: The encoder of that collection; None to search by "bm25" only.
        reranker: What scores the best again, if anything does.
        load_encoder: What loads the model of a collection that was re-embedded meanwhile.

    Raises:
        CollectionNotFoundError: If the store holds no collection of that name.
        ModelMismatchError: If the encoder is not the collection's.
    """

    def __init__(
        self,
        store: Store,
        collection: str,
        encoder: Encoder | None,
        reranker: Reranker | None,
        load_encoder: LoadEncoder,
    ) -> None:
        self._store = store
        self._name = collection
        self._load_encoder = load_encoder
        metadata = store.metadata(collection)
        if encoder is not None:
            require_same_model(collection, metadata.encoder, encoder.info)
        self._current = self._steps(metadata, encoder)
        self._renewing = threading.Lock()
        self._live = AliasedCollection(store, collection)
        self._reranker = reranker
        self._closed = False

    @property
    def current(self) -> Searcher:
        """What searches that begin now go by."""
        return self._current

    @property
    def reranker(self) -> Reranker:
        """What scores the best again.

        Raises:
            UsageError: If there is none.
        """
        if self._reranker is None:
            raise UsageError("this client was opened without a reranker")
        return self._reranker

    def search(self, queries: Sequence[str], options: SearchOptions) -> Steps[list[list[Hit]]]:
        """The steps of a search, checked and not begun."""
        self._check_open()
        check_queries(queries)
        request = SearchRequest(**options)
        self._check_has(request.mode, reranking=request.rerank_depth is not None)
        return retry_after_model_swap(self._current, lambda steps: steps.search(queries, request))

    def rank(
        self,
        queries: Sequence[str],
        pids: Sequence[Sequence[str]],
        *,
        mode: SearchMode,
        fusion: Fusion,
        rerank: bool,
    ) -> Steps[list[list[Hit]]]:
        """The steps of ranking given passages, checked and not begun."""
        self._check_open()
        check_queries(queries)
        check_pids(queries, pids)
        request = SearchRequest(mode=mode, fusion=fusion)
        self._check_has(mode, reranking=rerank)
        return retry_after_model_swap(
            self._current,
            lambda steps: steps.rank(queries, pids, request.mode, request.fusion, rerank=rerank),
        )

    def do(self, step: Step) -> Any:
        """Do one step of a search, and give what it wants."""
        match step:
            case Encode(encoder, queries):
                return encoder.encode_queries(queries)
            case Query(point_queries):
                return self._live.query(point_queries)
            case Retrieve(ids):
                return self._live.retrieve(ids, HIT_FIELDS)
            case Score(pairs):
                return self.reranker.scores(pairs)
            case GetPayloadIndexes():
                return self._live.info().spec.payload_indexes
            case Refresh(used):
                return self._renewed(used)

    def warm_up(self) -> None:
        """Do now what happens once: in the models, and in the code that filters need."""
        to_qdrant({"any": "value"})  # which imports much, the first time
        if not self._current.bm25_only:
            self._current.encoder.warm_up()
        if self._reranker is not None:
            self._reranker.warm_up()

    def close(self) -> None:
        """Begin no search any more."""
        self._closed = True

    def _renewed(self, used: Searcher) -> Searcher:
        """What to go by instead; one thread finds out, the others wait for it."""
        with self._renewing:
            if self._current is used:
                self._current = self._read_again(used)
            return self._current

    def _read_again(self, used: Searcher) -> Searcher:
        metadata = self._store.metadata(self._name)
        old, new = used.metadata.encoder, metadata.encoder
        if old.fingerprint == new.fingerprint:
            return used
        if used.bm25_only:
            return self._steps(metadata, None)
        return self._steps(metadata, self._loaded(new, old.model))

    def _loaded(self, encoder_info: EncoderInfo, old: str) -> Encoder:
        """The encoder that the collection was re-embedded with."""
        begun = time.monotonic()
        try:
            encoder = self._load_encoder(encoder_info)
            require_same_model(self._name, encoder_info, encoder.info)
        except Exception as exc:
            raise ModelNotFoundError(
                f"collection '{self._name}' was re-embedded with {encoder_info.model} meanwhile (it was "
                f"{old}), and that cannot be loaded: {exc}. The next search tries again; or open "
                "another client, with where the model is"
            ) from exc
        _log.info(
            "collection '%s' now holds vectors of %s (was %s), loaded in %.1f s",
            *(self._name, encoder_info.model, old, time.monotonic() - begun),
        )
        return encoder

    def _steps(self, metadata: CollectionMetadata, encoder: Encoder | None) -> Searcher:
        return Searcher(metadata, encoder, indexed=self._store.capabilities.payload_indexes)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"this client of '{self._name}' was closed: open another")

    def _check_has(self, mode: SearchMode, *, reranking: bool) -> None:
        """Refuse what the client was opened without."""
        if mode != "bm25" and self._current.bm25_only:
            raise UsageError(f"this client was opened with bm25_only: it cannot search by {mode}")
        if reranking and self._reranker is None:
            raise UsageError(
                "this client was opened without a reranker: pass reranker='ms-marco-MiniLM-L6-v2', "
                "or another cross-encoder, to open()"
            )

"""What a sidecar needs before it can search and write: the store, the collection, the models.

A store that does not answer is asked again, for as long as it takes; meanwhile batches are taken
in. What will not pass by itself (a wrong key, a model that is not to be had) ends the sidecar.

What runs in a sidecar once everything is there.

The models that a sidecar runs, each loaded once for all of its parts.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Protocol, get_args

from msmarco_qdrant.collection.create import create_if_missing
from msmarco_qdrant.core.records import Bm25Settings, EncoderInfo
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.options import ALL_GPUS, EncoderOptions, devices_of
from msmarco_qdrant.errors import CollectionNotFoundError, MsmarcoQdrantError, StoreUnavailableError
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.service.interfaces import About
from msmarco_qdrant.service.options import SidecarOptions
from msmarco_qdrant.service.worker.retry import BatchRetrier, Retryability, StoppingError
from msmarco_qdrant.service.worker.worker import Worker
from msmarco_qdrant.stores import Connection, Store, open_store

_log = logging.getLogger(__name__)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 5.0
_SEARCH_RETRY_S = 1.0


class OpeningStoppedError(MsmarcoQdrantError):
    """The sidecar is to end before everything was there."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What was opened.

    Attributes:
        writing: The store, for batches: what fails for a while is tried again for long.
        searching: The same, for searches and checks: they are told soon that it is away.
        encoder: The collection's.
        reranker: What scores the best again, if anything does.
    """

    writing: Store
    searching: Store
    encoder: Encoder
    reranker: Reranker | None

    def close(self) -> None:
        """Give the store back."""
        self.searching.close()
        self.writing.close()


class Startup:
    """Opens everything; `stop` ends that from another thread.

    Args:
        options: What, and where.
        models: What loads the models.

    Attributes:
        stage: What is being opened: "store", then "model".
    """

    def __init__(self, options: SidecarOptions, models: ModelSource) -> None:
        self._options = options
        self._models = models
        self._stopping = threading.Event()
        self._patience = BatchRetrier(
            _FIRST_WAIT_S, _LONGEST_WAIT_S, 1, self._stopping, outlook=_outlook
        )
        self.stage = "store"

    def stop(self) -> None:
        """Wait no longer for a store that is away."""
        self._stopping.set()

    def run(self) -> Opened:
        """Open the store, trying again while it is away; then the models.

        Raises:
            OpeningStoppedError: If it is to end.
            MsmarcoQdrantError: If trying again would not help.
        """
        try:
            return self._patience(self._open)
        except StoppingError as exc:
            raise OpeningStoppedError("the store did not answer before the end") from exc

    def _open(self) -> Opened:
        options = self._options
        self.stage = "store"
        with ExitStack() as stack:
            places = []
            for connection in (impatient(options.connection), options.connection):
                places.append(open_store(options.store, create=True, connection=connection))
                stack.callback(places[-1].close)
            searching, writing = places
            encoder = self._encoder(writing)
            self._check()
            opened = Opened(writing, searching, encoder, self._models.reranker())
            self._check()
            stack.pop_all()
        return opened

    def _encoder(self, store: Store) -> Encoder:
        """The collection's encoder; one that is not there is made, so that it can be searched."""
        name = self._options.collection
        try:
            encoder_info = store.metadata(name).encoder
        except CollectionNotFoundError:
            self.stage = "model"
            encoder_info = self._models.new().info
            create_if_missing(store, name, encoder_info, Bm25Settings(), self._options.storage)
            encoder_info = store.metadata(name).encoder  # somebody else may have made it meanwhile
        self.stage = "model"
        if self._options.model not in (DEFAULT_MODEL, encoder_info.model):
            _log.warning(
                "'%s' has vectors of %s: %s, which was asked for, is for new collections; "
                "`msmarco-qdrant migrate reembed` gives this one another model",
                *(name, encoder_info.model, self._options.model),
            )
        return self._models.of(encoder_info)

    def _check(self) -> None:
        if self._stopping.is_set():
            raise OpeningStoppedError("it is to end before everything was there")


def _outlook(error: BaseException) -> Retryability:
    """Of what may be wrong at the start, only a store that is away passes by itself."""
    is_away = isinstance(error, StoreUnavailableError)
    return Retryability.TRANSIENT if is_away else Retryability.PERMANENT


def impatient(connection: Connection) -> Connection:
    """The same connection for those who would rather hear soon that the server is away."""
    return replace(
        connection,
        timeout_s=min(connection.timeout_s, 5.0),
        retry_s=min(connection.retry_s, _SEARCH_RETRY_S),
    )


class PassageCount:
    """How many passages a collection holds, as it was last counted.

    Args:
        store: Where it is.
        collection: Its name.

    Attributes:
        passages: How many, None before anybody has counted.
    """

    def __init__(self, store: Store, collection: str) -> None:
        self._store = store
        self._collection = collection
        self.passages: int | None = None

    def count(self) -> None:
        """Ask the store.

        Raises:
            StoreError: If it cannot say.
        """
        self.passages = self._store.collection(self._collection).info().points


@dataclass(frozen=True, slots=True)
class Running:
    """The client of searches and the worker, over what was opened."""

    collection: str
    opened: Opened
    client: AsyncSearchClient
    worker: Worker
    census: PassageCount

    @property
    def about(self) -> About:
        """What is searched, from memory."""
        encoder_info = self.client.metadata.encoder
        return About(
            self.collection,
            encoder_info.model,
            encoder_info.dimension,
            get_args(SearchMode),
            rerank=self.opened.reranker is not None,
            passages=self.census.passages,
        )

    async def stop_working(self, grace_s: float) -> bool:
        """Finish the batch in hand, or give it back; whether the worker has ended."""
        return await asyncio.to_thread(self.worker.stop, grace_s)

    async def close(self) -> None:
        """Answer the searches under way, and give the store back."""
        await self.client.close()
        await asyncio.to_thread(self.opened.close)


_TOKENS_ON_CPU = 1024


class ModelSource(Protocol):
    """What loads models."""

    def new(self) -> Encoder:
        """The encoder of a new collection."""

    def of(self, encoder_info: EncoderInfo) -> Encoder:
        """The encoder of a collection whose metadata holds that info."""

    def reranker(self) -> Reranker | None:
        """What scores the best again, if anything does."""


class NamedModels:
    """Loads models by their names.

    Args:
        options: Which, where, and how they run.
    """

    def __init__(self, options: SidecarOptions) -> None:
        self._options = options

    def new(self) -> Encoder:
        """The encoder of a new collection."""
        from msmarco_qdrant.encoding import load_encoder

        return load_encoder(self._options.model, **asdict(self._encoder_options()))

    def of(self, encoder_info: EncoderInfo) -> Encoder:
        """The encoder of a collection whose metadata holds that info."""
        from msmarco_qdrant.encoding.matching import load_collection_encoder

        return load_collection_encoder(
            self._options.collection, encoder_info, options=self._encoder_options()
        )

    def reranker(self) -> Reranker | None:
        """The cross-encoder of the options."""
        from msmarco_qdrant.search.client import load_reranker_for

        return load_reranker_for(self._options.reranker, self._options.encoder_options)

    def _encoder_options(self) -> EncoderOptions:
        """With small batches on a CPU: a query waits for the one that is under way."""
        given = self._options.encoder_options
        on_cpu = devices_of(given.device or ALL_GPUS) == ["cpu"]
        if not on_cpu or given.tokens_per_batch is not None:
            return given
        return replace(given, tokens_per_batch=_TOKENS_ON_CPU)


class SharedModels:
    """Gives every part the same encoder of a model. Thread-safe.

    Args:
        source: What loads one that is not the last that was asked for.
    """

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._last: Encoder | None = None

    def new(self) -> Encoder:
        """The encoder of a new collection."""
        with self._lock:
            self._last = self._source.new()
            return self._last

    def of(self, encoder_info: EncoderInfo) -> Encoder:
        """The encoder of a collection whose metadata holds that info."""
        with self._lock:
            if self._last is None or not _same(self._last.info, encoder_info):
                self._last = self._source.of(encoder_info)
            return self._last

    def reranker(self) -> Reranker | None:
        """What scores the best again, if anything does."""
        return self._source.reranker()


def _same(ours: EncoderInfo, theirs: EncoderInfo) -> bool:
    return (ours.fingerprint, ours.similarity) == (theirs.fingerprint, theirs.similarity)

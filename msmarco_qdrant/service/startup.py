"""Startup of a sidecar: open the store, make the collection if missing, load its models.

A store that does not answer is retried without end, and the sidecar accepts batches in the
meantime. A permanent error, such as a wrong key or a missing model, ends the sidecar.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Literal, Protocol, TypeVar

from msmarco_qdrant.collection.create import create_if_missing
from msmarco_qdrant.collection.generations import reembed_command
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.collection_types import Bm25Settings, PayloadIndex
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.options import ALL_GPUS, EncoderOptions, resolve_devices
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    MsmarcoQdrantError,
    StoreInUseError,
    StoreUnavailableError,
)
from msmarco_qdrant.migrate.indexes import add_index
from msmarco_qdrant.service.retry import BatchRetrier, Retryability, StoppingError
from msmarco_qdrant.settings import Settings
from msmarco_qdrant.stores import Connection, Store, open_store
from msmarco_qdrant.stores.filters import index_keys, index_kind

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_FIRST_WAIT_S, _MAX_WAIT_S = 0.2, 5.0
_SEARCH_TIMEOUT_S, _SEARCH_RETRY_S = 5.0, 1.0
_TOKENS_ON_CPU = 1024


class StartupStoppedError(MsmarcoQdrantError):
    """The sidecar stops before its startup is complete."""


class ModelSource(Protocol):
    """Loads models."""

    def new(self) -> Encoder:
        """Load the encoder of a new collection."""

    def of(self, encoder_info: EncoderInfo) -> Encoder:
        """Load the encoder of a collection with that info in its metadata."""

    def reranker(self) -> Reranker | None:
        """Load the cross-encoder, None without one."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The opened store and the loaded models.

    Attributes:
        writing: The store with the given connection, for batches: it retries for long.
        searching: The same store with short timeouts, for searches and checks.
        encoder: The collection's encoder.
        reranker: The cross-encoder, None without one.
    """

    writing: Store
    searching: Store
    encoder: Encoder
    reranker: Reranker | None

    def request_failures(self) -> Mapping[tuple[str, str], int]:
        """Return counts of failed requests to a server of both stores."""
        counts = Counter(self.searching.request_failures())
        counts.update(self.writing.request_failures())
        return counts

    def close(self) -> None:
        """Close both stores."""
        self.searching.close()
        self.writing.close()


class Startup:
    """Opens the store and loads the models; `stop` ends that from another thread.

    Args:
        settings: Store, collection and model.
        models: Loads the models.
        indexes: The payload indexes that the collection must have, each field with its kind.
        stopping: Set by `stop`.

    Attributes:
        stage: The stage it is in: first "store", then "model".
    """

    def __init__(
        self,
        settings: Settings,
        models: ModelSource,
        indexes: Mapping[str, PayloadIndex] | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._settings = settings
        self._models = models
        self._indexes = indexes or {}
        self._stopping = stopping or threading.Event()
        self._retry = BatchRetrier(
            _FIRST_WAIT_S, _MAX_WAIT_S, 1, self._stopping, classify=_retryability_of
        )
        self.stage: Literal["store", "model"] = "store"

    def stop(self) -> None:
        """Stop waiting for an unavailable store."""
        self._stopping.set()

    def run(self, prepare: Callable[[Opened], _T]) -> _T:
        """Open the store and load the models, with retries while the store is unavailable.

        Args:
            prepare: Called with what was opened, which it closes if it raises; its errors count
                as those of the startup.

        Returns:
            The result of `prepare`.

        Raises:
            StartupStoppedError: After `stop`.
            MsmarcoQdrantError: For a permanent error.
        """
        try:
            return self._retry(lambda: prepare(self._open()))
        except StoppingError as exc:
            raise StartupStoppedError("the sidecar stopped before the store answered") from exc

    def _open(self) -> Opened:
        settings = self._settings
        self.stage = "store"
        with ExitStack() as stack:
            stores = []
            for connection in (_for_searches(settings.connection), settings.connection):
                stores.append(open_store(settings.store, create=True, connection=connection))
                stack.callback(stores[-1].close)
            searching, writing = stores
            encoder = self._load_encoder(writing)
            self._check_stopping()
            opened = Opened(writing, searching, encoder, self._models.reranker())
            self._check_stopping()
            stack.pop_all()
        return opened

    def _load_encoder(self, store: Store) -> Encoder:
        """Load the collection's encoder; make a missing collection, so that it can be searched."""
        name, model = self._settings.collection, self._settings.model
        try:
            encoder_info = store.metadata(name).encoder
        except CollectionNotFoundError:
            self.stage = "model"
            encoder_info = self._models.new().info
            indexes = index_keys(self._indexes)
            create_if_missing(
                store, name, encoder_info, Bm25Settings(), self._settings.storage, indexes
            )
            encoder_info = store.metadata(name).encoder  # another client may have made it first
        self._add_indexes(store)
        self._warn_of_bulk_mode(store)
        self.stage = "model"
        if model not in (DEFAULT_MODEL, encoder_info.model):
            _log.warning(
                "collection '%s' has vectors of %s; the setting model=%s applies to new "
                "collections; %s changes the model of this one",
                *(name, encoder_info.model, model, reembed_command(store.dsn, name, model)),
            )
        return self._models.of(encoder_info)

    def _add_indexes(self, store: Store) -> None:
        """Add the indexes that an existing collection lacks, unless it is being migrated now."""
        name = self._settings.collection
        found = store.collection(name).spec().payload_indexes if self._indexes else {}
        for field, kind in self._indexes.items():
            if all(index_kind(found, key) == kind for key in index_keys({field: kind})):
                continue
            try:
                effect = add_index(store, name, field, kind)
            except StoreInUseError as exc:
                _log.warning("the index %s=%s was not added: %s", field, kind, exc)
            else:
                _log.info("index %s: %s", field, effect)

    def _warn_of_bulk_mode(self, store: Store) -> None:
        """Warn if the server builds no index of what the sidecar writes."""
        name = self._settings.collection
        if store.bulk_holders(name):
            _log.warning(
                "no index of new passages of '%s' is built, because an ingest with --bulk runs or "
                "was interrupted; after an interruption, end it with %s",
                *(name, advised_command("optimize", collection=name, store=store.dsn)),
            )

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise StartupStoppedError("the sidecar stopped before its startup was complete")


def _retryability_of(error: BaseException) -> Retryability:
    """Classify an error of the startup: only an unavailable store is transient."""
    is_away = isinstance(error, StoreUnavailableError)
    return Retryability.TRANSIENT if is_away else Retryability.PERMANENT


def _for_searches(connection: Connection) -> Connection:
    """Return the connection with short timeouts, so that searches soon fail without a server."""
    return replace(
        connection,
        timeout_s=min(connection.timeout_s, _SEARCH_TIMEOUT_S),
        retry_s=min(connection.retry_s, _SEARCH_RETRY_S),
    )


@dataclass(frozen=True, slots=True)
class NamedModels:
    """Loads models by the names in the settings; `cross_encoder` is a name or a directory."""

    settings: Settings
    cross_encoder: str | None = None

    def new(self) -> Encoder:
        """Load the encoder of a new collection."""
        from msmarco_qdrant.encoding import load_encoder

        return load_encoder(self.settings.model, **asdict(self._encoder_options()))

    def of(self, encoder_info: EncoderInfo) -> Encoder:
        """Load the encoder of a collection with that info in its metadata."""
        from msmarco_qdrant.encoding.matching import load_collection_encoder

        return load_collection_encoder(
            self.settings.collection, encoder_info, options=self._encoder_options()
        )

    def reranker(self) -> Reranker | None:
        """Load the cross-encoder, None without one."""
        from msmarco_qdrant.search.client import load_reranker_for

        return load_reranker_for(self.cross_encoder, self.settings.encoder_options)

    def _encoder_options(self) -> EncoderOptions:
        """Return the options, with small batches on a CPU: queries wait for the current batch."""
        options = self.settings.encoder_options
        on_cpu = resolve_devices(options.device or ALL_GPUS) == ["cpu"]
        if not on_cpu or options.tokens_per_batch is not None:
            return options
        return replace(options, tokens_per_batch=_TOKENS_ON_CPU)


class SharedModels:
    """Caches the last encoder and the cross-encoder, which all parts share. Thread-safe.

    Args:
        source: Loads any other encoder.
    """

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._last: Encoder | None = None
        self._new: Encoder | None = None
        self._rerankers: list[Reranker | None] = []

    def new(self) -> Encoder:
        """Return the encoder of a new collection; it is loaded once."""
        with self._lock:
            if self._new is None:
                self._new = self._source.new()
            self._last = self._new
            return self._last

    def of(self, encoder_info: EncoderInfo) -> Encoder:
        """Return the encoder of a collection with that info in its metadata."""
        with self._lock:
            if self._last is None or not self._last.info.has_same_vectors_as(encoder_info):
                self._last = self._source.of(encoder_info)
            return self._last

    def reranker(self) -> Reranker | None:
        """Return the cross-encoder, None without one; it is loaded once."""
        with self._lock:
            if not self._rerankers:
                self._rerankers.append(self._source.reranker())
            return self._rerankers[0]

"""What a sidecar needs before it can search and write: the store, the collection, the models.

A store that does not answer is asked again, for as long as it takes; meanwhile batches are taken
in. What will not pass by itself (a wrong key, a model that is not to be had) ends the sidecar.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace

from msmarco_qdrant.catalog import DEFAULT_MODEL
from msmarco_qdrant.creation import create_if_missing
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    MsmarcoQdrantError,
    StoreUnavailableError,
)
from msmarco_qdrant.records import Bm25Settings
from msmarco_qdrant.service.models import ModelSource
from msmarco_qdrant.service.options import SidecarOptions
from msmarco_qdrant.service.patience import Outlook, Patience, StoppingError
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


class Opening:
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
        self._patience = Patience(
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
            card = store.metadata(name).encoder
        except CollectionNotFoundError:
            self.stage = "model"
            card = self._models.new().card
            create_if_missing(store, name, card, Bm25Settings(), self._options.storage)
            card = store.metadata(name).encoder  # somebody else may have made it meanwhile
        self.stage = "model"
        if self._options.model not in (DEFAULT_MODEL, card.model):
            _log.warning(
                "'%s' has vectors of %s: %s, which was asked for, is for new collections; "
                "`msmarco-qdrant migrate reembed` gives this one another model",
                *(name, card.model, self._options.model),
            )
        return self._models.of(card)

    def _check(self) -> None:
        if self._stopping.is_set():
            raise OpeningStoppedError("it is to end before everything was there")


def _outlook(error: BaseException) -> Outlook:
    """Of what may be wrong at the start, only a store that is away passes by itself."""
    is_away = isinstance(error, StoreUnavailableError)
    return Outlook.PASSING if is_away else Outlook.FOR_GOOD


def impatient(connection: Connection) -> Connection:
    """The same connection for those who would rather hear soon that the server is away."""
    return replace(
        connection,
        timeout_s=min(connection.timeout_s, 5.0),
        retry_s=min(connection.retry_s, _SEARCH_RETRY_S),
    )

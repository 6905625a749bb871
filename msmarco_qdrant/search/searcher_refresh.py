"""The searcher of a collection's new searches, which follows a change of its model.

The alias may point to a collection of another model at any time. Metadata, encoder and steps are
therefore one value, a `Searcher`, that is replaced as a whole. A search that does not find its
vectors has the metadata read and the new model loaded, once for all waiting searches, and starts
over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.checks import check_encoder
from msmarco_qdrant.encoding.matching import require_same_model
from msmarco_qdrant.errors import ModelNotFoundError, SchemaError
from msmarco_qdrant.search.request import MAX_UNCHANGED
from msmarco_qdrant.search.step import Refresh, Steps
from msmarco_qdrant.search.steps import Searcher
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.foreign import ForeignPoints

LoadEncoder: TypeAlias = Callable[[EncoderInfo], Encoder]

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_MAX_AGE_S: Final = 60.0


def retry_after_model_swap(
    searcher: Searcher,
    search: Callable[[Searcher], Steps[_T]],
    *,
    is_due: bool = False,
    loads_model: bool = True,
) -> Steps[_T]:
    """Start a search over while the collection holds another model's vectors.

    The driver of the steps throws a `SchemaError` into it.

    Args:
        searcher: The first to search with.
        search: Starts the search.
        is_due: True to read the metadata before.
        loads_model: See `Refresh`; for that read alone.
    """
    if is_due:
        searcher = yield Refresh(searcher, loads_model=loads_model)
    unchanged = 0
    while True:
        try:
            return (yield from search(searcher))
        except SchemaError:
            newer: Searcher = yield Refresh(searcher)
            unchanged = unchanged + 1 if newer is searcher else 0
            if unchanged > MAX_UNCHANGED:
                raise
            searcher = newer


class SearcherRefresh:
    """The searcher of one collection, replaced when its metadata changed. Thread-safe.

    Args:
        store: The store.
        collection: The collection's name.
        encoder: The encoder of that collection; None to search by "bm25" only.
        load_encoder: Loads the encoder of other metadata.
        find_encoder: Returns a loaded encoder of a model, None if there is none.

    Attributes:
        clock: Seconds that only grow.
        current: The searcher of new searches.
        foreign: Counts the points left out of answers, because they are not passages.

    Raises:
        CollectionNotFoundError: If the store has no collection of that name.
        ModelMismatchError: If the encoder is not the collection's.
    """

    def __init__(
        self,
        store: Store,
        collection: str,
        encoder: Encoder | None,
        load_encoder: LoadEncoder,
        find_encoder: Callable[[EncoderInfo], Encoder | None],
    ) -> None:
        self._store = store
        self._name = collection
        self._load_encoder = load_encoder
        self._find_encoder = find_encoder
        self._lock = threading.Lock()
        self.foreign = ForeignPoints(collection, store.dsn)
        self.clock: Callable[[], float] = time.monotonic
        self._read_at = self.clock()
        metadata = store.metadata(collection)
        if encoder is not None:
            check_encoder(encoder)
            require_same_model(collection, metadata.encoder, encoder.info)
        self.current = self._new_searcher(metadata, encoder)

    def is_due(self) -> bool:
        """True for the first search after a minute: it reads the metadata, which may be changed."""
        is_due = self.has_old_metadata
        if is_due:
            self._read_at = self.clock()  # the others need not wait
        return is_due

    @property
    def has_old_metadata(self) -> bool:
        """True if the metadata were read more than a minute ago."""
        return self.clock() - self._read_at >= _MAX_AGE_S

    def update(self, used: Searcher, *, loads_model: bool = True) -> Searcher:
        """Return the current searcher; one thread makes it, the others wait.

        Args:
            used: The searcher so far.
            loads_model: False to load no model: if it was changed, the searcher has no encoder,
                and is for one search only.

        Raises:
            ModelNotFoundError: If the model that the collection has now cannot be loaded.
        """
        with self._lock:
            if self.current is not used:
                return self.current
            metadata = self._store.metadata(self._name)
            is_same_model = metadata.encoder.fingerprint == used.metadata.encoder.fingerprint
            if not (is_same_model or loads_model or used.bm25_only):
                return self._new_searcher(metadata, None)  # the next dense search loads the model
            self.current = self._to_searcher(metadata, used)
            return self.current

    def _to_searcher(self, metadata: CollectionMetadata, used: Searcher) -> Searcher:
        if metadata == used.metadata:
            return used
        old, new = used.metadata.encoder, metadata.encoder
        if old.fingerprint == new.fingerprint:
            return self._new_searcher(metadata, None if used.bm25_only else used.encoder)
        encoder = None if used.bm25_only else self._load(new, old.model)
        return self._new_searcher(metadata, encoder)

    def _load(self, new: EncoderInfo, old: str) -> Encoder:
        """Load the encoder that the collection was re-embedded with."""
        if (loaded := self._find_encoder(new)) is not None:
            return loaded
        started = time.monotonic()
        try:
            encoder = self._load_encoder(new)
            require_same_model(self._name, new, encoder.info)
        except Exception as exc:
            raise ModelNotFoundError(
                f"collection '{self._name}' was re-embedded with {new.model} (before: {old}), and "
                f"this model cannot be loaded: {exc}. The next search tries again; or open "
                "another client with the location of the model"
            ) from exc
        _log.info(
            "collection '%s' now holds vectors of %s (before: %s), loaded in %.1f s",
            *(self._name, new.model, old, time.monotonic() - started),
        )
        return encoder

    def _new_searcher(self, metadata: CollectionMetadata, encoder: Encoder | None) -> Searcher:
        capabilities = self._store.capabilities
        return Searcher(
            metadata,
            encoder,
            collection=self._name,
            indexed=capabilities.payload_indexes,
            words_need_index=capabilities.words_need_index,
            foreign=self.foreign,
        )

"""Guard of an ingest against a change of its collection's alias.

A re-embedding points the alias to another physical collection, with the vectors of another model,
after it copied what was written to the first. An ingest therefore checks the alias after each
write. If it is unchanged, the write came before the swap and is copied. If it changed, the write
does not count and is repeated with the other model.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

from msmarco_qdrant.collection.generations import reembed_command
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    CollectionReplacedError,
    MsmarcoQdrantError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
)
from msmarco_qdrant.stores import Collection, Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AliasGuard:
    """A name and the physical collection it pointed to when a run began; see `resolve_alias`.

    Attributes:
        store: The store of both.
        name: The name that users see.
        physical: The physical collection behind it.
        metadata: The metadata of the physical collection when the run began.
    """

    store: Store
    name: str
    physical: str
    metadata: CollectionMetadata

    @property
    def collection(self) -> Collection:
        """The physical collection."""
        return self.store.collection(self.physical)

    @property
    def is_being_filled(self) -> bool:
        """True while a re-embedding still copies older writes into the collection.

        A copy that began before the run may end during it, so each call reads the metadata.
        """
        if self.metadata.copied_from is None:
            return False
        return self.store.metadata(self.physical).copied_from is not None

    def last_seq(self, own: int) -> int:
        """Return the `seq` that each write of this run must exceed.

        Args:
            own: The highest of the collection itself; the collection copied from may have higher.
        """
        source = self.metadata.copied_from
        if source is None:
            return own
        try:
            return max(own, self.store.collection(source).info().last_seq)
        except CollectionNotFoundError:  # the copy ended, and its source was pruned
            return own

    def check(self) -> None:
        """Raise if the alias changed since the run began.

        Raises:
            CollectionReplacedError: If it points to another collection, or did in between.
            CollectionNotFoundError: If the alias does not exist.
        """
        found = self.store.aliases().get(self.name, self.name)
        if found not in (self.physical, self.name):
            raise CollectionReplacedError(self._replaced_by(found))
        if found != self.physical:
            reason = self.store.unknown_collection(self.name)
            if not isinstance(reason, CollectionNotFoundError):
                raise reason
            raise CollectionNotFoundError(
                f"another client dropped collection '{self.name}' while this ingest wrote to "
                f"{self.physical}: run the same ingest again to create it"
            )
        if self.store.metadata(self.physical).swaps != self.metadata.swaps:
            raise CollectionReplacedError(
                f"collection '{self.name}' was re-embedded and rolled back to {self.physical} "
                "while this ingest wrote to it: run the same ingest again"
            )

    def root_cause(self, error: MsmarcoQdrantError) -> MsmarcoQdrantError:
        """Return the change of the alias that explains a failed write, else the error itself."""
        if not isinstance(error, StoreError) or isinstance(
            error, StoreUnavailableError | StoreAccessError | CollectionReplacedError
        ):
            return error
        try:
            self.check()
        except (CollectionReplacedError, CollectionNotFoundError) as reason:
            return reason
        except StoreError:
            pass  # the first error is the one to report
        return error

    def warn_if_unfinished(self) -> None:
        """Warn about an interrupted re-embedding that no process continues."""
        if self.metadata.copied_from is None or not self.store.capabilities.migration_locks:
            return
        holder = self.store.migration_locks.holder(self.name, all_replicas=False)
        if holder is None and self.is_being_filled:
            _log.warning(
                "the re-embedding of '%s' is not finished: run %s again",
                self.name,
                reembed_command(self.store.dsn, self.name, self.metadata.encoder.model),
            )

    def _replaced_by(self, found: str) -> str:
        model, advice = "another model", "without a model"
        with suppress(StoreError):  # dropped again: the next run reports the model
            model = self.store.metadata(found).encoder.model
            advice = f"with model={model}, or without a model"
        return (
            f"collection '{self.name}' was re-embedded with {model} ({found}) while this ingest "
            f"wrote to {self.physical}: run the same ingest again {advice}, to continue with the "
            "new model"
        )


def resolve_alias(store: Store, name: str) -> AliasGuard:
    """Look up the physical collection behind a name.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreCorruptError: If this package did not make that collection.
    """
    store.metadata(name)  # raises before the alias of a collection being created is read
    physical = store.aliases().get(name, name)
    return AliasGuard(store, name, physical, store.metadata(physical))

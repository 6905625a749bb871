"""What an ingest holds on to: one physical collection, for as long as its name leads there.

A re-embedding leads the name to another collection, with the vectors of another model, and copies
there what was written to the first one before. So whoever writes looks after each write whether the
name has stayed: if it has, the write came before, and will be copied; if not, it counts for nothing
and is done again with the other model.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

from msmarco_qdrant.collection.generations import reembed_command
from msmarco_qdrant.core.records import CollectionMetadata
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
    """A name and the physical collection that it led to when a run began; `resolve_alias` makes it.

    Attributes:
        store: Where.
        name: The name that users see.
        physical: The physical collection behind it.
        metadata: What was kept with that.
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
        """Whether older writes are still copied into it, behind a name that leads there already.

        Asked again each time, if it was so when the run began: it ends within a run.
        """
        if self.metadata.copied_from is None:
            return False
        return self.store.metadata(self.physical).copied_from is not None

    def last_seq(self, own: int) -> int:
        """The highest `seq` that a write of this run must be above.

        Args:
            own: The highest of the collection itself; what is being copied into it may have others.
        """
        source = self.metadata.copied_from
        if source is None:
            return own
        try:
            return max(own, self.store.collection(source).info().last_seq)
        except CollectionNotFoundError:  # the copying ended, and it was pruned
            return own

    def check(self) -> None:
        """Refuse to count what was written if the name has led elsewhere meanwhile.

        Raises:
            CollectionReplacedError: If it does, or did and leads back again.
            CollectionNotFoundError: If it leads nowhere.
        """
        found = self.store.aliases().get(self.name, self.name)
        if found not in (self.physical, self.name):
            raise CollectionReplacedError(self._replaced(found))
        if found != self.physical:
            raise CollectionNotFoundError(
                f"collection '{self.name}' was dropped while this ingest wrote to "
                f"{self.physical}: run the same ingest again to make it anew"
            )
        if self.store.metadata(self.physical).swaps != self.metadata.swaps:
            raise CollectionReplacedError(
                f"collection '{self.name}' was re-embedded, and led back to {self.physical}, while "
                "this ingest wrote to it: run the same ingest again"
            )

    def root_cause(self, error: MsmarcoQdrantError) -> MsmarcoQdrantError:
        """What an error means: a write may have failed because its collection was replaced."""
        if isinstance(error, StoreUnavailableError | StoreAccessError | CollectionReplacedError):
            return error
        if isinstance(error, StoreError):
            try:
                self.check()
            except (CollectionReplacedError, CollectionNotFoundError) as reason:
                return reason
            except StoreError:
                return error  # which came first
        return error

    def warn_if_unfinished(self) -> None:
        """Warn when a re-embedding was interrupted, and nobody goes on with it."""
        if self.metadata.copied_from is None or not self.store.capabilities.migration_locks:
            return
        if self.store.migration_locks.holder(self.name) is not None:
            return
        if not self.is_being_filled:  # it has ended since
            return
        _log.warning(
            "the re-embedding of '%s' is not finished: run %s again",
            self.name,
            reembed_command(self.name, self.metadata.encoder.model),
        )

    def _replaced(self, found: str) -> str:
        model, option = "another model", "no --model"
        with suppress(StoreError):  # it may be gone again; the next run tells
            model = self.store.metadata(found).encoder.model
            option = f"--model {model}, or none"
        return (
            f"collection '{self.name}' was re-embedded with {model} ({found}) while this ingest "
            f"wrote to {self.physical}: run the same ingest again; it goes on with the new model "
            f"(pass {option})"
        )


def resolve_alias(store: Store, name: str) -> AliasGuard:
    """Look where a name leads.

    Raises:
        CollectionNotFoundError: If it leads nowhere.
        StoreCorruptError: If that is no collection of ours.
    """
    store.metadata(name)  # which may be made just now, by another: its alias comes with it
    physical = store.aliases().get(name, name)
    return AliasGuard(store, name, physical, store.metadata(physical))

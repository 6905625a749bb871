"""The interface of every store: `Store`, and the capabilities of an engine.

To add an engine, subclass `Store` and run `tests/contract` over it. A method that an engine cannot
provide keeps its default, which raises `UnsupportedError`; `Store.capabilities` reports it
beforehand. `protocols` has the interfaces of the collections that a store returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msmarco_qdrant.core.collection_types import CollectionSpec
from msmarco_qdrant.core.limits import NO_LIMITS, RequestLimits
from msmarco_qdrant.core.metadata_types import BulkHolder, CollectionMetadata
from msmarco_qdrant.core.server_state import ServerState
from msmarco_qdrant.errors import StoreError, UnsupportedError
from msmarco_qdrant.stores.metadata import metadata_from_json
from msmarco_qdrant.stores.names import (
    PHYSICAL,
    foreign_collection,
    unfinished_collection,
    unknown_collection,
)
from msmarco_qdrant.stores.protocols import (
    AdminCollection,
    AsyncCollection,
    Collection,
    PointReader,
    Replicas,
    Snapshots,
)
from msmarco_qdrant.stores.unlinked import find_unlinked, missing_alias

if TYPE_CHECKING:
    from msmarco_qdrant.stores.migration_locks import MigrationLocks


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The optional features of an engine. Calls of a missing one raise `UnsupportedError`.

    Attributes:
        engine: Its name, for messages.
        ann: It searches an HNSW graph; otherwise every search is exact.
        payload_indexes: It filters by an index; otherwise by a scan.
        quantization: It can store vectors quantized.
        multi_process: Several processes may use the store at once.
        admin: It changes collections in place: `Store.admin_collection`.
        migration_locks: It has `Store.migration_locks`.
        resolves_aliases: A request may name an alias: `Store.unresolved_collection`.
        async_search: It searches from an event loop without a thread: `Store.async_collection`.
        replicas: It may store each point several times: `Store.replicas`.
        snapshots: It copies collections in its own format: `Store.snapshots`.
        shared_files: Other processes can search the files of a collection: `Store.share_files`.
        words_need_index: It compares whole words only by an index of kind text; without one it
            finds a word inside of others, and in the same case only.
    """

    engine: str
    ann: bool = False
    payload_indexes: bool = False
    quantization: bool = False
    multi_process: bool = False
    admin: bool = False
    migration_locks: bool = False
    resolves_aliases: bool = False
    async_search: bool = False
    replicas: bool = False
    snapshots: bool = False
    shared_files: bool = False
    words_need_index: bool = False


class Store(ABC):
    """A place for collections. Thread-safe.

    A name is an alias or a physical collection; an alias is looked up first. Third parties
    subclass it. Each method without a default is required; the others belong to a capability.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.dsn}>"

    @property
    @abstractmethod
    def dsn(self) -> str:
        """The path or URL it was opened by, without secrets."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """The optional features of the engine."""

    @abstractmethod
    def create_collection(
        self, name: str, spec: CollectionSpec, metadata: CollectionMetadata | None = None
    ) -> None:
        """Create an empty physical collection.

        One of that name without an alias is left from an interrupted creation: it is replaced.
        In a store that several processes may use, another may be creating it: it is kept if it
        has the same spec and is not being restored, and refused if not.

        Args:
            name: Its physical name.
            spec: Its settings.
            metadata: Stored with it from the start; any existing collection is then refused.

        Raises:
            SchemaError: If one of that name exists and has an alias or another spec, is being
                restored, or `metadata` is passed.
            UnsupportedError: If the engine cannot create one of this spec.
        """

    @abstractmethod
    def drop_collection(self, name: str) -> None:
        """Delete a physical collection with everything in it, and its aliases.

        Raises:
            CollectionNotFoundError: For an unknown physical name.
        """

    @abstractmethod
    def collection(self, name: str) -> Collection:
        """Return the physical collection that a name means now.

        Raises:
            CollectionNotFoundError: For an unknown name; the message lists the known ones.
        """

    @abstractmethod
    def metadata(self, name: str) -> CollectionMetadata:
        """Return what `put_metadata` stored with a collection.

        Raises:
            CollectionNotFoundError: For an unknown name.
            StoreCorruptError: If this version cannot read it.
        """

    @abstractmethod
    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Store metadata with a collection, replacing the former, durably and atomically.

        Raises:
            CollectionNotFoundError: For an unknown name.
            StoreUnavailableError: If it cannot be written.
        """

    @abstractmethod
    def lock(self) -> AbstractContextManager[object]:
        """Return the reentrant lock for "look for a collection, then create it"."""

    @abstractmethod
    def aliases(self) -> Mapping[str, str]:
        """Return every alias and its physical collection."""

    @abstractmethod
    def set_alias(self, alias: str, name: str) -> None:
        """Point an alias to a physical collection, durably and atomically.

        Raises:
            CollectionNotFoundError: For an unknown name.
            StoreUnavailableError: If it cannot be written.
        """

    @abstractmethod
    def remove_alias(self, alias: str) -> None:
        """Remove an alias, and leave its collection as it is.

        Raises:
            StoreUnavailableError: If it cannot be written.
        """

    @abstractmethod
    def physical_names(self) -> Sequence[str]:
        """Return every physical collection, with or without an alias; a server may have others'."""

    @abstractmethod
    def close(self) -> None:
        """Release this handle; the last one closes the engine. Closing twice is harmless."""

    def admin_collection(self, name: str) -> AdminCollection:
        """Return the collection behind a name, to change it in place.

        Raises:
            CollectionNotFoundError: For an unknown name.
            UnsupportedError: Without the capability `admin`.
        """
        raise self._unsupported(f"change '{name}' in place: create another collection")

    @property
    def migration_locks(self) -> MigrationLocks:
        """The locks that keep two migrations of one collection apart.

        Raises:
            UnsupportedError: Without the capability `migration_locks`.
        """
        raise self._unsupported("lock a collection for a migration: create another collection")

    def replicas(self, name: str) -> Replicas:
        """Return the replicas of the physical collection that a name means now.

        Raises:
            CollectionNotFoundError: For an unknown name.
            UnsupportedError: Without the capability `replicas`.
        """
        raise self._unsupported(f"have replicas of '{name}'")

    @property
    def snapshots(self) -> Snapshots:
        """Copies of physical collections in the engine's own format.

        Raises:
            UnsupportedError: Without the capability `snapshots`.
        """
        raise self._unsupported("copy a collection in its own format: use a portable backup")

    def share_files(
        self,
        name: str,
        on_change: Callable[[], None],  # noqa: ARG002  # an engine uses it
    ) -> AbstractContextManager[Path]:
        """Return a folder with files of a collection, which other processes may search.

        It exists within the context, and `open_shared` opens it.

        Args:
            name: The name of the collection.
            on_change: Called at most once, in another thread, before the collection is changed:
                when it returns, no process may use the folder. The change waits for it.

        Raises:
            CollectionNotFoundError: For an unknown name.
            StoreUnavailableError: If disk space or another resource is missing.
            UnsupportedError: Without the capability `shared_files`.
        """
        raise self._unsupported(f"share files of '{name}': search in this process")

    def point_reader(self, name: str) -> PointReader:
        """Return a reader of a collection that another program wrote.

        Raises:
            CollectionNotFoundError: For an unknown name.
            UsageError: If the collection is one of this package.
            UnsupportedError: If the engine holds collections of this package only.
        """
        raise self._unsupported(f"hold a collection '{name}' of another program")

    def request_limits(self, name: str) -> RequestLimits:  # noqa: ARG002  # an engine may use it
        """Return the limits on requests to the collection behind a name; by default none.

        Raises:
            CollectionNotFoundError: For an unknown name.
        """
        return NO_LIMITS

    def server_state(self, name: str) -> ServerState | None:  # noqa: ARG002  # a server uses it
        """Return the state of the server behind a name; None for an engine in this process.

        Raises:
            CollectionNotFoundError: For an unknown name.
        """
        return None

    def bulk_holders(self, name: str) -> Mapping[str, BulkHolder]:  # noqa: ARG002  # a server's
        """Return the records of ingests in bulk mode, by their tokens.

        Raises:
            CollectionNotFoundError: For an unknown name.
        """
        return {}

    def record_bulk_holders(
        self,
        name: str,  # noqa: ARG002  # a server uses it
        holders: Mapping[str, BulkHolder | None],  # noqa: ARG002
    ) -> None:
        """Write records of ingests in bulk mode, or delete them; no others change.

        Raises:
            CollectionNotFoundError: For an unknown name.
            UnsupportedError: If the engine builds indexes on request.
        """
        raise self._unsupported("have a bulk mode: it builds its index on request")

    def request_failures(self) -> Mapping[tuple[str, str], int]:
        """Return counts of failed requests to a server, by "retried" or "raised" and status."""
        return {}

    def unresolved_collection(self, name: str) -> Collection:
        """Return a collection whose requests carry the alias itself; the server resolves it.

        Raises:
            CollectionNotFoundError: For an unknown name.
            UnsupportedError: Without the capability `resolves_aliases`.
        """
        raise self._unsupported(f"resolve '{name}' in requests: use AliasedCollection(store, name)")

    def async_collection(self, name: str) -> AsyncCollection:
        """Return the collection behind a name, for the running event loop.

        Raises:
            CollectionNotFoundError: For an unknown name.
            UnsupportedError: Without the capability `async_search`.
        """
        raise self._unsupported(
            f"search '{name}' without a thread: use open_async_collection(store, name)"
        )

    def unknown_collection(self, name: str) -> StoreError:
        """Return the error for a name that is not a collection of this package.

        It may have lost its alias. The error is a `CollectionNotFoundError` only if the name is
        free.
        """
        if found := find_unlinked(self, name):
            return missing_alias(name, found, self.dsn)
        return unknown_collection(name, self.aliases(), self.dsn)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resolve(self, name: str) -> str:
        """Return the physical collection that a name means now."""
        physical = self.aliases().get(name, name)
        self._check_physical(physical, name)
        return physical

    def _check_physical(self, physical: str, name: str = "") -> None:
        if physical not in self.physical_names():
            raise self.unknown_collection(name or physical)

    def _to_metadata(self, stored: object, physical: str) -> CollectionMetadata:
        """Convert the stored metadata of a physical collection; None if it has none."""
        if stored is not None:
            return metadata_from_json(stored, physical)
        if PHYSICAL.fullmatch(physical):
            raise unfinished_collection(physical, self.dsn)
        raise foreign_collection(physical, self.aliases(), self.dsn)

    def _unsupported(self, action: str) -> UnsupportedError:
        return UnsupportedError(f"{self.dsn} ({self.capabilities.engine}) cannot {action}")

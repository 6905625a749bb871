"""Qdrant Edge: Qdrant's own engine in this process, in a directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from msmarco_qdrant.core.collection_types import CollectionSpec
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.errors import SchemaError, StoreError
from msmarco_qdrant.stores.base import Capabilities, Store
from msmarco_qdrant.stores.edge.admin import EdgeAdminCollection
from msmarco_qdrant.stores.edge.collection import EdgeCollection, create_shard, fork_error
from msmarco_qdrant.stores.edge.directory import EdgeDirectory
from msmarco_qdrant.stores.edge.registry import ENGINES, Engine
from msmarco_qdrant.stores.edge.snapshots import EdgeSnapshots
from msmarco_qdrant.stores.metadata import metadata_to_json
from msmarco_qdrant.stores.migration_locks import MigrationLocks
from msmarco_qdrant.stores.names import just_created

_CAPABILITIES = Capabilities(
    engine="Edge",
    ann=True,
    payload_indexes=True,
    quantization=True,
    admin=True,
    migration_locks=True,
    snapshots=True,
    shared_files=True,
)


class EdgeStore(Store):
    """A handle on a store directory; `EdgeStore.open` creates it, `close` releases it.

    Handles on one directory share one engine, which closes with the last of them.
    """

    def __init__(self, engine: Engine, dsn: str) -> None:
        self._engine = engine
        self._dsn = dsn
        self._closed = False

    @classmethod
    def open(cls, dsn: str, *, create: bool) -> EdgeStore:
        """Open a directory; see `open_store` for the errors."""
        return cls(ENGINES.acquire(Path(dsn), create=create), dsn)

    @property
    def dsn(self) -> str:
        """The path it was opened by."""
        return self._dsn

    @property
    def capabilities(self) -> Capabilities:
        """The features of Edge."""
        return _CAPABILITIES

    @property
    def migration_locks(self) -> MigrationLocks:
        """The locks that keep migrations of two threads of this process apart."""
        return self._engine.locks

    @property
    def snapshots(self) -> EdgeSnapshots:
        """Copies of shards; see `Snapshots`."""
        with self._directory():
            return EdgeSnapshots(self._engine)

    def share_files(self, name: str, on_change: Callable[[], None]) -> AbstractContextManager[Path]:
        """Return a folder with files of a shard; see `Store`."""
        return self.collection(name).share_files(on_change)

    def create_collection(
        self, name: str, spec: CollectionSpec, metadata: CollectionMetadata | None = None
    ) -> None:
        """Create an empty physical collection; see `Store`."""
        with self._directory() as directory:
            if name in directory.aliases.values():
                raise SchemaError(f"a collection '{name}' exists already in {self._dsn}")
            if metadata is not None and name in directory.collections:
                raise just_created(name, self._dsn)
            self._engine.close_collection(name)
            create_shard(directory.fresh_shard_path(name), spec)
            stored = None if metadata is None else metadata_to_json(metadata)
            directory.put_collection(name, stored)

    def drop_collection(self, name: str) -> None:
        """Delete a physical collection and its aliases; see `Store`."""
        with self._directory() as directory:
            self._check_physical(name)
            self._engine.close_collection(name)
            directory.drop_collection(name)

    def collection(self, name: str) -> EdgeCollection:
        """Return the physical collection that a name means now; see `Store`."""
        self._check_usable()
        with self._engine.lock:  # each search comes here
            return self._engine.collection(self._resolve(name))

    def admin_collection(self, name: str) -> EdgeAdminCollection:
        """Return the same, to change it in place; see `AdminCollection`."""
        return EdgeAdminCollection(self.collection(name))

    def metadata(self, name: str) -> CollectionMetadata:
        """Return the metadata of a collection; see `Store`."""
        with self._directory() as directory:
            physical = self._resolve(name)
            return self._to_metadata(directory.collections[physical], physical)

    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Store metadata with a collection; see `Store`."""
        with self._directory() as directory:
            directory.put_collection(self._resolve(name), metadata_to_json(metadata))

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock for "look, then create"; see `Store`."""
        return self._engine.lock

    def aliases(self) -> Mapping[str, str]:
        """Return every alias and its physical collection."""
        self._check_usable()
        with self._engine.lock:  # each search comes here
            return self._engine.directory.aliases

    def physical_names(self) -> Sequence[str]:
        """Return every physical collection."""
        with self._directory() as directory:
            return sorted(directory.collections)

    def set_alias(self, alias: str, name: str) -> None:
        """Point an alias to a physical collection; see `Store`."""
        with self._directory() as directory:
            self._check_physical(name)
            directory.put_alias(alias, name)

    def remove_alias(self, alias: str) -> None:
        """Remove an alias; see `Store`."""
        with self._directory() as directory:
            directory.remove_alias(alias)

    def close(self) -> None:
        """Release the handle. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            ENGINES.release(self._engine)

    def _resolve(self, name: str) -> str:
        self._check_usable()
        with self._engine.lock:  # each search comes here
            physical = self._engine.directory.resolve(name)
        if physical is None:
            raise self.unknown_collection(name)
        return physical

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreError(f"this handle on the store {self._dsn} was closed: open it again")
        if not self._engine.usable:
            raise fork_error(self._dsn)

    @contextmanager
    def _directory(self) -> Iterator[EdgeDirectory]:
        self._check_usable()
        with self._engine.lock:
            yield self._engine.directory

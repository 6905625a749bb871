"""A Qdrant server over gRPC or REST, or qdrant-client's local mode in memory."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from qdrant_client import QdrantClient, models

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.collection_types import CollectionSpec
from msmarco_qdrant.core.limits import RequestLimits
from msmarco_qdrant.core.metadata_types import BulkHolder, CollectionMetadata
from msmarco_qdrant.core.server_state import ServerState
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    SchemaError,
    StoreAccessError,
    StoreError,
)
from msmarco_qdrant.runtime.daemon_executor import DaemonExecutor
from msmarco_qdrant.stores.base import Capabilities, Store
from msmarco_qdrant.stores.connection import Connection, parse_address
from msmarco_qdrant.stores.error_mapping import is_forbidden
from msmarco_qdrant.stores.metadata import metadata_to_json
from msmarco_qdrant.stores.migration_locks import MigrationLocks, ProcessLocks
from msmarco_qdrant.stores.names import (
    PHYSICAL,
    base_name,
    foreign_alias,
    foreign_collection,
    hidden_collection,
    is_own_alias,
    just_created,
)
from msmarco_qdrant.stores.protocols import AsyncCollection, PointReader, Snapshots
from msmarco_qdrant.stores.server import convert
from msmarco_qdrant.stores.server.admin import ServerAdminCollection, check_quantization
from msmarco_qdrant.stores.server.async_collection import AsyncServerCollection
from msmarco_qdrant.stores.server.client import ServerClient, connect
from msmarco_qdrant.stores.server.cluster import read_server_state
from msmarco_qdrant.stores.server.collection import ServerCollection
from msmarco_qdrant.stores.server.limits import StoredLimits
from msmarco_qdrant.stores.server.locks import ServerLocks
from msmarco_qdrant.stores.server.point_reader import ServerPointReader, open_local_folder
from msmarco_qdrant.stores.server.replicas import ServerReplicas
from msmarco_qdrant.stores.server.retry import RetryPolicy
from msmarco_qdrant.stores.server.snapshots import ServerSnapshots
from msmarco_qdrant.stores.unlinked import being_restored

SERVER = Capabilities(
    engine="Server",
    ann=True,
    payload_indexes=True,
    quantization=True,
    multi_process=True,
    admin=True,
    migration_locks=True,
    resolves_aliases=True,
    async_search=True,
    snapshots=True,
    replicas=True,
)
IN_MEMORY = Capabilities(engine="Memory", admin=True, migration_locks=True)


class ServerStore(Store):
    """A Qdrant server, or qdrant-client's local mode; create it by `connect` or `in_memory`."""

    def __init__(
        self, server: ServerClient, capabilities: Capabilities, connection: Connection
    ) -> None:
        self._server = server
        self._client = server.client
        self._capabilities = capabilities
        self._connection = connection
        self._lock = threading.RLock()
        self._limits: defaultdict[str, StoredLimits] = defaultdict(StoredLimits)
        self._locks = ServerLocks(server) if server.is_remote else ProcessLocks()
        self._senders = DaemonExecutor(connection.in_flight, name="msmarco-qdrant-send")

    @classmethod
    def connect(cls, dsn: str, connection: Connection) -> ServerStore:
        """Connect to a server; see `open_store` for the errors."""
        server = connect(dsn, parse_address(dsn, connection), connection)
        capabilities = replace(SERVER, words_need_index=server.words_need_index)
        return cls(server, capabilities, connection)

    @classmethod
    def in_memory(cls) -> ServerStore:
        """Return a new, empty store in this process's memory."""
        client, connection = QdrantClient(":memory:"), Connection(retry_s=0)
        server = ServerClient(client, ":memory:", RetryPolicy(0))
        return cls(server, IN_MEMORY, connection)

    @classmethod
    def local_folder(cls, path: str) -> ServerStore:
        """Open a folder of qdrant-client's local mode; see `open_local_folder` for the errors."""
        return cls(open_local_folder(path), IN_MEMORY, Connection(retry_s=0))

    @property
    def dsn(self) -> str:
        """The URL it was opened by, or `:memory:`."""
        return self._server.place

    @property
    def capabilities(self) -> Capabilities:
        """The features of a server, or of the local mode."""
        return self._capabilities

    @property
    def migration_locks(self) -> MigrationLocks:
        """The locks that keep two migrations of one collection apart."""
        return self._locks

    @property
    def snapshots(self) -> Snapshots:
        """Snapshots of a server; see `Snapshots`."""
        if not self._capabilities.snapshots:
            return super().snapshots
        return ServerSnapshots(self._server, self._connection, self._open)

    def server_state(self, name: str) -> ServerState | None:
        """Return the state of the server; see `Store`."""
        if not self._server.is_remote:
            return None
        physical = self._resolve(name)
        return read_server_state(self._server, physical, self._open(physical).read_info())

    def request_failures(self) -> Mapping[tuple[str, str], int]:
        """Return counts of failed requests; see `Store`."""
        return self._server.retries.failures.counts()

    def create_collection(
        self, name: str, spec: CollectionSpec, metadata: CollectionMetadata | None = None
    ) -> None:
        """Create an empty physical collection; see `Store`."""
        check_quantization(self._server, spec.storage.quantization)
        if name in self.aliases().values():
            raise SchemaError(f"a collection '{name}' exists already in {self.dsn}")
        if not self._capabilities.multi_process and metadata is None:
            self._delete_collection(name)
        self._create_or_adopt(name, spec, metadata)
        if self._capabilities.payload_indexes:
            for field, kind in spec.payload_indexes.items():
                self._open(name).create_payload_index(field, kind)

    def drop_collection(self, name: str) -> None:
        """Delete a physical collection and its aliases; see `Store`."""
        self._check_physical(name)
        # The server deletes its aliases, too. In the other order, a crash in between would leave
        # passages for a later collection of that name.
        self._delete_collection(name)
        for alias in [alias for alias, physical in self.aliases().items() if physical == name]:
            self.remove_alias(alias)

    def collection(self, name: str) -> ServerCollection:
        """Return the physical collection that a name means now; see `Store`."""
        return self._open(self._resolve(name))

    def admin_collection(self, name: str) -> ServerAdminCollection:
        """Return the same, to change it in place; see `AdminCollection`."""
        return self._open(self._resolve(name))

    def replicas(self, name: str) -> ServerReplicas:
        """Return the replicas of a collection; see `Replicas`."""
        if not self._capabilities.replicas:
            super().replicas(name)
        physical = self._resolve(name)
        limits, senders = self._limits[physical], self._senders
        return ServerReplicas(self._server, physical, senders, self._connection, limits)

    def unresolved_collection(self, name: str) -> ServerCollection:
        """Return a collection whose requests carry the alias itself; see `AliasedCollection`."""
        if not self._capabilities.resolves_aliases:
            super().unresolved_collection(name)
        self._resolve(name)
        return self._open(name)

    def async_collection(self, name: str) -> AsyncCollection:
        """Return the same for the running event loop."""
        address = self._server.address
        if address is None:
            return super().async_collection(name)
        self._resolve(name)
        limits, failures = self._limits[name], self._server.retries.failures
        return AsyncServerCollection(name, self.dsn, address, self._connection, limits, failures)

    def point_reader(self, name: str) -> PointReader:
        """Return a reader of another program's collection; see `Store`."""
        return ServerPointReader(self._server, name)

    def request_limits(self, name: str) -> RequestLimits:
        """Return the limits of a collection's strict mode; see `Store`."""
        return self._open(name).limits()

    def metadata(self, name: str) -> CollectionMetadata:
        """Return the metadata of a collection; see `Store`."""
        physical = self._resolve(name)
        # not of `physical`, which may have been dropped since
        return self._to_metadata(self._stored_metadata(name), physical)

    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Store metadata with a collection; see `Store`."""
        stored = {convert.METADATA_KEY: metadata_to_json(metadata)}
        update, physical = self._client.update_collection, self._resolve(name)
        self._server.call("writing metadata", update, physical, metadata=stored)

    def bulk_holders(self, name: str) -> Mapping[str, BulkHolder]:
        """Return the records of ingests in bulk mode; see `Store`."""
        return convert.bulk_holders(self._open(self._resolve(name)).read_info())

    def record_bulk_holders(self, name: str, holders: Mapping[str, BulkHolder | None]) -> None:
        """Write or delete records of ingests in bulk mode; see `Store`."""
        update, physical = self._client.update_collection, self._resolve(name)
        stored = convert.bulk_metadata(holders)
        self._server.call("recording the bulk mode", update, physical, metadata=stored)

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock for "look, then create"; it does not exclude other processes."""
        return self._lock

    def aliases(self) -> Mapping[str, str]:
        """Return this package's aliases and their collections; a server may have others."""
        try:
            found = self._all_aliases()
        except StoreAccessError as exc:
            if not is_forbidden(exc):
                raise
            found = self._derive_aliases()
        return {
            alias: physical for alias, physical in found.items() if is_own_alias(alias, physical)
        }

    def physical_names(self) -> Sequence[str]:
        """Return every physical collection; a server may have others'."""
        found = self._server.call("listing collections", self._client.get_collections)
        return sorted(entry.name for entry in found.collections)

    def set_alias(self, alias: str, name: str) -> None:
        """Point an alias to a physical collection; see `Store`."""
        self._check_physical(name)
        found = self._all_aliases().get(alias)
        if found is not None and not is_own_alias(alias, found):
            raise foreign_alias(alias, found, self.dsn)
        # One operation, which replaces: a crash after a deletion would leave no alias.
        creation = models.CreateAlias(collection_name=name, alias_name=alias)
        self._change_aliases([models.CreateAliasOperation(create_alias=creation)])

    def remove_alias(self, alias: str) -> None:
        """Remove an alias; see `Store`."""
        deletion = models.DeleteAlias(alias_name=alias)
        self._change_aliases([models.DeleteAliasOperation(delete_alias=deletion)])

    def unknown_collection(self, name: str) -> StoreError:
        """Return the error for a name: unknown, another program's, or hidden from this key."""
        try:
            self._open(name).read_info()
        except CollectionNotFoundError:
            return super().unknown_collection(name)
        except StoreAccessError as exc:
            return hidden_collection(name, self.dsn) if is_forbidden(exc) else exc
        aliases, names = self.aliases(), self.physical_names()
        if name in aliases or (name in names and PHYSICAL.fullmatch(name)):
            return super().unknown_collection(name)
        if name in names:
            return foreign_collection(name, aliases, self.dsn)
        found = self._all_aliases().get(name)
        return foreign_alias(name, found, self.dsn) if found else hidden_collection(name, self.dsn)

    def close(self) -> None:
        """Release the handle. Closing twice is harmless."""
        self._server.close()
        if not self._server.is_inherited:  # in a forked child, another thread may have its lock
            # Closing the client ends calls by gRPC, but not those by REST.
            self._senders.shutdown(wait=not self._server.is_rest)

    def _open(self, name: str) -> ServerAdminCollection:
        limits = self._limits[name]
        return ServerAdminCollection(self._server, name, self._senders, self._connection, limits)

    def _create_or_adopt(
        self, name: str, spec: CollectionSpec, metadata: CollectionMetadata | None
    ) -> None:
        """Create a physical collection, or adopt an empty one of the same spec.

        It exists if another process creates it, too, or if the answer to its creation was lost.
        With metadata only the latter is adopted.
        """
        create, arguments = self._client.create_collection, convert.create_arguments(spec)
        ours = None if metadata is None else metadata_to_json(metadata)
        if ours is not None:
            kept = arguments.get("metadata", {})
            arguments["metadata"] = {**kept, convert.METADATA_KEY: ours}
        try:
            self._server.call("creating the collection", create, name, **arguments)
        except SchemaError:
            if name in self.aliases().values():
                raise
            found = self._open(name).read_info()
            stored: Any = (found.config.metadata or {}).get(convert.METADATA_KEY) or {}
            if ours is not None and stored != ours:
                raise just_created(name, self.dsn) from None
            if ours is None and stored.get("restoring") is not None:
                raise being_restored(name, self.dsn) from None
            if found.points_count or not _has_spec(found, spec):
                raise SchemaError(
                    f"a collection '{name}' without an alias exists in {self.dsn}, "
                    f"{_describe_remedy(name, found.points_count or 0, self.dsn)}"
                ) from None

    def _delete_collection(self, name: str) -> None:
        self._server.call("deleting the collection", self._client.delete_collection, name)

    def _change_aliases(self, changes: Sequence[models.AliasOperations]) -> None:
        update = self._client.update_collection_aliases
        self._server.call("changing aliases", update, changes)

    def _derive_aliases(self) -> Mapping[str, str]:
        """Find the aliases of this package where a gateway refuses to list aliases.

        A name is an alias of the physical collection with the same metadata: those of any two
        differ in the model or in `swaps`.
        """
        found: dict[str, str] = {}
        for physical in filter(PHYSICAL.fullmatch, self.physical_names()):
            alias = base_name(physical)
            try:
                stored, live = (self._stored_metadata(name) for name in (physical, alias))
            except (CollectionNotFoundError, StoreAccessError):
                continue
            if stored is not None and stored == live:
                found[alias] = physical
        return found

    def _stored_metadata(self, name: str) -> object:
        """Return this package's metadata of a collection as JSON, None without any."""
        return (self._open(name).read_info().config.metadata or {}).get(convert.METADATA_KEY)

    def _all_aliases(self) -> Mapping[str, str]:
        found = self._server.call("reading the aliases", self._client.get_aliases)
        return {entry.alias_name: entry.collection_name for entry in found.aliases}


def _describe_remedy(name: str, points: int, dsn: str) -> str:
    """Describe the next step if a physical collection is in the way of its creation."""
    if points:
        link = advised_command("migrate", "link", base_name(name), store=dsn)
        return (
            f"with {points:,} points: {link} points the alias to it if it is from msmarco-qdrant, "
            "else choose another name"
        )
    return (
        "empty and for another model: another process is creating it, or was interrupted; "
        f"{advised_command('drop', name, '--yes', store=dsn)} deletes it"
    )


def _has_spec(info: models.CollectionInfo, spec: CollectionSpec) -> bool:
    try:
        found = convert.to_spec(info)
    except ValueError:
        return False
    indexes = spec.payload_indexes  # the settings and the indexes may differ
    return spec == replace(found, hnsw=spec.hnsw, storage=spec.storage, payload_indexes=indexes)

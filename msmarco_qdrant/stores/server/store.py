"""A Qdrant server over gRPC, or qdrant-client's local mode in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from msmarco_qdrant.core.records import CollectionMetadata, CollectionSpec
from msmarco_qdrant.errors import SchemaError
from msmarco_qdrant.stores.base import Capabilities, Store
from msmarco_qdrant.stores.connection import Connection, parse_address
from msmarco_qdrant.stores.metadata import metadata_from_json, metadata_to_json
from msmarco_qdrant.stores.migration_locks import MigrationLocks, ProcessLocks
from msmarco_qdrant.stores.names import is_own_alias, unknown_collection
from msmarco_qdrant.stores.server import convert
from msmarco_qdrant.stores.server.admin import ServerAdminCollection, check_quantization
from msmarco_qdrant.stores.server.async_collection import AsyncServerCollection
from msmarco_qdrant.stores.server.client import ServerClient, connect
from msmarco_qdrant.stores.server.collection import ServerCollection
from msmarco_qdrant.stores.server.locks import ServerLocks
from msmarco_qdrant.stores.server.retry import RetryPolicy

if TYPE_CHECKING:
    from qdrant_client import models

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
)
IN_MEMORY = Capabilities(engine="Memory", admin=True, migration_locks=True)

_METADATA_KEY = "msmarco_qdrant"


class ServerStore(Store):
    """A Qdrant server, or qdrant-client's local mode; `connect` and `in_memory` make it."""

    def __init__(
        self, server: ServerClient, capabilities: Capabilities, connection: Connection
    ) -> None:
        self._server = server
        self._capabilities = capabilities
        self._connection = connection
        self._lock = threading.RLock()
        self._locks = ServerLocks(server) if server.is_remote else ProcessLocks()
        self._senders = ThreadPoolExecutor(
            connection.in_flight, thread_name_prefix="msmarco-qdrant-send"
        )

    @classmethod
    def connect(cls, dsn: str, connection: Connection) -> ServerStore:
        """Reach a server; see `open_store` for what is raised."""
        server = connect(dsn, parse_address(dsn, connection), connection)
        return cls(server, SERVER, connection)

    @classmethod
    def in_memory(cls) -> ServerStore:
        """A new, empty store in this process's memory, which ends with it."""
        from qdrant_client import QdrantClient

        client, connection = QdrantClient(":memory:"), Connection(retry_s=0)
        server = ServerClient(client, ":memory:", RetryPolicy(0), single_threaded=True)
        return cls(server, IN_MEMORY, connection)

    @property
    def dsn(self) -> str:
        """The URL it was opened by, or `:memory:`."""
        return self._server.place

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    @property
    def migration_locks(self) -> MigrationLocks:
        """The locks of whoever migrates."""
        return self._locks

    def create_collection(self, name: str, spec: CollectionSpec) -> None:
        """Create an empty physical collection; see `Store`."""
        check_quantization(self._server, spec.storage.quantization)
        if name in self.aliases().values():
            raise SchemaError(f"a collection '{name}' exists already in {self.dsn}")
        if not self._capabilities.multi_process:
            self._delete_collection(name)
        self._create_or_complete(name, spec)
        if self._capabilities.payload_indexes:
            self._index_fields(name, spec)

    def drop_collection(self, name: str) -> None:
        """Remove a physical collection and its aliases; see `Store`."""
        if name not in self._physical():
            raise unknown_collection(name, self.aliases(), self.dsn)
        # It takes its aliases along. In the other order, a crash between would leave passages that
        # a later creation would find.
        self._delete_collection(name)
        aliases = [alias for alias, physical in self.aliases().items() if physical == name]
        self._change_aliases([_delete_alias(alias) for alias in aliases])

    def collection(self, name: str) -> ServerCollection:
        """The collection behind a name; see `Store`."""
        return ServerCollection(self._server, self._resolve(name), self._senders, self._connection)

    def admin_collection(self, name: str) -> ServerAdminCollection:
        """The collection behind a name, to be changed; see `AdminCollection`."""
        collection = self.collection(name)
        return ServerAdminCollection(self._server, collection.name, self._connection, collection)

    def unresolved_collection(self, name: str) -> ServerCollection:
        """What a name leads to at the moment of each call; see `live_collection`."""
        self._resolve(name)
        return ServerCollection(self._server, name, self._senders, self._connection)

    def async_collection(self, name: str) -> AsyncServerCollection:
        """The same on a server, for the running event loop."""
        self._resolve(name)
        address = parse_address(self.dsn, self._connection)
        return AsyncServerCollection(name, self.dsn, address, self._connection)

    def metadata(self, name: str) -> CollectionMetadata:
        """What was kept with a collection; see `Store`."""
        physical = self._resolve(name)
        told = self._told(name)  # by the name: what it led to just now may be gone
        return metadata_from_json((told.config.metadata or {}).get(_METADATA_KEY), physical)

    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Keep metadata with a collection; see `Store`."""
        kept = {_METADATA_KEY: metadata_to_json(metadata)}
        update = partial(self._server.client.update_collection, self._resolve(name), metadata=kept)
        self._server.call("keeping metadata", update)

    def lock(self) -> AbstractContextManager[object]:
        """Held while a collection is looked for and made; other processes do not wait for it."""
        return self._lock

    def aliases(self) -> Mapping[str, str]:
        """Every alias of ours and its physical collection; a server may have others."""
        return {
            alias: physical
            for alias, physical in self._all_aliases().items()
            if is_own_alias(alias, physical)
        }

    def physical_names(self) -> Sequence[str]:
        """Every physical collection; a server may have others' among them."""
        return sorted(self._physical())

    def set_alias(self, alias: str, name: str) -> None:
        """Let an alias stand for a physical collection; see `Store`."""
        if name not in self._physical():
            raise unknown_collection(name, self.aliases(), self.dsn)
        found = self._all_aliases().get(alias)
        if found is not None and not is_own_alias(alias, found):
            raise SchemaError(
                f"'{alias}' is an alias of {found} in {self.dsn}, which is not ours: choose "
                "another name"
            )
        # One step, which replaces: after a removal, a crash could leave the name leading nowhere.
        self._change_aliases([_create_alias(alias, name)])

    def close(self) -> None:
        """Give the handle back. Closing twice is no error."""
        self._server.close()
        self._senders.shutdown()

    def _create_or_complete(self, name: str, spec: CollectionSpec) -> None:
        """Create a physical collection, or take over one of the same plan.

        Two processes may be at it, and the answer to a creation may be lost: so one that exists
        is compared instead of refused.
        """
        create = partial(
            self._server.client.create_collection, name, **convert.create_arguments(spec)
        )
        try:
            self._server.call("creating the collection", create)
        except SchemaError:
            if name in self.aliases().values():
                raise
            found = self._told(name)
            if found.points_count or not _is_of_plan(found, spec):
                raise SchemaError(
                    f"a collection '{name}' exists in {self.dsn}, of another model or with points "
                    "in it, and no name stands for it: another process is creating it just now, or "
                    f"was interrupted; `msmarco-qdrant drop {name} --yes` removes it"
                ) from None

    def _index_fields(self, name: str, spec: CollectionSpec) -> None:
        for field, kind in spec.payload_indexes.items():
            create = partial(
                self._server.client.create_payload_index,
                name,
                field,
                convert.field_schema(kind),
                wait=True,
            )
            self._server.call("creating a payload index", create)

    def _delete_collection(self, name: str) -> None:
        self._server.call(
            "removing the collection", partial(self._server.client.delete_collection, name)
        )

    def _change_aliases(self, changes: Sequence[models.AliasOperations]) -> None:
        if changes:
            change = partial(self._server.client.update_collection_aliases, list(changes))
            self._server.call("changing aliases", change)

    def _all_aliases(self) -> Mapping[str, str]:
        told = self._server.call("reading the aliases", self._server.client.get_aliases)
        return {entry.alias_name: entry.collection_name for entry in told.aliases}

    def _physical(self) -> set[str]:
        told = self._server.call("listing collections", self._server.client.get_collections)
        return {entry.name for entry in told.collections}

    def _told(self, physical: str) -> models.CollectionInfo:
        return self._server.call(
            "reading a collection's state", partial(self._server.client.get_collection, physical)
        )

    def _resolve(self, name: str) -> str:
        aliases = self.aliases()
        physical = aliases.get(name, name)
        if physical not in self._physical():
            raise unknown_collection(name, aliases, self.dsn)
        return physical


def _is_of_plan(told: models.CollectionInfo, spec: CollectionSpec) -> bool:
    try:
        found = convert.to_spec(told)
    except ValueError:
        return False
    return (found.dense, found.dimension, found.similarity, found.sparse) == (
        spec.dense,
        spec.dimension,
        spec.similarity,
        spec.sparse,
    )


def _delete_alias(alias: str) -> models.DeleteAliasOperation:
    from qdrant_client import models

    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))


def _create_alias(alias: str, name: str) -> models.CreateAliasOperation:
    from qdrant_client import models

    return models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=name, alias_name=alias)
    )

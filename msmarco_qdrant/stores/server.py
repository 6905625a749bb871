"""A Qdrant server over gRPC, or qdrant-client's local mode in memory. The adapter to both.

Writes go through the public gRPC stub with messages of our own (`wire`); everything else is
qdrant-client's own methods. The local mode is the same code but for writing and waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from msmarco_qdrant._in_batches import in_batches
from msmarco_qdrant.errors import (
    SchemaError,
    StoreCorruptError,
    StoreError,
    UnsupportedError,
)
from msmarco_qdrant.records import (
    CollectionInfo,
    CollectionMetadata,
    CollectionSpec,
    DenseQuery,
    PointBatch,
    PointId,
    ScoredPoint,
)
from msmarco_qdrant.stores import server_requests as requests
from msmarco_qdrant.stores.connection import Connection, parse_address
from msmarco_qdrant.stores.metadata import metadata_from_json, metadata_to_json
from msmarco_qdrant.stores.names import stands_for, unknown_collection
from msmarco_qdrant.stores.protocols import Capabilities
from msmarco_qdrant.stores.retry import Retries
from msmarco_qdrant.stores.server_async import AsyncServerCollection
from msmarco_qdrant.stores.server_link import Link, connect
from msmarco_qdrant.stores.wire import upsert_requests

if TYPE_CHECKING:
    from qdrant_client import grpc, models

SERVER = Capabilities(
    engine="Server", ann=True, payload_indexes=True, quantisation=True, multi_process=True
)
IN_MEMORY = Capabilities(
    engine="Memory", ann=False, payload_indexes=False, quantisation=False, multi_process=False
)

_METADATA_KEY = "msmarco_qdrant"
_PAGE = 1000
_INDEX_POLL_S = (0.05, 2.0)


class ServerStore:
    """A Qdrant server, or qdrant-client's local mode; `connect` and `in_memory` make it."""

    def __init__(self, link: Link, capabilities: Capabilities, connection: Connection) -> None:
        self._link = link
        self._capabilities = capabilities
        self._connection = connection
        self._lock = threading.RLock()
        self._senders = ThreadPoolExecutor(
            connection.in_flight, thread_name_prefix="msmarco-qdrant-send"
        )

    @classmethod
    def connect(cls, dsn: str, connection: Connection) -> ServerStore:
        """Reach a server; see `open_store` for what is raised."""
        link = connect(dsn, parse_address(dsn, connection), connection)
        return cls(link, SERVER, connection)

    @classmethod
    def in_memory(cls) -> ServerStore:
        """A new, empty store in this process's memory, which ends with it."""
        from qdrant_client import QdrantClient

        client, connection = QdrantClient(":memory:"), Connection(retry_s=0)
        link = Link(client, ":memory:", Retries(0), one_at_a_time=True)
        return cls(link, IN_MEMORY, connection)

    @property
    def dsn(self) -> str:
        """The URL it was opened by, or `:memory:`."""
        return self._link.place

    @property
    def is_remote(self) -> bool:
        """Whether there is a server, and not the local mode."""
        return self._link.is_remote

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    def create_collection(self, name: str, spec: CollectionSpec) -> None:
        """Create an empty physical collection; see `Store`."""
        if spec.storage.quantisation != "none" and not self._capabilities.quantisation:
            raise UnsupportedError(
                f"{self.dsn} cannot quantise vectors: leave quantisation at 'none'"
            )
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
        aliases = [alias for alias, physical in self.aliases().items() if physical == name]
        self._change_aliases([_delete_alias(alias) for alias in aliases])
        self._delete_collection(name)

    def collection(self, name: str) -> ServerCollection:
        """The collection behind a name; see `Store`."""
        return ServerCollection(self._link, self._resolve(name), self._senders, self._connection)

    def asynchronous(self, name: str) -> AsyncServerCollection:
        """The collection behind a name on a server, for the running event loop."""
        address = parse_address(self.dsn, self._connection)
        return AsyncServerCollection(self._resolve(name), self.dsn, address, self._connection)

    def metadata(self, name: str) -> CollectionMetadata:
        """What was kept with a collection; see `Store`."""
        physical = self._resolve(name)
        told = self._told(physical)
        return metadata_from_json((told.config.metadata or {}).get(_METADATA_KEY), physical)

    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Keep metadata with a collection; see `Store`."""
        kept = {_METADATA_KEY: metadata_to_json(metadata)}
        update = partial(self._link.client.update_collection, self._resolve(name), metadata=kept)
        self._link.call("keeping metadata", update)

    def lock(self) -> AbstractContextManager[object]:
        """Held while a collection is looked for and made; other processes do not wait for it."""
        return self._lock

    def aliases(self) -> Mapping[str, str]:
        """Every alias of ours and its physical collection; a server may have others."""
        return {
            alias: physical
            for alias, physical in self._all_aliases().items()
            if stands_for(alias, physical)
        }

    def set_alias(self, alias: str, name: str) -> None:
        """Let an alias stand for a physical collection; see `Store`."""
        if name not in self._physical():
            raise unknown_collection(name, self.aliases(), self.dsn)
        found = self._all_aliases().get(alias)
        if found is not None and not stands_for(alias, found):
            raise SchemaError(
                f"'{alias}' is an alias of {found} in {self.dsn}, which is not ours: choose "
                "another name"
            )
        changes = [] if found is None else [_delete_alias(alias)]
        self._change_aliases([*changes, _create_alias(alias, name)])

    def close(self) -> None:
        """Give the handle back. Closing twice is no error."""
        self._link.close()
        self._senders.shutdown()

    def __enter__(self) -> ServerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create_or_complete(self, name: str, spec: CollectionSpec) -> None:
        """Create a physical collection, or take over one of the same plan.

        Two processes may be at it, and the answer to a creation may be lost: so one that exists
        is compared instead of refused.
        """
        create = partial(self._link.client.create_collection, name, **requests.creation(spec))
        try:
            self._link.call("creating the collection", create)
        except SchemaError:
            found = self._told(name)
            if not _is_of_plan(found, spec):
                raise SchemaError(
                    f"a collection '{name}' of another model exists in {self.dsn}, and no name "
                    "stands for it: another process is creating it just now, or was interrupted; "
                    f"`msmarco-qdrant drop {name} --yes` removes it"
                ) from None

    def _index_fields(self, name: str, spec: CollectionSpec) -> None:
        for field, kind in spec.payload_indexes.items():
            create = partial(
                self._link.client.create_payload_index,
                name,
                field,
                requests.field_schema(kind),
                wait=True,
            )
            self._link.call("creating a payload index", create)

    def _delete_collection(self, name: str) -> None:
        self._link.call(
            "removing the collection", partial(self._link.client.delete_collection, name)
        )

    def _change_aliases(self, changes: Sequence[models.AliasOperations]) -> None:
        if changes:
            change = partial(self._link.client.update_collection_aliases, list(changes))
            self._link.call("changing aliases", change)

    def _all_aliases(self) -> Mapping[str, str]:
        told = self._link.call("reading the aliases", self._link.client.get_aliases)
        return {entry.alias_name: entry.collection_name for entry in told.aliases}

    def _physical(self) -> set[str]:
        told = self._link.call("listing collections", self._link.client.get_collections)
        return {entry.name for entry in told.collections}

    def _told(self, physical: str) -> models.CollectionInfo:
        return self._link.call(
            "reading a collection's state", partial(self._link.client.get_collection, physical)
        )

    def _resolve(self, name: str) -> str:
        aliases = self.aliases()
        physical = aliases.get(name, name)
        if physical not in self._physical():
            raise unknown_collection(name, aliases, self.dsn)
        return physical


class ServerCollection:
    """A physical collection; see `Collection` for what its methods promise.

    Every write waits until the server has synced it, so `flush` has nothing left to do.
    """

    def __init__(
        self, link: Link, name: str, senders: ThreadPoolExecutor, connection: Connection
    ) -> None:
        self._link = link
        self._client = link.client
        self._name = name
        self._senders = senders
        self._connection = connection

    def info(self) -> CollectionInfo:
        """Counts, index state and settings."""
        told = self._told()
        try:
            spec = requests.to_spec(told)
        except ValueError as exc:
            raise StoreCorruptError(
                f"collection '{self._name}' was not made by msmarco-qdrant: {exc}"
            ) from exc
        count = partial(self._client.count, self._name, exact=True)
        return requests.to_info(
            self._name,
            told,
            spec,
            points=self._link.call("counting points", count).count,
            last_seq=self._last_seq(told),
        )

    def upsert(self, batch: PointBatch) -> None:
        """Write points: several requests at once, each durable when it is answered."""
        if not batch.ids:
            return
        self._link.check_open()  # the senders would wait for ever in a forked child
        if self._link.is_remote:
            self._send(batch)
            return
        points = requests.point_structs(batch)
        self._link.call("writing points", partial(self._client.upsert, self._name, points))

    def replace_payloads(self, ids: Sequence[PointId], payloads: Sequence[dict[str, Any]]) -> None:
        """Replace payloads and leave vectors."""
        from qdrant_client import models

        operations: list[models.UpdateOperation] = [
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload=payload, points=[requests.from_id(id_)])
            )
            for id_, payload in zip(ids, payloads, strict=True)
        ]
        for part in in_batches(operations, self._connection.batch_points):
            update = partial(self._client.batch_update_points, self._name, part, wait=True)
            self._link.call("writing payloads", update)

    def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Payload fields of those ids that exist."""
        found: dict[PointId, dict[str, Any]] = {}
        for page in in_batches(map(requests.from_id, ids), _PAGE):
            read = partial(self._client.retrieve, self._name, page, with_payload=list(fields))
            records = self._link.call("reading points", read)
            found.update((requests.to_id(record.id), record.payload or {}) for record in records)
        return found

    def delete(self, ids: Sequence[PointId]) -> None:
        """Remove points."""
        from qdrant_client import models

        for page in in_batches(map(requests.from_id, ids), _PAGE):
            chosen = models.PointIdsList(points=[*page])
            remove = partial(self._client.delete, self._name, chosen, wait=True)
            self._link.call("removing points", remove)

    def scan(self, fields: Sequence[str]) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Every point's id and payload fields."""
        offset: models.ExtendedPointId | None = None
        while True:
            scroll = partial(
                self._client.scroll,
                self._name,
                limit=_PAGE,
                offset=offset,
                with_payload=list(fields),
            )
            records, offset = self._link.call("reading points", scroll)
            for record in records:
                yield requests.to_id(record.id), record.payload or {}
            if offset is None:
                return

    def query(self, queries: Sequence[DenseQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        asked = [requests.query_request(query, ann=self._link.is_remote) for query in queries]
        search = partial(self._client.query_batch_points, self._name, asked)
        answers = self._link.call("searching", search)
        return [requests.to_scored(answer.points) for answer in answers]

    def flush(self) -> None:
        """Nothing is left to sync: every write has waited for it."""
        self._link.check_open()

    def optimize(self) -> None:
        """Wait until the server has built the indexes."""
        if not self._link.is_remote:
            return
        if self._told().status == "grey":  # it waits for a change of settings, even an empty one
            self._wake_optimizer()
        self._wait_for_indexes()

    def _send(self, batch: PointBatch) -> None:
        """Send a batch's requests, some at once; all are answered or failed when this returns."""
        to_send = upsert_requests(
            self._name,
            batch,
            max_points=self._connection.batch_points,
            max_bytes=self._connection.batch_bytes,
        )
        under_way: list[Future[None]] = []
        errors: list[BaseException | None] = []
        try:
            for request in to_send:
                if len(under_way) >= self._connection.in_flight:
                    under_way.pop(0).result()
                under_way.append(self._submit(request))
        except Exception as exc:  # noqa: BLE001  # raised below, when nothing is under way any more
            errors.append(exc)
        errors += [future.exception() for future in under_way]
        for error in errors:
            if error is not None:
                raise error

    def _submit(self, request: grpc.UpsertPoints) -> Future[None]:
        try:
            return self._senders.submit(self._send_one, request)
        except RuntimeError:  # the store was closed meanwhile
            self._link.check_open()
            raise

    def _send_one(self, request: grpc.UpsertPoints) -> None:
        write = partial(
            self._client.grpc_points.Upsert, request, timeout=self._connection.timeout_s
        )
        self._link.call("writing points", write)

    def _last_seq(self, told: models.CollectionInfo) -> int:
        from qdrant_client import models

        if self._link.is_remote and "seq" not in told.payload_schema:
            return 0  # its creation was interrupted before the index: nothing was written
        newest_first = models.OrderBy(key="seq", direction=models.Direction.DESC)
        scroll = partial(
            self._client.scroll, self._name, limit=1, order_by=newest_first, with_payload=["seq"]
        )
        records, _ = self._link.call("reading the last seq", scroll)
        return int(records[0].payload["seq"]) if records and records[0].payload else 0

    def _told(self) -> models.CollectionInfo:
        read = partial(self._client.get_collection, self._name)
        return self._link.call("reading its state", read)

    def _wake_optimizer(self) -> None:
        from qdrant_client import models

        wake = partial(
            self._client.update_collection,
            self._name,
            optimizers_config=models.OptimizersConfigDiff(),
        )
        self._link.call("starting the optimizers", wake)

    def _wait_for_indexes(self) -> None:
        """Ask until the server says that it is done: it has no call that waits for it."""
        from tenacity import Retrying, retry_if_result, wait_exponential

        first, longest = _INDEX_POLL_S
        tries = Retrying(
            retry=retry_if_result(lambda told: told.status in ("yellow", "grey")),
            wait=wait_exponential(multiplier=first, max=longest),
            sleep=self._link.retries.sleep,
        )
        told = tries(self._told)
        if told.status == "red":
            raise StoreError(
                f"building the index of {self._name} failed: {told.optimizer_status}; every "
                "passage is there, run optimize again"
            )


def _is_of_plan(told: models.CollectionInfo, spec: CollectionSpec) -> bool:
    try:
        found = requests.to_spec(told)
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

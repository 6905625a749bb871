"""Migration locks on a Qdrant server: points without vectors in a small collection.

A lock is acquired by an upsert that only inserts. Of two concurrent ones, the second changes
nothing, and both read back the token of the first. Servers before 1.17 ignore `insert_only`, so a
filter has the same effect: it allows only points of another id to be replaced, and there are none.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import asdict

from qdrant_client import models

from msmarco_qdrant.core.records import LockHolder
from msmarco_qdrant.errors import CollectionNotFoundError, SchemaError, StoreCorruptError
from msmarco_qdrant.stores.names import LOCKS
from msmarco_qdrant.stores.payload import NAMESPACE
from msmarco_qdrant.stores.server.client import ServerClient


class ServerLocks:
    """The locks of the collections of one server; see `MigrationLocks`."""

    def __init__(self, server: ServerClient) -> None:
        self._server = server
        self._client = server.client

    def acquire(self, name: str, wanted: LockHolder) -> LockHolder:
        """Insert a point, then read the stored one."""
        self._create_collection()
        payload = {"collection": name, **asdict(wanted)}
        point = models.PointStruct(id=_point_id(name), vector={}, payload=payload)
        others = models.Filter(must_not=[models.HasIdCondition(has_id=[point.id])])
        while True:
            self._server.call(
                "acquiring the lock",
                self._client.upsert,
                LOCKS,
                [point],
                update_mode=models.UpdateMode.INSERT_ONLY,
                update_filter=others,
                wait=True,
                ordering=models.WriteOrdering.STRONG,
            )
            if (found := self.holder(name)) is not None:  # else it was released between the calls
                return found

    def holder(self, name: str) -> LockHolder | None:
        """Return the holder of a lock."""
        try:
            records = self._server.call(
                "reading the lock",
                self._client.retrieve,
                LOCKS,
                [_point_id(name)],
                with_payload=True,
                consistency=models.ReadConsistencyType.MAJORITY,
            )
        except CollectionNotFoundError:
            return None
        return _holder(name, records[0]) if records else None

    def release(self, name: str, token: str) -> LockHolder | None:
        """Delete the point, if it has this token."""
        chosen = models.Filter(
            must=[
                models.HasIdCondition(has_id=[_point_id(name)]),
                models.FieldCondition(key="token", match=models.MatchValue(value=token)),
            ]
        )
        try:
            self._server.call(
                "releasing the lock",
                self._client.delete,
                LOCKS,
                models.FilterSelector(filter=chosen),
                wait=True,
                ordering=models.WriteOrdering.STRONG,
            )
        except CollectionNotFoundError:
            return None
        return self.holder(name)

    def _create_collection(self) -> None:
        """Create the collection of locks if it is missing; another process may do the same.

        The token has an index: a server in strict mode deletes only by an indexed field.
        """
        read, action = self._client.get_collection, "creating the collection of locks"
        try:
            self._server.call(action, read, LOCKS)  # some gateways refuse `collection_exists`
        except CollectionNotFoundError:
            with suppress(SchemaError):  # another process has created it
                create = self._client.create_collection
                self._server.call(action, create, LOCKS, vectors_config={})
        index, keyword = self._client.create_payload_index, models.PayloadSchemaType.KEYWORD
        self._server.call(action, index, LOCKS, "token", keyword, wait=True)


def _point_id(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"lock:{name}"))


def _holder(name: str, record: models.Record) -> LockHolder:
    payload = record.payload or {}
    try:
        return LockHolder(**{key: payload[key] for key in ("token", "host", "pid", "since")})
    except KeyError as exc:
        raise StoreCorruptError(
            f"the lock of '{name}' in the collection {LOCKS} has no {exc}: another program wrote "
            "it; delete that point"
        ) from exc

"""Locks on a Qdrant server: points without vectors in a small collection.

A lock is taken by an upsert that only inserts: of two at once, one finds the other's point and
changes nothing, and both read back whose token is there. Servers before 1.17 do not know
`insert_only`, and overlook it; so it is said as a condition too, which they know: the points to be
replaced are those of another id, and there are none. Both calls may be repeated.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from msmarco_qdrant.core.records import LockHolder
from msmarco_qdrant.errors import CollectionNotFoundError, SchemaError, StoreCorruptError
from msmarco_qdrant.stores.names import LOCKS
from msmarco_qdrant.stores.payload import NAMESPACE
from msmarco_qdrant.stores.server.client import ServerClient

if TYPE_CHECKING:
    from qdrant_client import models


class ServerLocks:
    """The locks of the collections of one server; see `MigrationLocks`."""

    def __init__(self, server: ServerClient) -> None:
        self._server = server
        self._client = server.client

    def acquire(self, name: str, wanted: LockHolder) -> LockHolder:
        """Insert our point, and read whose is there."""
        from qdrant_client import models

        self._make_collection()
        point = models.PointStruct(id=_point_id(name), vector={}, payload=_payload(name, wanted))
        insert = partial(
            self._client.upsert,
            LOCKS,
            [point],
            update_mode=models.UpdateMode.INSERT_ONLY,
            update_filter=models.Filter(must_not=[models.HasIdCondition(has_id=[point.id])]),
            wait=True,
            ordering=models.WriteOrdering.STRONG,
        )
        while True:
            self._server.call("taking the lock", insert)
            if (found := self.holder(name)) is not None:  # else it was given back between the two
                return found

    def holder(self, name: str) -> LockHolder | None:
        """Read a lock."""
        from qdrant_client import models

        read = partial(
            self._client.retrieve,
            LOCKS,
            [_point_id(name)],
            with_payload=True,
            consistency=models.ReadConsistencyType.MAJORITY,
        )
        try:
            records = self._server.call("reading the lock", read)
        except CollectionNotFoundError:
            return None
        return _holder(name, records[0]) if records else None

    def release(self, name: str, token: str) -> LockHolder | None:
        """Remove the point, if its token is this one."""
        from qdrant_client import models

        chosen = models.Filter(
            must=[
                models.HasIdCondition(has_id=[_point_id(name)]),
                models.FieldCondition(key="token", match=models.MatchValue(value=token)),
            ]
        )
        remove = partial(
            self._client.delete,
            LOCKS,
            models.FilterSelector(filter=chosen),
            wait=True,
            ordering=models.WriteOrdering.STRONG,
        )
        try:
            self._server.call("giving the lock back", remove)
        except CollectionNotFoundError:
            return None
        return self.holder(name)

    def _make_collection(self) -> None:
        """Make the collection of locks, if there is none; another process may be at it too.

        The token has an index, as a server in strict mode removes by an indexed field only.
        """
        from qdrant_client import models

        there = partial(self._client.collection_exists, LOCKS)
        if not self._server.call("looking for the locks", there):
            create = partial(self._client.create_collection, LOCKS, vectors_config={})
            try:
                self._server.call("making the collection of locks", create)
            except SchemaError:
                if not self._server.call("looking for the locks", there):
                    raise
        index = partial(
            self._client.create_payload_index,
            LOCKS,
            "token",
            models.PayloadSchemaType.KEYWORD,
            wait=True,
        )
        self._server.call("making the collection of locks", index)


def _point_id(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"lock:{name}"))


def _payload(name: str, holder: LockHolder) -> dict[str, object]:
    return {"collection": name, **asdict(holder)}


def _holder(name: str, record: models.Record) -> LockHolder:
    payload = record.payload or {}
    try:
        return LockHolder(**{key: payload[key] for key in ("token", "host", "pid", "since")})
    except KeyError as exc:
        raise StoreCorruptError(
            f"the lock of '{name}' in the collection {LOCKS} holds no {exc}: something else wrote "
            "it; remove that point"
        ) from exc

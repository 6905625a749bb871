"""Migration locks on a Qdrant server: points without vectors in a small collection.

A lock is acquired by an upsert that only inserts. Of two concurrent ones, the second changes
nothing, and both read back the token of the first. Servers before 1.17 ignore `insert_only`, so a
filter has the same effect: it allows only points of another id to be replaced, and there are none.

On a cluster a lock is held only if every active replica has its point. Writes have strong ordering:
one node orders them all. A write that too few replicas accepted leaves a point on some, and another
process may then insert its own on the rest. Both see replicas that differ, so neither holds the
lock: each withdraws its point and tries again. If one replica shows the same point all the time for
`settle_s`, nobody that still tries withdraws what differs. Then one process deletes it: another's
point by the token that was shown; or, if its own was shown, so that no other process can have
acquired the lock, what the other replicas have.
"""

from __future__ import annotations

import math
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import TypeAlias, TypeVar

from qdrant_client import models

from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    SchemaError,
    StoreCorruptError,
    StoreUnavailableError,
)
from msmarco_qdrant.stores.names import LOCKS
from msmarco_qdrant.stores.payload import NAMESPACE
from msmarco_qdrant.stores.server.client import ServerClient

SETTLE_S = 15.0
"""Seconds after which nobody still tries to acquire a lock whose replicas differ."""
_PAUSE_S = (0.05, 0.25)
_LEAST_ATTEMPTS = 8  # replicas that differ need three, however short the deadline is
_T = TypeVar("_T")
_TimeLeft: TypeAlias = Callable[[], float]


class ServerLocks:
    """The locks of the collections of one server; see `MigrationLocks`.

    Each method keeps to the total deadline of the connection, however many calls it makes.

    Args:
        server: The server.
        settle_s: Seconds after which a point whose replicas differ is deleted; None for
            `SETTLE_S`.
    """

    def __init__(self, server: ServerClient, *, settle_s: float | None = None) -> None:
        self._server = server
        self._client = server.client
        self._settle_s = SETTLE_S if settle_s is None else settle_s

    def acquire(self, name: str, wanted: LockHolder) -> LockHolder:
        """Insert a point, then read the stored one."""
        left = self._server.retries.deadline()
        self._create_collection(left)
        shown, settled_at = None, math.inf
        attempt = 0
        while True:
            attempt += 1
            self._insert(left, name, wanted)
            if (found := self._read(left, name)) is not None:
                return found
            # It was released between the calls, or replicas differ.
            before, shown = shown, self._read(left, name, all_replicas=False)
            if shown is None or shown != before:
                settled_at = time.monotonic() + self._settle_s
            if shown is None or time.monotonic() < settled_at:
                self._delete(left, name, wanted.token)
            else:
                is_ours = shown.token == wanted.token
                self._delete(left, name, shown.token, others=is_ours)
            if not left() and attempt >= _LEAST_ATTEMPTS:
                raise StoreUnavailableError(
                    f"the lock of '{name}' at {self._server.place} must be the same on all "
                    "replicas, and they differ: run the same command again when all nodes are up"
                )
            self._server.retries.sleep(random.uniform(*_PAUSE_S))  # noqa: S311  # jitter

    def holder(self, name: str, *, all_replicas: bool = True) -> LockHolder | None:
        """Return the holder of a lock."""
        left = self._server.retries.deadline()
        return self._read(left, name, all_replicas=all_replicas)

    def release(self, name: str, token: str) -> LockHolder | None:
        """Delete the point, if it has this token."""
        left = self._server.retries.deadline()
        self._delete(left, name, token)
        return self._read(left, name)

    def withdraw(self, name: str, token: str) -> None:
        """Delete the point, if it has this token, in one attempt."""
        self._delete(lambda: 0.0, name, token)

    def _insert(self, left: _TimeLeft, name: str, wanted: LockHolder) -> None:
        payload = {"collection": name, **asdict(wanted)}
        point = models.PointStruct(id=_point_id(name), vector={}, payload=payload)
        others = models.Filter(must_not=[models.HasIdCondition(has_id=[point.id])])
        insert = partial(
            self._client.upsert,
            LOCKS,
            [point],
            update_mode=models.UpdateMode.INSERT_ONLY,
            update_filter=others,
            wait=True,
            ordering=models.WriteOrdering.STRONG,
        )
        self._call(left, "acquiring the lock", insert)

    def _read(self, left: _TimeLeft, name: str, *, all_replicas: bool = True) -> LockHolder | None:
        """Return the holder on which all active replicas agree, or that one of them has."""
        read = partial(
            self._client.retrieve,
            LOCKS,
            [_point_id(name)],
            with_payload=True,
            consistency=models.ReadConsistencyType.ALL if all_replicas else None,
        )
        try:
            records = self._call(left, "reading the lock", read)
        except CollectionNotFoundError:
            return None
        return _holder(name, records[0]) if records else None

    def _delete(self, left: _TimeLeft, name: str, token: str, *, others: bool = False) -> None:
        """Delete the point where it has this token, or where it has another one."""
        point = models.HasIdCondition(has_id=[_point_id(name)])
        match = models.FieldCondition(key="token", match=models.MatchValue(value=token))
        chosen = (
            models.Filter(must=[point], must_not=[match])
            if others
            else models.Filter(must=[point, match])
        )
        delete = partial(
            self._client.delete,
            LOCKS,
            models.FilterSelector(filter=chosen),
            wait=True,
            ordering=models.WriteOrdering.STRONG,
        )
        with suppress(CollectionNotFoundError):
            self._call(left, "releasing the lock", delete)

    def _create_collection(self, left: _TimeLeft) -> None:
        """Create the collection of locks if it is missing; another process may do the same.

        The token has an index: a server in strict mode deletes only by an indexed field.
        Collections go through the cluster's consensus, so one node's answer is enough.
        """
        action = "creating the collection of locks"
        try:  # some gateways refuse `collection_exists`
            self._call(left, action, partial(self._client.get_collection, LOCKS))
        except CollectionNotFoundError:
            with suppress(SchemaError):  # another process has created it
                create = partial(self._client.create_collection, LOCKS, vectors_config={})
                self._call(left, action, create)
        keyword = models.PayloadSchemaType.KEYWORD
        index = partial(self._client.create_payload_index, LOCKS, "token", keyword, wait=True)
        self._call(left, action, index)

    def _call(self, left: _TimeLeft, action: str, function: Callable[[], _T]) -> _T:
        return self._server.call_within(left(), action, function)


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

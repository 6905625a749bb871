"""The lock of whoever migrates a collection.

On a server it is a point in a small collection of its own (`server_locks`). Edge's directory is
held by one process, and a store in memory is one process's: there, a lock in the process keeps its
threads apart. No lock ends by the clock: a slow migration looks like one whose process is gone.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from msmarco_qdrant.core.records import LockHolder
from msmarco_qdrant.errors import StoreError, StoreInUseError

_log = logging.getLogger(__name__)


class MigrationLocks(Protocol):
    """The locks of a store, by the name that users see."""

    def acquire(self, name: str, wanted: LockHolder) -> LockHolder:
        """Take a lock if it is free; whoever holds it then."""
        ...

    def holder(self, name: str) -> LockHolder | None:
        """Who holds a lock, if anyone. Creates nothing."""
        ...

    def release(self, name: str, token: str) -> LockHolder | None:
        """Give a lock back if its token is this one; whoever holds it then, None for nobody."""
        ...


@contextmanager
def hold_lock(locks: MigrationLocks, name: str) -> Iterator[LockHolder]:
    """Hold the lock of a collection.

    Raises:
        StoreInUseError: If another holds it, saying who.
    """
    ours = LockHolder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        pid=os.getpid(),
        since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    try:
        found = locks.acquire(name, ours)
    except BaseException:  # it may be ours all the same, and nobody would know
        with suppress(StoreError):  # what is told is why it could not be taken
            locks.release(name, ours.token)
        raise
    if found.token != ours.token:
        raise StoreInUseError(
            f"'{name}' is being migrated by {describe_holder(found)}: wait for it to end; if it is gone, "
            f"`msmarco-qdrant migrate unlock --collection {name} --token {found.token}`"
        )
    try:
        yield ours
    finally:
        try:
            locks.release(name, ours.token)
        except StoreError as exc:
            _log.warning("the lock of '%s' could not be given back: %s", name, exc)


def require_lock(locks: MigrationLocks, name: str, ours: LockHolder) -> None:
    """Refuse to go on if the lock was taken away meanwhile.

    Raises:
        StoreInUseError: If it was.
    """
    found = locks.holder(name)
    if found is None or found.token != ours.token:
        taken = f"{describe_holder(found)} holds it now" if found else "nobody holds it now"
        raise StoreInUseError(
            f"the lock of '{name}' was taken away from this process: {taken}; run the same again "
            "when nobody does"
        )


def describe_holder(holder: LockHolder) -> str:
    """Who holds a lock, in words."""
    return f"process {holder.pid} on {holder.host} since {holder.since}"


class ProcessLocks:
    """Locks of one process, for its threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holders: dict[str, LockHolder] = {}

    def acquire(self, name: str, wanted: LockHolder) -> LockHolder:
        """Take a lock if it is free."""
        with self._guard:
            return self._holders.setdefault(name, wanted)

    def holder(self, name: str) -> LockHolder | None:
        """Who holds a lock."""
        with self._guard:
            return self._holders.get(name)

    def release(self, name: str, token: str) -> LockHolder | None:
        """Give a lock back."""
        with self._guard:
            found = self._holders.get(name)
            if found is not None and found.token == token:
                del self._holders[name]
            return self._holders.get(name)

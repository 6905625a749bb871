"""Locks that keep two migrations of one collection apart.

On a server a lock is a point in a small collection of its own (`server.locks`). An Edge directory
or a store in memory belongs to one process, so a lock in this process is enough. Locks do not
expire: a slow migration cannot be distinguished from one whose process ended.
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
from dataclasses import dataclass
from typing import Any, Protocol

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.errors import StoreError, StoreInUseError
from msmarco_qdrant.runtime.daemon_executor import call_in_daemon_thread

_log = logging.getLogger(__name__)

_WITHDRAW_S = 1.2


class MigrationLocks(Protocol):
    """The locks of a store, one for each name that users see."""

    def acquire(self, name: str, wanted: LockHolder) -> LockHolder:
        """Acquire a lock if it is free; return its holder."""

    def holder(self, name: str, *, all_replicas: bool = True) -> LockHolder | None:
        """Return the holder of a lock, None if it is free. Creates nothing.

        Args:
            name: The name.
            all_replicas: Read it from all replicas. False to describe it while a node may be away.
        """

    def release(self, name: str, token: str) -> LockHolder | None:
        """Release a lock if it has this token; return its holder, None if it is free."""

    def withdraw(self, name: str, token: str) -> None:
        """Release a lock that a failed `acquire` may have left, without retries."""


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock that this process holds, or the process that it works for.

    Attributes:
        locks: The locks of a store.
        name: The name that users see.
        holder: The holder.
    """

    locks: MigrationLocks
    name: str
    holder: LockHolder

    def check(self) -> None:
        """Check that the lock was not removed by `migrate unlock`.

        Raises:
            StoreInUseError: If it was.
        """
        require_lock(self.locks, self.name, self.holder)


@contextmanager
def hold_lock(locks: MigrationLocks, name: str, dsn: str | None = None) -> Iterator[LockHolder]:
    """Hold the lock of a collection.

    Args:
        locks: The locks of a store.
        name: The name that users see.
        dsn: The path or URL of the store, for the error's advice.

    Raises:
        StoreInUseError: If another holds it; the message names the holder.
    """
    ours = LockHolder(token=uuid.uuid4().hex, **this_process())
    try:
        found = locks.acquire(name, ours)
    except (KeyboardInterrupt, SystemExit):
        _withdraw_briefly(locks, name, ours.token)
        raise
    except BaseException:  # the lock may have been acquired in spite of the error
        with suppress(StoreError):  # the first error is the one to raise
            locks.withdraw(name, ours.token)
        raise
    if found.token != ours.token:
        unlock = advised_command(
            "migrate", "unlock", "--token", found.token, collection=name, store=dsn
        )
        raise StoreInUseError(
            f"'{name}' is being migrated or restored by {describe_holder(found)}: wait for it to "
            f"end; if that process has ended, run {unlock}"
        )
    try:
        yield ours
    except (KeyboardInterrupt, SystemExit):  # `SystemExit` is from SIGTERM
        _withdraw_briefly(locks, name, ours.token)
        raise
    except BaseException:
        _release(locks, name, ours.token)
        raise
    _release(locks, name, ours.token)


def _release(locks: MigrationLocks, name: str, token: str) -> None:
    try:
        locks.release(name, token)
    except StoreError as exc:
        _log.warning("the lock of '%s' could not be released: %s", name, exc)


def _withdraw_briefly(locks: MigrationLocks, name: str, token: str) -> None:
    """Release a lock of an interrupted command in one attempt, whose answer may never come."""
    withdrawing = call_in_daemon_thread(lambda: locks.withdraw(name, token), "withdraw-lock")
    try:
        withdrawing.result(_WITHDRAW_S)
    except StoreError as exc:
        _log.warning("the lock of '%s' could not be released: %s", name, exc)
    except TimeoutError:
        reason = f"the store did not answer within {_WITHDRAW_S:g} s"
        _log.warning("the lock of '%s' could not be released: %s", name, reason)


def require_lock(locks: MigrationLocks, name: str, ours: LockHolder) -> None:
    """Check that the lock was not removed by `migrate unlock`.

    Raises:
        StoreInUseError: If it was.
    """
    found = locks.holder(name)
    if found is None or found.token != ours.token:
        holder = f"{describe_holder(found)} holds it" if found else "nobody holds it"
        raise StoreInUseError(
            f"the lock of '{name}' was removed from this process, and {holder}: run the same "
            "command again when the lock is free"
        )


def this_process() -> dict[str, Any]:
    """Return the fields of a `LockHolder` for this process, without a token."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def describe_holder(holder: LockHolder) -> str:
    """Describe the holder of a lock, for messages."""
    return f"process {holder.pid} on {holder.host} since {holder.since}"


class ProcessLocks:
    """Locks in this process, for its threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holders: dict[str, LockHolder] = {}

    def acquire(self, name: str, wanted: LockHolder) -> LockHolder:
        """Acquire a lock if it is free."""
        with self._guard:
            return self._holders.setdefault(name, wanted)

    def holder(
        self,
        name: str,
        *,
        all_replicas: bool = True,  # noqa: ARG002  # there is one
    ) -> LockHolder | None:
        """Return the holder of a lock."""
        with self._guard:
            return self._holders.get(name)

    def release(self, name: str, token: str) -> LockHolder | None:
        """Release a lock."""
        with self._guard:
            found = self._holders.get(name)
            if found is not None and found.token == token:
                del self._holders[name]
            return self._holders.get(name)

    def withdraw(self, name: str, token: str) -> None:
        """Release a lock."""
        self.release(name, token)

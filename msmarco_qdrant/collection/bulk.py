"""Bulk mode of a collection on a server: no graph is built until everything is written.

Each ingest in bulk mode has a record in the collection's metadata, a key of its own, with the
former threshold. It is written before the threshold is changed, and deleted after it was restored,
so the next ingest that builds the index restores it after any end of this one. Of several ingests
the last one restores it.

An ingest renews its record while it runs, which a killed one does not. An ingest that ends watches
the records of others on its own clock: those of two machines are never compared. No lock is needed,
which a killed process would leave behind.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from msmarco_qdrant.core.collection_types import SettingsChange
from msmarco_qdrant.core.metadata_types import BulkHolder, bulk_threshold
from msmarco_qdrant.errors import CollectionNotFoundError, StoreError, UnsupportedError
from msmarco_qdrant.runtime.daemon_executor import call_in_daemon_thread
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.migration_locks import describe_holder, this_process
from msmarco_qdrant.stores.names import base_name

_log = logging.getLogger(__name__)

BULK_THRESHOLD_KB = 0
"""Qdrant builds no graph with an indexing threshold of 0."""
DEFAULT_THRESHOLD_KB = 10_000
"""The threshold of an engine that reports none: the default of Qdrant's config/config.yaml."""
RENEW_S = 10.0
"""Seconds between two renewals of a record."""
EXPIRES_S = 45.0
"""Seconds without a renewal after which an ingest has ended."""
LOOK_S = 2.0
"""Seconds between two looks at the record of another ingest."""
_LEAVE_S = 1.2


def require_bulk(store: Store) -> None:
    """Refuse bulk mode on an engine that builds indexes only on request.

    Raises:
        UnsupportedError: If the store is not a server.
    """
    can = store.capabilities
    if not (can.ann and can.multi_process):
        raise UnsupportedError(
            f"bulk mode needs a Qdrant server, got {store.dsn} ({can.engine}), which builds its "
            "index after the ingest in any case: omit it"
        )


class BulkMode:
    """The bulk mode of a collection, as one ingest begins and ends it, or only ends it.

    Args:
        store: The store.
        name: The collection, by either name.
        now: Returns seconds.

    Attributes:
        name: The same name.
    """

    def __init__(self, store: Store, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self.name = name
        self._now = now
        self._own: BulkHolder | None = None
        self._since: dict[tuple[str, int], float] = {}  # first look, by token and renewals
        self._at_end: dict[str, int] | None = None  # renewals at the first `try_end`
        self._lock = threading.RLock()  # a thread renews the record

    @property
    def is_held(self) -> bool:
        """True after `begin`, until `leave` or `try_end`."""
        return self._own is not None and not self._own.is_done

    def begin(self) -> None:
        """Stop the server from building graphs.

        Raises:
            UnsupportedError: If the store is not a server.
        """
        require_bulk(self._store)
        with self._lock:
            admin = self._store.admin_collection(self.name)
            found = admin.optimizers().indexing_threshold_kb
            holders = self._look()
            if found == BULK_THRESHOLD_KB:
                found = bulk_threshold(holders)
                if found is None:
                    return  # the user has chosen it, and keeps it
            self._own = BulkHolder(
                token=uuid.uuid4().hex,
                **this_process(),
                threshold_kb=DEFAULT_THRESHOLD_KB if found is None else found,
                order=1 + max((one.order for one in holders.values()), default=0),
            )
            self._record(self._own)
            admin.alter(SettingsChange(indexing_threshold_kb=BULK_THRESHOLD_KB))

    def renew(self) -> None:
        """Show other ingests that this one runs."""
        with self._lock:
            if self._own is not None and self.is_held:
                self._own = replace(self._own, renewals=self._own.renewals + 1)
                self._record(self._own)

    def leave(self) -> None:
        """Show that this ingest has ended; the next one that builds the index ends the mode."""
        with self._lock:
            if self._own is not None and self.is_held:
                self._own = replace(self._own, is_done=True)
                self._record(self._own)

    def try_end(self) -> bool:
        """Restore the threshold, unless another ingest runs in bulk mode and will.

        The server then builds the graphs. A threshold that was changed during the bulk mode stays.

        Returns:
            False if it is not known yet whether another ingest runs: call it again later.
        """
        with self._lock:
            self.leave()
            holders = self._look()
            if self._at_end is None:
                self._at_end = {token: one.renewals for token, one in holders.items()}
            others = [one for one in holders.values() if self._may_run(one)]
            # Renewed after this one has left: it will see that, and so will a run that resumes it.
            running = [one for one in others if self._at_end.get(one.token) != one.renewals]
            if running:
                _log.warning(
                    "the index of '%s' is not built yet, because %s ingests in bulk mode, too: "
                    "it is built when that ends",
                    *(base_name(self.name), describe_holder(running[0])),
                )
            elif not others:
                self._restore(holders)
            return bool(running) or not others

    def _look(self) -> Mapping[str, BulkHolder]:
        """Read all records, and note when each was first seen with so many renewals."""
        holders = self._store.bulk_holders(self.name)
        for token, one in holders.items():
            self._since.setdefault((token, one.renewals), self._now())
        return holders

    def _may_run(self, holder: BulkHolder) -> bool:
        """True unless it has ended, or was not renewed for too long."""
        since = self._since[holder.token, holder.renewals]
        return not holder.is_done and self._now() - since < EXPIRES_S

    def _restore(self, holders: Mapping[str, BulkHolder]) -> None:
        before = bulk_threshold(holders)
        if before is None:
            return
        admin = self._store.admin_collection(self.name)
        if admin.optimizers().indexing_threshold_kb == BULK_THRESHOLD_KB:
            admin.alter(SettingsChange(indexing_threshold_kb=before))
        self._store.record_bulk_holders(self.name, dict.fromkeys(holders))

    def _record(self, holder: BulkHolder) -> None:
        self._store.record_bulk_holders(self.name, {holder.token: holder})


@contextmanager
def bulk_mode(
    store: Store, physical: str, *, begin: bool, renew_s: float = RENEW_S
) -> Iterator[BulkMode]:
    """Return the bulk mode of an ingest, which `end_bulk` ends.

    Args:
        store: The store.
        physical: The physical collection.
        begin: True to begin it, and to renew it in a thread until the context or the mode ends.
        renew_s: Seconds between two renewals.

    Raises:
        UnsupportedError: If it begins and the store is not a server.
    """
    mode = BulkMode(store, physical)
    if not begin:
        yield mode
        return
    ended = threading.Event()
    try:
        mode.begin()
        renew = threading.Thread(
            target=_renew_until, args=(mode, ended, renew_s), name="bulk-mode", daemon=True
        )
        renew.start()
        yield mode
    finally:
        ended.set()
        if mode.is_held:  # interrupted: the server's answer may never come
            _leave_briefly(mode)


def _leave_briefly(mode: BulkMode) -> None:
    try:
        with suppress(CollectionNotFoundError):  # a new one without passages was dropped
            call_in_daemon_thread(mode.leave, "leave-bulk-mode").result(_LEAVE_S)
    except (StoreError, TimeoutError) as exc:
        _log.warning("the end of the bulk mode could not be recorded: %s", exc)


def _renew_until(mode: BulkMode, ended: threading.Event, renew_s: float) -> None:
    while not ended.wait(renew_s):
        try:
            mode.renew()
        except StoreError as exc:  # the writes of the ingest report it as well
            _log.warning("the bulk mode could not be renewed: %s", exc)


def end_bulk(mode: BulkMode, sleep: Callable[[float], None] = time.sleep) -> None:
    """Restore the threshold of a collection in bulk mode, unless another ingest will.

    If another one was killed, or may run, that is known after `EXPIRES_S` seconds at most.

    Args:
        mode: The mode, begun or not.
        sleep: Waits for so many seconds.
    """
    if mode.try_end():
        return
    _log.warning(
        "another ingest into '%s' has begun a bulk mode: waiting up to %.0f s to see whether it "
        "still runs",
        *(base_name(mode.name), EXPIRES_S),
    )
    sleep(LOOK_S)
    while not mode.try_end():
        sleep(LOOK_S)


def lasting_optimizers(store: Store, physical: str) -> SettingsChange:
    """Return the thresholds of a collection without those of a bulk mode, for a copy of it."""
    found = store.admin_collection(physical).optimizers()
    before = bulk_threshold(store.bulk_holders(physical))
    if before is None or found.indexing_threshold_kb != BULK_THRESHOLD_KB:
        return found
    return replace(found, indexing_threshold_kb=before)

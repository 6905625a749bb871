"""The worker of a re-embedding on Ray: it copies one range of point ids after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.id_ranges import IdRange
from msmarco_qdrant.core.metadata_types import Copying, LockHolder
from msmarco_qdrant.distributed.machine import load_encoder, require_first_model
from msmarco_qdrant.distributed.worker_settings import WorkerSettings
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import MigrationError
from msmarco_qdrant.reembed.copy import Copier, CopyJob, CopyStats
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.migration_locks import HeldLock

PassKind: TypeAlias = Literal["copy", "verify", "strays"]
"""Copy differences, also read again what was written, or delete strays."""


@dataclass(frozen=True, slots=True)
class CopyWork:
    """A range of ids to copy.

    Attributes:
        kind: What is done.
        copying: The source and the target.
        name: The name of the collection that is locked.
        holder: The holder of its lock, for whom the worker writes.
        ids: The range.
    """

    kind: PassKind
    copying: Copying
    name: str
    holder: LockHolder
    ids: IdRange


@dataclass(frozen=True, slots=True)
class _DriversLock(HeldLock):
    """The driver's lock, which it also holds after it has given up a worker that still runs.

    A pass from before the swap takes all points of the target for copies. So a point is read, the
    swap is looked for, and then the point is written or deleted if it has the `seq` that was read:
    one that another client has written since the swap has another.

    Attributes:
        store: The store.
        copying: The source and the target of the pass.
    """

    store: Store
    copying: Copying

    def check(self) -> None:
        """Check that the lock was not removed, and that the pass was not ended by the swap.

        Raises:
            StoreInUseError: If the lock was removed.
            MigrationError: If the alias was swapped.
        """
        HeldLock.check(self)
        if self.copying.is_swapped:
            return
        if self.store.aliases().get(self.name) == self.copying.target:
            raise MigrationError(
                f"'{self.name}' points to {self.copying.target} already, so a pass from before the "
                "swap writes nothing more: run the same command again to finish"
            )


class CopyWorker:
    """Loads the encoder once, then copies ranges, also several at once in threads.

    Args:
        settings: The same for all workers; their encoder is the new one.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._encoder: Encoder | None = None
        self._opened: Store | None = None
        self._running: dict[object, CopyStats] = {}

    def load(self, wanted: EncoderInfo) -> None:
        """Load the encoder.

        Args:
            wanted: The encoder of the driver.

        Raises:
            ModelError: If it cannot be loaded, or is another one.
        """
        encoder = load_encoder(self._settings.models, self._settings.make_encoder)
        require_first_model(wanted, encoder.info)
        encoder.warm_up()
        self._encoder = encoder

    def begin(self, wanted: EncoderInfo) -> None:
        """Prepare for work; load the encoder unless that is done."""
        if self._encoder is None:
            self.load(wanted)
        self._store()

    def run_split(self, work: CopyWork) -> Iterator[CopyStats]:
        """Copy a range; yield its counts.

        Raises:
            MsmarcoQdrantError: If it ended early; the same range can be copied again.
        """
        encoder = self._encoder
        if encoder is None:
            raise RuntimeError("begin was not called")
        store, key = self._store(), object()
        job = CopyJob(
            store,
            work.copying,
            _DriversLock(store.migration_locks, work.name, work.holder, store, work.copying),
            encoder,
            on_progress=lambda stats: self._running.update({key: stats}),
        )
        copier = Copier(job, work.ids)
        try:
            if work.kind == "strays":
                stats = CopyStats(removed=copier.remove_strays())
            else:
                stats = copier.copy(verify=work.kind == "verify")
        finally:
            self._running.pop(key, None)
        yield stats

    def done(self) -> int:
        """Return the points of unfinished ranges that were compared."""
        return sum(stats.compared for stats in [*self._running.values()])

    def _store(self) -> Store:
        if self._opened is None:
            self._opened = self._settings.open_store()
        return self._opened

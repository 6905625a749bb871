"""Archive of a spool: the batches that failed, and the last ones that are done, up to a size."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from msmarco_qdrant.errors import SpoolError
from msmarco_qdrant.service.interfaces import BatchId, BatchState
from msmarco_qdrant.service.spool.directory import BatchName, EndFolder, SpoolDirectory
from msmarco_qdrant.service.spool.state import state_from_json


@dataclass(frozen=True, slots=True)
class _Entry:
    """An ended batch: its name, its folder and its bytes."""

    name: BatchName
    folder: EndFolder
    size: int


class Archive:
    """Reports of batches that have ended. Thread-safe.

    Args:
        files: The spool's directory.
        keep_done: Most reports of batches that are done; older ones are removed.
    """

    def __init__(self, files: SpoolDirectory, keep_done: int) -> None:
        self._files = files
        self._keep_done = keep_done
        self._lock = threading.Lock()
        self._entries: dict[BatchId, _Entry] = {}
        self._order: dict[EndFolder, deque[BatchId]] = {"done": deque(), "failed": deque()}
        self.bytes = 0
        for name in files.ended("failed"):
            self.add(name, "failed")
        for name in files.ended("done"):
            self.add(name, "done")

    def __contains__(self, id_: BatchId) -> bool:
        with self._lock:
            return id_ in self._entries

    @property
    def failed(self) -> int:
        """Number of failed batches."""
        with self._lock:
            return len(self._order["failed"])

    def add(self, name: BatchName, folder: EndFolder) -> None:
        """Add a batch with a report in that folder, and remove the oldest surplus report.

        Raises:
            SpoolError: If a report cannot be removed.
        """
        entry = _Entry(name, folder, self._files.size_of_ended(name, folder))
        surplus: list[_Entry | None] = []
        with self._lock:
            self._take_out(name.id)
            self._entries[name.id] = entry
            self._order[folder].append(name.id)
            self.bytes += entry.size
            while len(self._order["done"]) > self._keep_done:
                surplus.append(self._take_out(self._order["done"][0]))
        for old in filter(None, surplus):
            self._files.remove_ended(old.name, "done")

    def remove(self, id_: BatchId) -> None:
        """Forget a batch; its files stay."""
        with self._lock:
            self._take_out(id_)

    def forget_removed(self) -> None:
        """Forget the batches that another process has removed, such as by `spool purge`.

        Raises:
            SpoolError: If a folder cannot be read.
        """
        with self._lock:  # before the folders are read: a batch is added after its report
            entries = [*self._entries.values()]
        for folder in self._order:
            names = {*self._files.ended(folder)}
            for entry in entries:
                if entry.folder == folder and entry.name not in names:
                    self._forget(entry)

    def shrink(self, most: int) -> list[tuple[BatchName, str]]:
        """Remove batches until the archive has at most that many bytes, the oldest first.

        Those that are done go before those that failed. The newest failed batch stays.

        Returns:
            The failed batches that were removed, each with its reason.

        Raises:
            SpoolError: If a batch cannot be removed.
        """
        dropped = []
        if self.bytes > most:
            self.forget_removed()
        while (entry := self._pop_oldest(most)) is not None:
            reason = self._reason(entry) if entry.folder == "failed" else ""
            if self._files.remove_ended(entry.name, entry.folder) and entry.folder == "failed":
                dropped.append((entry.name, reason))
        return dropped

    def state(self, id_: BatchId) -> BatchState | None:
        """Return the final state of a batch, None if it is unknown or its report was removed.

        Raises:
            SpoolError: If its report cannot be read.
        """
        with self._lock:
            entry = self._entries.get(id_)
        return self._read(entry) if entry is not None else None

    def newest(self, limit: int) -> Sequence[BatchState]:
        """Return the states of the batches that ended last, the last first.

        Raises:
            SpoolError: If a report cannot be read.
        """
        with self._lock:
            ids = [id_ for order in self._order.values() for id_ in islice(reversed(order), limit)]
            entries = [self._entries[id_] for id_ in ids]
        states = [state for entry in entries if (state := self._read(entry)) is not None]
        return sorted(states, key=lambda state: state.ended_at or 0.0, reverse=True)[:limit]

    def _read(self, entry: _Entry) -> BatchState | None:
        """Return the state in the report of a batch, None if that was removed."""
        fields = self._files.read_report(entry.name, entry.folder)
        try:
            state = state_from_json(fields) if fields is not None else None
        except (KeyError, TypeError) as exc:
            raise SpoolError(
                f"the report of batch {entry.name} in {entry.folder} is damaged: {exc!r}"
            ) from exc
        if state is None or state.source:
            return state
        return replace(state, source=entry.name.source)  # a report of an earlier version

    def _forget(self, entry: _Entry) -> None:
        with self._lock:
            if self._entries.get(entry.name.id) is entry:
                self._take_out(entry.name.id)

    def _pop_oldest(self, most: int) -> _Entry | None:
        """Take out the next batch to remove; None if the archive is small enough."""
        with self._lock:
            if self.bytes <= most:
                return None
            done, failed = self._order["done"], self._order["failed"]
            if done:
                return self._take_out(done[0])
            return self._take_out(failed[0]) if len(failed) > 1 else None

    def _take_out(self, id_: BatchId) -> _Entry | None:
        """Remove a batch from the memory; the caller holds the lock."""
        entry = self._entries.pop(id_, None)
        if entry is not None:
            self._order[entry.folder].remove(id_)
            self.bytes -= entry.size
        return entry

    def _reason(self, entry: _Entry) -> str:
        try:
            fields = self._files.read_report(entry.name, entry.folder)
        except SpoolError:
            return "unknown"
        return str(fields.get("reason", "unknown")) if fields else "unknown"

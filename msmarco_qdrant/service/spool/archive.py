"""Archive of a spool: all batches that failed, and the last ones that are done."""

from __future__ import annotations

import threading
from collections import deque

from msmarco_qdrant.errors import SpoolError
from msmarco_qdrant.service.interfaces import BatchId, BatchState
from msmarco_qdrant.service.spool.directory import BatchName, Folder, SpoolDirectory
from msmarco_qdrant.service.spool.state import state_from_json


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
        self._ended: dict[BatchId, tuple[BatchName, Folder]] = {}
        self._done: deque[BatchName] = deque()
        for name in files.reports("failed"):
            self.add(name, "failed")
        for name in files.reports("done"):
            self.add(name, "done")

    def __contains__(self, id_: BatchId) -> bool:
        with self._lock:
            return id_ in self._ended

    def add(self, name: BatchName, folder: Folder) -> None:
        """Add a batch with a report in that folder, and remove the oldest surplus report.

        Raises:
            SpoolError: If a report cannot be removed.
        """
        surplus: list[BatchName] = []
        with self._lock:
            is_new = name.id not in self._ended
            self._ended[name.id] = (name, folder)
            if folder == "done" and is_new:
                self._done.append(name)
            while len(self._done) > self._keep_done:
                surplus.append(self._done.popleft())
                self._ended.pop(surplus[-1].id, None)
        for old in surplus:
            self._files.remove_report(old, "done")

    def state(self, id_: BatchId) -> BatchState | None:
        """Return the final state of a batch, None if it is unknown or its report was removed.

        Raises:
            SpoolError: If its report cannot be read.
        """
        with self._lock:
            entry = self._ended.get(id_)
        if entry is None:
            return None
        fields = self._files.read_report(*entry)
        try:
            return state_from_json(fields) if fields is not None else None
        except (KeyError, TypeError) as exc:
            raise SpoolError(
                f"the report of batch {entry[0]} in {entry[1]} is damaged: {exc!r}"
            ) from exc

"""The batches of a spool that have ended: all that failed, and the last of those that are done."""

from __future__ import annotations

import threading
from collections import deque

from msmarco_qdrant.errors import SpoolError
from msmarco_qdrant.service.interfaces import BatchId, BatchState
from msmarco_qdrant.service.spool.directory import BatchName, Folder, SpoolDirectory
from msmarco_qdrant.service.spool.state import state_from_json


class Archive:
    """What the reports in a spool's directory tell. Safe to use from several threads.

    Args:
        files: The directory.
        keep_done: How many reports of batches that are done are kept.
    """

    def __init__(self, files: SpoolDirectory, keep_done: int) -> None:
        self._files = files
        self._keep_done = keep_done
        self._lock = threading.Lock()
        self._ended: dict[BatchId, tuple[BatchName, Folder]] = {}
        self._done: deque[BatchName] = deque()
        for name in files.reported("failed"):
            self.add(name, "failed")
        for name in files.reported("done"):
            self.add(name, "done")

    def __contains__(self, id_: BatchId) -> bool:
        with self._lock:
            return id_ in self._ended

    def add(self, name: BatchName, folder: Folder) -> None:
        """Note a batch whose report lies there, and forget the oldest of too many.

        Raises:
            SpoolError: If a report cannot be removed.
        """
        old: list[BatchName] = []
        with self._lock:
            is_new = name.id not in self._ended
            self._ended[name.id] = (name, folder)
            if folder == "done" and is_new:
                self._done.append(name)
            while len(self._done) > self._keep_done:
                old.append(self._done.popleft())
                self._ended.pop(old[-1].id, None)
        for one in old:
            self._files.remove_report(one, "done")

    def state(self, id_: BatchId) -> BatchState | None:
        """How a batch ended; None for one that is unknown, or was done long ago.

        Raises:
            SpoolError: If its report cannot be read.
        """
        with self._lock:
            found = self._ended.get(id_)
        if found is None:
            return None
        fields = self._files.report(*found)
        try:
            return state_from_json(fields) if fields is not None else None
        except (KeyError, TypeError) as exc:
            raise SpoolError(
                f"the report of batch {found[0]} in {found[1]} is damaged: {exc!r}"
            ) from exc

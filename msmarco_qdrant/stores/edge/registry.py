"""The engines that this process has open: one a directory, shared by the handles on it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from msmarco_qdrant.stores.edge.collection import EdgeCollection
from msmarco_qdrant.stores.edge.directory import EdgeDirectory
from msmarco_qdrant.stores.migration_locks import ProcessLocks


class Engine:
    """What the handles on one directory share; its `lock` guards all of it."""

    def __init__(self, directory: EdgeDirectory) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.locks = ProcessLocks()  # of whoever migrates: the directory keeps other processes out
        self.handles = 0
        self.usable = True
        self._collections: dict[str, EdgeCollection] = {}

    def collection(self, physical: str) -> EdgeCollection:
        """The open collection of a name, opened if need be."""
        if physical not in self._collections:
            path = self.directory.shard_path(physical)
            self._collections[physical] = EdgeCollection(path, self.directory.lock_fd)
        return self._collections[physical]

    def forget(self, physical: str) -> None:
        """Close a collection, if it is open."""
        if (collection := self._collections.pop(physical, None)) is not None:
            collection.close()

    def invalidate_after_fork(self) -> None:
        """In a forked child: refuse every use from now on."""
        self.usable = False
        for collection in self._collections.values():
            collection.invalidate_after_fork()
        self.directory.invalidate_after_fork()

    def close(self) -> None:
        """Close the collections and give the directory back."""
        if not self.usable:
            return
        with self.lock:
            try:
                for physical in list(self._collections):
                    self.forget(physical)
            finally:
                self.directory.close()


class EngineRegistry:
    """The directories that this process has open: Edge refuses to open one twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[Path, Engine] = {}
        self._of_parent: list[Engine] = []

    def acquire(self, path: Path, *, create: bool) -> Engine:
        """The engine of a directory, opened if need be; `release` gives it back."""
        # Resolved once: the working directory or a link may change while it is open.
        path = path.expanduser().resolve()
        with self._lock:
            engine = self._engines.get(path)
            if engine is None:
                engine = Engine(EdgeDirectory(path, create=create))
                self._engines[path] = engine
            engine.handles += 1
            return engine

    def release(self, engine: Engine) -> None:
        """Give an engine back; the last to do so closes it."""
        with self._lock:
            engine.handles -= 1
            if engine.handles == 0:
                # In a forked child the path may be another engine's by now.
                if self._engines.get(engine.directory.path) is engine:
                    del self._engines[engine.directory.path]
                engine.close()

    def invalidate_after_fork(self) -> None:
        """In a forked child: what is open stays the parent's.

        Its engines are kept, unused: their threads do not exist here, and to take them down
        without those could wait for ever.
        """
        self._lock = threading.Lock()
        self._of_parent = [*self._of_parent, *self._engines.values()]
        self._engines = {}
        for engine in self._of_parent:
            engine.invalidate_after_fork()


ENGINES = EngineRegistry()
os.register_at_fork(after_in_child=ENGINES.invalidate_after_fork)

"""The open engines of this process: one per directory, shared by its handles."""

from __future__ import annotations

import threading
from pathlib import Path

from msmarco_qdrant.runtime.forks import call_in_forked_child
from msmarco_qdrant.stores.edge.collection import EdgeCollection
from msmarco_qdrant.stores.edge.directory import EdgeDirectory
from msmarco_qdrant.stores.migration_locks import ProcessLocks


class Engine:
    """The state that the handles on one directory share, guarded by `lock`."""

    def __init__(self, directory: EdgeDirectory) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.restoring = threading.Lock()  # held while a shard is copied from a backup
        self.locks = ProcessLocks()  # the directory's lock excludes other processes
        self.handles = 0
        self.usable = True
        self._collections: dict[str, EdgeCollection] = {}

    def collection(self, physical: str) -> EdgeCollection:
        """Return the collection of a name; open it at first."""
        if physical not in self._collections:
            path = self.directory.shard_path(physical)
            self._collections[physical] = EdgeCollection(path, self.directory.lock.fd)
        return self._collections[physical]

    def close_collection(self, physical: str) -> None:
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
        """Close the collections and release the directory."""
        if not self.usable:
            return
        with self.lock:
            try:
                for physical in list(self._collections):
                    self.close_collection(physical)
            finally:
                self.directory.close()


class EngineRegistry:
    """The open directories of this process: Edge refuses to open one twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[Path, Engine] = {}
        self._of_parent: list[Engine] = []

    def acquire(self, path: Path, *, create: bool) -> Engine:
        """Return the engine of a directory; open it at first. Call `release` afterwards."""
        # The working directory or a link may change later.
        path = path.expanduser().resolve()
        with self._lock:
            engine = self._engines.get(path)
            if engine is None:
                engine = Engine(EdgeDirectory(path, create=create))
                self._engines[path] = engine
            engine.handles += 1
            return engine

    def release(self, engine: Engine) -> None:
        """Release an engine; the last handle closes it."""
        with self._lock:
            engine.handles -= 1
            if engine.handles == 0:
                # In a forked child the path may belong to another engine.
                if self._engines.get(engine.directory.path) is engine:
                    del self._engines[engine.directory.path]
                engine.close()

    def invalidate_after_fork(self) -> None:
        """In a forked child: leave the open engines to the parent.

        They stay referenced: their threads do not exist here, and a destructor could wait for
        those for ever.
        """
        self._lock = threading.Lock()
        self._of_parent = [*self._of_parent, *self._engines.values()]
        self._engines = {}
        for engine in self._of_parent:
            engine.invalidate_after_fork()


ENGINES = EngineRegistry()
call_in_forked_child(ENGINES.invalidate_after_fork)

"""Mining by several processes: each searches shared files of the collections.

Edge holds the GIL during a search, so a process mines with one core. Its files are shared until
somebody writes to a collection; then, and if a process fails, this process searches on alone. The
first searches are made by this process, to measure whether others pay.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.encoding.backends.processor import usable_cores
from msmarco_qdrant.errors import MsmarcoQdrantError, UsageError
from msmarco_qdrant.runtime.subprocesses import SubprocessPool
from msmarco_qdrant.search.driver import read_collection
from msmarco_qdrant.search.steps import Searcher
from msmarco_qdrant.stores import open_shared
from msmarco_qdrant.stores.foreign import ForeignPoints
from msmarco_qdrant.train.mine_systems import MiningSystem

if TYPE_CHECKING:
    from msmarco_qdrant.search.point_parts import QueryVectors
    from msmarco_qdrant.search.request import SearchRequest
    from msmarco_qdrant.stores import Collection

    Task: TypeAlias = tuple[Path, Sequence[QueryVectors], SearchRequest]

_log = logging.getLogger(__name__)

MAX_PROCESSES = 4
"""Processes by default: each has the graph in its own memory."""
_MOST_PROCESSES = 64
_START_S = 1.5
"""Processor time of a process that starts and reads a graph of 47,283 passages, by RESULTS.md."""
_SAMPLES = 4  # batches of searches that are measured, after as many that also load files


@dataclass(frozen=True, slots=True)
class _Shared:
    """A collection whose files are shared."""

    collection: str
    metadata: CollectionMetadata


class SharedSearch:
    """Searches shared files; the function of a subprocess.

    Args:
        shared: The collections by the folder of their files.
    """

    def __init__(self, shared: dict[Path, _Shared]) -> None:
        self._shared = shared
        self._opened: dict[Path, tuple[Searcher, Collection]] = {}

    def __call__(self, task: Task) -> list[list[str]] | None:
        """Return the pids of the best passages of each query.

        Returns:
            The pids; None if there are points that are not passages, for the process with the
            collection to count them.

        Raises:
            StoreError: If the engine fails.
        """
        folder, vectors, request = task
        if folder not in self._opened:
            self._opened[folder] = self._open(folder)
        searcher, collection = self._opened[folder]
        steps = searcher.find_pids(vectors, request)
        try:
            step = next(steps)
            while True:
                step = steps.send(read_collection(collection, step))  # type: ignore[arg-type]
        except StopIteration as end:
            found: list[list[str]] = end.value
        return None if searcher.retriever.foreign.count else found

    def _open(self, folder: Path) -> tuple[Searcher, Collection]:
        logging.getLogger("msmarco_qdrant").addHandler(logging.NullHandler())
        shared = self._shared[folder]
        searcher = Searcher(
            shared.metadata,
            None,
            collection=shared.collection,
            indexed=True,
            foreign=ForeignPoints(shared.collection),
        )
        return searcher, open_shared(folder)


class MineProcesses:
    """The processes of one mining run; without any, this process searches.

    Args:
        systems: The systems of the run.
        processes: Number of processes; None for one per core, up to 4, where they pay. With 1,
            this process searches.

    Raises:
        UsageError: For an invalid number, or several processes for a store that is not on disk.
    """

    def __init__(self, systems: Sequence[MiningSystem], processes: int | None) -> None:
        _check(systems, processes)
        self._systems = systems
        self._wanted = processes
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._folders: dict[str, Path] = {}
        self._pool: SubprocessPool[Task, list[list[str]] | None] | None = None
        self._is_over = processes == 1
        self._is_begun = not all(one.client.store.capabilities.shared_files for one in systems)
        self._expected = self._largest = self._done = self._batches = 0
        self._has_more = True
        self._first = (0.0, 0)  # processor seconds and searches of the first batches

    @property
    def threads(self) -> int:
        """Number of searches to run at the same time."""
        count = self._count()
        return count if self._is_over else 2 * count  # some encode while others search

    def expect(self, searches: int) -> None:
        """Note that a part with so many searches follows; a wanted number of processes starts."""
        with self._lock:
            self._has_more = searches >= self._largest  # else it is the last part
            self._largest = max(searches, self._largest)
            self._expected += searches
        if self._wanted is not None:
            self._start()

    def search(self, system: MiningSystem, queries: Sequence[str], limit: int) -> list[list[str]]:
        """Return the pids of the best passages of each query, as `MiningSystem.search` does."""
        if self._pays():
            self._start()
        pool = self._pool
        if pool is not None:
            vectors, request = system.prepare(queries, limit)
            try:
                found = pool.submit((self._folders[system.name], vectors, request)).result()
            except (MsmarcoQdrantError, CancelledError, RuntimeError) as exc:
                self._give_up(exc)
            else:
                if found is not None:
                    return found
        found_here = system.search(queries, limit)
        self._measure(len(queries))
        return found_here

    def close(self) -> None:
        """End the processes, and remove the shared files."""
        self._end()
        self._stack.close()

    def _count(self) -> int:
        return self._wanted or min(usable_cores(), MAX_PROCESSES)

    def _measure(self, searches: int) -> None:
        """Note that a batch was searched for by this process."""
        with self._lock:
            self._batches += 1
            self._done += searches
            if self._batches == _SAMPLES:
                self._first = time.process_time(), self._done

    def _pays(self) -> bool:
        """True if processes save more time than they take to start.

        The number of queries is unknown: before the last part, as many again are expected.
        """
        with self._lock:
            if self._is_begun or self._wanted is not None or self._batches < 2 * _SAMPLES:
                return False
            seconds, searches = self._first
            left = self._expected - (0 if self._has_more else self._done)
            left_s = left * (time.process_time() - seconds) / (self._done - searches)
        return left_s * (1 - 1 / self._count()) > _START_S

    def _start(self) -> None:
        """Start the processes, unless that was begun."""
        with self._lock:
            if self._is_begun or self._is_over:
                return
            self._is_begun = True
        try:
            shared = self._share()
            with self._lock:
                if not self._is_over:
                    self._pool = SubprocessPool(SharedSearch(shared), self._count())
        except MsmarcoQdrantError as exc:
            self._give_up(exc)

    def _share(self) -> dict[Path, _Shared]:
        """Share the files of each collection; note the folder of each system."""
        folders: dict[tuple[int, str], Path] = {}
        shared: dict[Path, _Shared] = {}
        for system in self._systems:
            client = system.client
            key = (id(client.store), client.collection)
            if key not in folders:
                files = client.store.share_files(client.collection, self._end)
                folders[key] = self._stack.enter_context(files)
                shared[folders[key]] = _Shared(client.collection, client.metadata)
            self._folders[system.name] = folders[key]
        return shared

    def _give_up(self, exc: Exception) -> None:
        """End the processes, with a warning unless a write has ended them."""
        if not self._is_over:
            _log.warning("other processes cannot search (%s): this one mines alone", exc)
        self._end()

    def _end(self) -> None:
        with self._lock:
            self._is_over = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


def _check(systems: Sequence[MiningSystem], processes: int | None) -> None:
    if processes is None:
        return
    is_count = isinstance(processes, int) and not isinstance(processes, bool)
    if not is_count or not 1 <= processes <= _MOST_PROCESSES:
        raise UsageError(f"processes must be 1 to {_MOST_PROCESSES}, got {processes!r}")
    for system in systems:
        if processes > 1 and not system.client.store.capabilities.shared_files:
            raise UsageError(
                "processes must be 1 for a store that is not a directory, got "
                f"{processes}: {system.client.store.dsn} is searched by threads"
            )

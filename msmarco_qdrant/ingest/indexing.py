"""Index builds of the sidecar and of clients that write, for an engine that builds on request.

A passage is found at once after it was written, by an exact scan of the passages without an index;
an index keeps that scan short. Builds are frequent and over segments of bounded size, so that each
takes seconds: Edge searches continue, but the next batch waits. Larger segments, of an ingest, stay
as they are.

At the end of a build Edge loads all segments and stops every thread of the process: 0.4 s for
300,000 passages, 1.1 to 1.4 s for a million (measured on two cores). So a large collection is built
less often: with the default share, a million every 20,000 passages. Scanning as many takes a search
1.1 ms more.

A server builds its indexes itself, and an engine without indexes needs none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from msmarco_qdrant.core.collection_types import CollectionInfo, SettingsChange
from msmarco_qdrant.errors import MsmarcoQdrantError, UsageError
from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class IndexingSettings:
    """Frequency and size of index builds, in passages.

    Attributes:
        every: Passages written before a build that waits until no batch waits.
        latest: Passages written before a build that does not wait.
        segment: Segments with more passages are not merged.
        least: Segments with fewer passages get no graph and are scanned.
        share: `every` is at least this share of the collection's passages, and `latest` twice it.

    Raises:
        UsageError: For values that contradict each other.
    """

    every: int = 5000
    latest: int = 10_000
    segment: int = 15_000
    least: int = 2500
    share: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.every <= self.latest <= self.segment:
            raise UsageError(f"required: 0 < least <= every <= latest <= segment, got {self}")
        if not 0 <= self.share <= 1:
            raise UsageError(f"share must be 0 to 1, got {self.share}")


class Indexing:
    """Builds the indexes of one collection, in the thread that also writes to it.

    Args:
        store: The store.
        collection: Name of the collection; it may be repointed, dropped and made again.
        settings: Frequency and size of the builds.
        on_built: Called with the seconds of each build.

    Attributes:
        on_built: The same.
    """

    def __init__(
        self,
        store: Store,
        collection: str,
        settings: IndexingSettings = IndexingSettings(),
        on_built: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._store = store
        self._name = collection
        self._settings = settings
        self.on_built = on_built
        self._needed = store.capabilities.ann and not store.capabilities.multi_process
        self._unindexed: int | None = None
        self._passages = 0

    def wrote(self, count: int) -> None:
        """Count durable passages, and build after `latest`."""
        if self._needed and self._count(count) >= self._at_least(self._settings.latest, 2):
            self._build()

    def pause(self, *, idle: bool) -> None:
        """Build between two batches, after `every` passages.

        Args:
            idle: True if no batch waits.
        """
        if self._needed and idle and self._count(0) >= self._at_least(self._settings.every, 1):
            self._build()

    def _at_least(self, passages: int, times: int) -> int:
        return max(passages, times * int(self._settings.share * self._passages))

    def _count(self, written: int) -> int:
        """Return the number of passages without an index; the first call asks the store."""
        if self._unindexed is None:
            self._unindexed = written
            with _logged_errors("the number of indexed passages is unknown"):
                info = self._store.collection(self._name).info(all_replicas=False)
                self._passages, self._unindexed = info.points, _unindexed(info)
        else:
            self._unindexed += written
        return self._unindexed

    def _build(self) -> None:
        self._unindexed = 0  # also after a failure: the next build is due after as many
        started = time.perf_counter()
        with _logged_errors("the index could not be built; searches continue without it"):
            self._bound_segments()
            collection = self._store.collection(self._name)
            collection.optimize()
            self.on_built(time.perf_counter() - started)
            self._passages = collection.info(all_replicas=False).points

    def _bound_segments(self) -> None:
        """Bound the collection's segments, unless a bound is set."""
        admin = self._store.admin_collection(self._name)
        if admin.optimizers().max_segment_size_kb is not None:
            return
        dimension = self._store.collection(self._name).spec().dimension
        admin.alter(
            SettingsChange(
                indexing_threshold_kb=_kilobytes(self._settings.least, dimension),
                max_segment_size_kb=_kilobytes(self._settings.segment, dimension),
            )
        )


def _unindexed(info: CollectionInfo) -> int:
    """Estimate the number of passages without an index.

    Edge counts two vectors of each indexed passage, but also the sparse vectors of the others, and
    those of removed passages.
    """
    return max(0, 2 * info.points - info.indexed)


def _kilobytes(vectors: int, dimension: int) -> int:
    """Return the size of float32 vectors, in the unit of the engine's segment sizes."""
    return vectors * dimension * _FLOAT_BYTES // 1024


@contextmanager
def _logged_errors(problem: str) -> Iterator[None]:
    """Log errors instead of raising them: passages are found without an index too."""
    try:
        yield
    except MsmarcoQdrantError as exc:
        _log.warning("%s: %s", problem, exc)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001  # a panic of an engine is not an `Exception`
        _log.exception("%s", problem)  # it must not fail the next batch

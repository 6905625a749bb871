"""When the indexes of a collection are built, for an engine that does so only when it is asked.

Passages are found at once after they were written, by an exact scan of those that are in no index
yet; an index keeps that scan short. It is built often and in segments of bounded size, so that
each build takes seconds: Edge's searches go on meanwhile, but the next batch waits for it. Segments
that are larger already, of an ingest, stay as they are.

At the end of a build Edge loads all segments, and no thread of the process runs meanwhile: 0.4 s of
300,000 passages, 1.1 to 1.4 s of a million (measured on two cores). So a large collection is built
less often: with the default share a million's every 20,000 passages. To scan that many takes a
search 1.1 ms longer.

A server builds its indexes itself, and an engine without any needs none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from msmarco_qdrant.core.records import CollectionInfo, SettingsChange
from msmarco_qdrant.errors import MsmarcoQdrantError, UsageError
from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class IndexingSettings:
    """How often indexes are built, and over how much; all in passages.

    Attributes:
        every: After so many were written the index is built, once no batch waits.
        latest: After so many it is built even if batches wait.
        segment: Segments with more are not merged with others.
        least: Segments with fewer get no graph and are scanned.
        share: `every` is at least this share of the collection's passages, and `latest` twice it.

    Raises:
        UsageError: If one of them cannot be.
    """

    every: int = 5000
    latest: int = 10_000
    segment: int = 15_000
    least: int = 2500
    share: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.every <= self.latest <= self.segment:
            raise UsageError(f"{self} cannot be: expected 0 < least <= every <= latest <= segment")
        if not 0 <= self.share <= 1:
            raise UsageError(f"{self} cannot be: expected a share from 0 to 1")


class Indexing:
    """Builds the indexes of one collection now and then; of one thread, which also writes.

    Args:
        store: Where.
        collection: Its name; what it leads to may change, and may be removed and made again.
        settings: How often.
        on_built: Called with the seconds that a build took.
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
        self._on_built = on_built
        can = store.capabilities
        self._needed = can.ann and not can.multi_process
        self._unindexed: int | None = None
        self._passages = 0

    def wrote(self, count: int) -> None:
        """Count passages as soon as they are durable, and build if there are too many by now."""
        if self._needed and self._count(count) >= self._at_least(self._settings.latest, 2):
            self._build()

    def pause(self, *, idle: bool) -> None:
        """Build between two batches, if it is time.

        Args:
            idle: Whether no batch waits.
        """
        if self._needed and idle and self._count(0) >= self._at_least(self._settings.every, 1):
            self._build()

    def _at_least(self, passages: int, times: int) -> int:
        """A number of passages, or so many times the share of all, if those are more."""
        return max(passages, times * int(self._settings.share * self._passages))

    def _count(self, written: int) -> int:
        """How many passages are in no index; at first, what was written or there before, too."""
        if self._unindexed is None:
            self._unindexed = written
            with _logged("how much is indexed could not be asked"):
                info = self._store.collection(self._name).info()
                self._passages, self._unindexed = info.points, _unindexed(info)
        else:
            self._unindexed += written
        return self._unindexed

    def _build(self) -> None:
        self._unindexed = 0  # also if it fails: then it is tried again after as many
        started = time.perf_counter()
        with _logged("the index could not be built, searches go on without"):
            self._bound()
            collection = self._store.collection(self._name)
            collection.optimize()
            self._on_built(time.perf_counter() - started)
            self._passages = collection.info().points

    def _bound(self) -> None:
        """Bound the segments of a collection, unless somebody has."""
        changing = self._store.admin_collection(self._name)
        if changing.optimizers().max_segment_size_kb is not None:
            return
        dimension = self._store.collection(self._name).info().spec.dimension
        changing.alter(
            SettingsChange(
                indexing_threshold_kb=_kilobytes(self._settings.least, dimension),
                max_segment_size_kb=_kilobytes(self._settings.segment, dimension),
            )
        )


def _unindexed(info: CollectionInfo) -> int:
    """About how many passages are in no index.

    Edge counts two vectors of each that is, but also the sparse vectors of the others, and those of
    passages that were removed.
    """
    return max(0, 2 * info.points - info.indexed)


def _kilobytes(vectors: int, dimension: int) -> int:
    """What so many float32 vectors take, as the engine measures segments."""
    return vectors * dimension * _FLOAT_BYTES // 1024


@contextmanager
def _logged(problem: str) -> Iterator[None]:
    """Go on after whatever happens: without an index, passages are found all the same."""
    try:
        yield
    except MsmarcoQdrantError as exc:
        _log.warning("%s: %s", problem, exc)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001  # a panic of an engine is no `Exception`
        _log.exception("%s", problem)  # the next batch is not its fault

"""Index builds: after so many passages, and over segments of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.core.collection_types import SettingsChange
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.ingest.indexing import Indexing, IndexingSettings
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.worker.worker import WorkerSettings
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.service.spool.helpers import RecordedEvents, ended, running_worker, write

OFTEN = IndexingSettings(every=100, latest=200, segment=300, least=50)
ENCODER = HashingEncoder()
BOUND = SettingsChange(indexing_threshold_kb=50 * 64 // 256, max_segment_size_kb=300 * 64 // 256)


class CountingStore:
    """A store of one collection that only counts passages and index builds.

    Args:
        passages: Passages without an index.
        error: Raised instead of a build.
    """

    capabilities = SimpleNamespace(ann=True, multi_process=False)

    def __init__(self, passages: int = 0, error: BaseException | None = None) -> None:
        self._passages, self._indexed = passages, 0
        self._error = error
        self.builds = 0

    def indexing(self, settings: IndexingSettings = OFTEN) -> Indexing:
        """Index builds of this store."""
        return Indexing(cast(Store, self), "msmarco", settings)

    def collection(self, _name: str) -> Any:
        """The collection."""
        return self

    def info(self, *, all_replicas: bool) -> Any:  # noqa: ARG002
        """Its passages and indexed vectors, as Edge counts them: sparse ones always."""
        return SimpleNamespace(points=self._passages, indexed=self._passages + self._indexed)

    def admin_collection(self, _name: str) -> Any:
        """A collection whose segments are bounded."""
        if self._error is not None:
            raise self._error
        return SimpleNamespace(optimizers=lambda: BOUND)

    def optimize(self) -> None:
        """Count a build."""
        self._indexed = self._passages
        self.builds += 1

    def write(self, indexing: Indexing, count: int) -> int:
        """Add passages; return the builds so far."""
        self._passages += count
        indexing.wrote(count)
        return self.builds

    def pause(self, indexing: Indexing, *, idle: bool = True) -> int:
        """Let it build between two batches; return the builds so far."""
        indexing.pause(idle=idle)
        return self.builds


def test_built_between_batches_once_there_are_enough() -> None:
    """Not before, not while others wait; then the count starts again."""
    store = CountingStore()
    indexing = store.indexing()
    assert [0, 0] == [store.write(indexing, 99), store.pause(indexing)]
    assert [0, 0] == [store.write(indexing, 1), store.pause(indexing, idle=False)]
    assert [1, 1] == [store.pause(indexing), store.write(indexing, 99)]
    assert 1 == store.pause(indexing)
    assert 1 == store.pause(store.indexing())  # a new process asks the store what is indexed


def test_built_during_a_batch_when_it_is_late() -> None:
    """However many batches wait, the number of scanned passages stays bounded."""
    store = CountingStore()
    indexing = store.indexing()
    assert [0, 0, 0, 1, 1, 1, 1, 2] == [store.write(indexing, 50) for _ in range(8)]


def test_large_collections_are_built_less_often() -> None:
    """After a share of the passages at the last build, or at the start; late is twice that."""
    store = CountingStore(400)
    indexing = store.indexing(replace(OFTEN, share=0.5))
    assert [1, 1, 2] == [store.pause(indexing), *(store.write(indexing, n) for n in (399, 1))]
    assert [2, 2] == [store.write(indexing, 399), store.pause(indexing)]
    assert [2, 3] == [store.write(indexing, 1), store.pause(indexing)]


class Panic(BaseException):
    """As an engine in Rust raises it."""


@pytest.mark.parametrize("kind", [RuntimeError, Panic])
def test_an_unexpected_error_is_logged(
    caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    """With its trace; it ends nothing."""
    store = CountingStore(100, kind("of unknown origin"))
    assert 0 == store.pause(store.indexing())
    assert "of unknown origin" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exit_of_the_process_is_raised(kind: type[BaseException]) -> None:
    """It is not an error of the build."""
    store = CountingStore(100, kind())
    with pytest.raises(kind):
        store.pause(store.indexing())


def test_an_engine_that_builds_itself_is_not_asked() -> None:
    """Here there is not even a collection."""
    with closing(open_store(":memory:", create=True)) as store:
        builds: list[float] = []
        indexing = Indexing(store, "msmarco", OFTEN, builds.append)
        indexing.wrote(1000)
        indexing.pause(idle=True)
        assert [] == builds


@pytest.mark.parametrize(
    "numbers",
    [
        (0, 200, 300, 0),
        (100, 99, 300, 50),
        (100, 200, 199, 50),
        (100, 200, 300, 101),
        (100, 200, 300, 50, 1.5),
    ],
)
def test_invalid_settings(numbers: Sequence[Any]) -> None:
    """The error contains the rule."""
    with pytest.raises(UsageError, match=r"required: 0 < least <= every|share must be 0 to 1"):
        IndexingSettings(*numbers)


# ---- on Edge -------------------------------------------------------------------------------


@dataclass
class Built:
    """Index builds of an Edge store, and the seconds of each."""

    store: Store
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.indexing = Indexing(self.store, "msmarco", OFTEN, self.seconds.append)

    def write(self, pids: range) -> None:
        """Add passages, and count them."""
        ingest(self.store, pids)
        self.indexing.wrote(len(pids))

    @property
    def bounds(self) -> SettingsChange:
        """The bounds of segments in force."""
        return self.store.admin_collection("msmarco").optimizers()


def ingest(store: Store, pids: range, *, optimize: bool = False) -> None:
    """Add passages."""
    passages = [Passage(str(pid), f"passage {pid} of {pid % 7}") for pid in pids]
    ingest_passages(passages, store, encoder=ENCODER, optimize=optimize)


@contextmanager
def edge(path: Path, passages: int = 0) -> Iterator[Built]:
    """An Edge store with a collection without an index."""
    with closing(open_store(path / "store", create=True)) as store:
        ingest(store, range(passages))
        yield Built(store)


def segments(path: Path) -> set[str]:
    """The collection's segments, by the names of their directories."""
    return {place.name for place in (path / "store" / "collections").glob("*/segments/*")}


@pytest.mark.slow
def test_segments_are_bounded_also_in_a_collection_made_again(tmp_path: Path) -> None:
    """By kilobytes, so by the dimension; a bound that a user set stays."""
    with edge(tmp_path, passages=100) as built:
        assert SettingsChange() == built.bounds
        built.indexing.pause(idle=True)
        assert BOUND == built.bounds
        drop_collection(built.store, "msmarco")
        ingest(built.store, range(100))
        other = SettingsChange(indexing_threshold_kb=1, max_segment_size_kb=1000)
        built.store.admin_collection("msmarco").alter(other)
        built.write(range(100, 300))
        assert (2, other) == (len(built.seconds), built.bounds)


@pytest.mark.slow
def test_large_segments_of_an_ingest_stay(tmp_path: Path) -> None:
    """A segment with an index is not built again, whatever the bound."""
    with edge(tmp_path, passages=2000) as built:
        built.store.admin_collection("msmarco").alter(SettingsChange(indexing_threshold_kb=50))
        ingest(built.store, range(0), optimize=True)
        large = segments(tmp_path)
        built.write(range(2000, 2200))
        assert (1, BOUND.max_segment_size_kb) == (
            len(built.seconds),
            built.bounds.max_segment_size_kb,
        )
        assert 1 == len(large & segments(tmp_path))
        assert 2200 == built.store.collection("msmarco").info().points


def test_a_failed_build_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Here without a collection; the next build is due after as many passages."""
    with edge(tmp_path) as built:
        drop_collection(built.store, "msmarco")
        built.indexing.wrote(200)
        warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
        assert (2, 0) == (len(warnings), len(built.seconds))
        assert warnings[-1].startswith("the index could not be built; searches continue without it")
        built.write(range(199))
        assert [] == built.seconds
        built.write(range(199, 200))
        assert 1 == len(built.seconds)


def test_the_worker_builds(tmp_path: Path) -> None:
    """After a batch, if no other waits."""
    with edge(tmp_path) as built, Spool.open(tmp_path / "spool") as spool:
        settings = WorkerSettings(indexing=OFTEN)
        with running_worker(spool, built.store, ENCODER, settings, events=RecordedEvents()):
            ended(spool, spool.accept([write(str(pid), f"text {pid}") for pid in range(150)]))
        assert 2 * 150 == built.store.collection("msmarco").info().indexed

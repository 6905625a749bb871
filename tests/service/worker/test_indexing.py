"""When indexes are built: after so many passages, and over segments of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.core.records import Passage, SettingsChange
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.worker.indexing import Indexing, IndexingSettings
from msmarco_qdrant.service.worker.worker import WorkerSettings
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.service.spool.helpers import RecordedEvents, ended, running_worker, write

OFTEN = IndexingSettings(every=100, latest=200, segment=300, least=50)
ENCODER = HashingEncoder()
BOUND = SettingsChange(indexing_threshold_kb=50 * 64 // 256, max_segment_size_kb=300 * 64 // 256)


@dataclass
class Watched:
    """An indexing, and the seconds of each build it told of."""

    store: Store
    built: list[float] = field(default_factory=list)
    settings: IndexingSettings = OFTEN

    def __post_init__(self) -> None:
        self.indexing = Indexing(self.store, "msmarco", self.settings, self.built.append)

    def write(self, pids: range) -> None:
        """Put passages in, and count them."""
        ingest(self.store, pids)
        self.indexing.wrote(len(pids))


def ingest(store: Store, pids: range, *, optimize: bool = False) -> None:
    """Put passages in."""
    passages = [Passage(str(pid), f"passage {pid} of {pid % 7}") for pid in pids]
    ingest_passages(passages, store, encoder=ENCODER, optimize=optimize)


@contextmanager
def edge(path: Path, passages: int = 0) -> Iterator[Watched]:
    """A store of Edge with a collection that has no index."""
    with closing(open_store(path / "store", create=True)) as store:
        ingest(store, range(passages))
        yield Watched(store)


def segments(path: Path) -> set[str]:
    """The segments of the collection, by the names of their directories."""
    return {place.name for place in (path / "store" / "collections").glob("*/segments/*")}


def test_built_between_batches_once_there_are_enough(tmp_path: Path) -> None:
    """Not before, not while others wait, and then counted anew."""
    with edge(tmp_path) as watched:
        watched.write(range(99))
        watched.indexing.pause(idle=True)
        watched.write(range(99, 100))
        watched.indexing.pause(idle=False)
        assert [] == watched.built
        watched.indexing.pause(idle=True)
        assert 1 == len(watched.built)
        assert 2 * 100 == watched.store.collection("msmarco").info().indexed
        watched.write(range(100, 199))
        watched.indexing.pause(idle=True)
        assert 1 == len(watched.built)


def test_built_in_the_midst_of_a_batch_when_it_is_late(tmp_path: Path) -> None:
    """However many wait, what is scanned stays bounded."""
    with edge(tmp_path) as watched:
        for start in range(0, 400, 50):
            watched.write(range(start, start + 50))
            watched.indexing.pause(idle=False)
        assert 2 == len(watched.built)


def test_what_was_there_at_the_start_counts(tmp_path: Path) -> None:
    """A sidecar that is killed again and again builds its index all the same."""
    with edge(tmp_path, passages=100) as watched:
        watched.indexing.pause(idle=True)
        assert 1 == len(watched.built)
        again = Watched(watched.store)
        again.indexing.pause(idle=True)
        assert [] == again.built


def test_segments_are_bounded(tmp_path: Path) -> None:
    """By kilobytes, so by the dimension; a bound that somebody has set stays."""
    with edge(tmp_path, passages=100) as watched:
        changing = watched.store.admin_collection("msmarco")
        assert SettingsChange() == changing.optimizers()
        watched.indexing.pause(idle=True)
        assert BOUND == changing.optimizers()
        other = SettingsChange(indexing_threshold_kb=1, max_segment_size_kb=1000)
        changing.alter(other)
        watched.write(range(100, 300))
        assert (2, other) == (len(watched.built), changing.optimizers())


def test_large_segments_of_an_ingest_stay(tmp_path: Path) -> None:
    """What was indexed already is not built anew, whatever the bound."""
    with edge(tmp_path, passages=2000) as watched:
        watched.store.admin_collection("msmarco").alter(SettingsChange(indexing_threshold_kb=50))
        ingest(watched.store, range(0), optimize=True)
        large = segments(tmp_path)
        watched.write(range(2000, 2200))
        assert 1 == len(watched.built)
        assert BOUND.max_segment_size_kb == max_segment_kb(watched.store)
        assert 1 == len(large & segments(tmp_path))
        assert 2200 == watched.store.collection("msmarco").info().points


def max_segment_kb(store: Store) -> int | None:
    """The bound in force."""
    return store.admin_collection("msmarco").optimizers().max_segment_size_kb


def test_a_collection_that_was_made_again(tmp_path: Path) -> None:
    """It is bounded like the first one."""
    with edge(tmp_path, passages=100) as watched:
        watched.indexing.pause(idle=True)
        drop_collection(watched.store, "msmarco")
        watched.write(range(200))
        assert 2 == len(watched.built)
        assert BOUND == watched.store.admin_collection("msmarco").optimizers()


def test_a_collection_that_was_embedded_anew(tmp_path: Path) -> None:
    """What the name leads to then is bounded, too, and built."""
    new = HashingEncoder(128)
    with edge(tmp_path, passages=100) as watched:
        watched.indexing.pause(idle=True)
        reembed_collection(watched.store, "msmarco", encoder=new, load_old=lambda _info: ENCODER)
        assert "msmarco__0002" == watched.store.aliases()["msmarco"]
        assert max_segment_kb(watched.store) is not None
        watched.indexing.wrote(200)
        assert 2 == len(watched.built)


def test_what_fails_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without the collection nothing can be built; it is tried again after as many passages."""
    with edge(tmp_path) as watched:
        drop_collection(watched.store, "msmarco")
        watched.indexing.wrote(200)
        assert [] == watched.built
        told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert 2 == len(told)
        assert told[-1].startswith("the index could not be built, searches go on without: ")
        watched.write(range(199))
        assert [] == watched.built
        watched.write(range(199, 200))
        assert 1 == len(watched.built)


class Panic(BaseException):
    """What a panic of an engine looks like from here."""


def failing(watched: Watched, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the store fail when an index is to be built."""

    def fail(_name: str) -> None:
        raise error

    monkeypatch.setattr(watched.store, "admin_collection", fail)


@pytest.mark.parametrize("kind", [RuntimeError, Panic])
def test_an_unexpected_fault_is_logged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[BaseException],
) -> None:
    """It ends nothing, and the log has where it was."""
    with edge(tmp_path, passages=100) as watched:
        failing(watched, monkeypatch, kind("of nobody's making"))
        watched.indexing.pause(idle=True)
        assert [] == watched.built
        assert "of nobody's making" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_whoever_ends_the_process_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """That is no fault."""
    with edge(tmp_path, passages=100) as watched:
        failing(watched, monkeypatch, kind())
        with pytest.raises(kind):
            watched.indexing.pause(idle=True)


def test_large_collections_are_built_less_often(tmp_path: Path) -> None:
    """After a share of what was there at the last build, or at the start; late is twice that."""
    with edge(tmp_path, passages=400) as few:
        watched = Watched(few.store, settings=replace(OFTEN, share=0.5))
        watched.indexing.pause(idle=True)
        assert 1 == len(watched.built)
        watched.write(range(400, 799))
        assert 1 == len(watched.built)
        watched.write(range(799, 800))
        assert 2 == len(watched.built)
        watched.write(range(800, 1199))
        watched.indexing.pause(idle=True)
        assert 2 == len(watched.built)
        watched.write(range(1199, 1200))
        watched.indexing.pause(idle=True)
        assert 3 == len(watched.built)


def test_engines_that_do_it_themselves_are_left_alone() -> None:
    """Nothing is asked of them: here there is not even a collection."""
    with closing(open_store(":memory:", create=True)) as store:
        watched = Watched(store)
        watched.indexing.wrote(1000)
        watched.indexing.pause(idle=True)
        assert [] == watched.built


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
def test_settings_that_cannot_be(numbers: Sequence[Any]) -> None:
    """They are told with what was expected."""
    with pytest.raises(UsageError, match=r"required: 0 < least <= every|share must be 0 to 1"):
        IndexingSettings(*numbers)


def test_the_worker_builds(tmp_path: Path) -> None:
    """After a batch, when no other waits; its events tell of it."""
    told = RecordedEvents()
    with edge(tmp_path) as watched, Spool.open(tmp_path / "spool") as spool:
        settings = WorkerSettings(indexing=OFTEN)
        with running_worker(spool, watched.store, ENCODER, settings, events=told):
            ended(spool, spool.accept([write(str(pid), f"text {pid}") for pid in range(150)]))
        assert 2 * 150 == watched.store.collection("msmarco").info().indexed

"""Index builds of Qdrant Edge: reads continue, writes wait, no point is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msmarco_qdrant.core.collection_types import (
    CollectionSpec,
    HnswSettings,
    PointBatch,
    SettingsChange,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.core.search_types import Nearest, PointQuery, SearchEffort
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.stores.edge import index_build, optimize_child
from msmarco_qdrant.stores.edge.collection import EdgeCollection
from msmarco_qdrant.stores.edge.optimize_child import LINKED
from msmarco_qdrant.stores.edge.store import EdgeStore

SPEC = CollectionSpec(
    "dense-x", 64, "cosine", "bm25", HnswSettings(), {"seq": "integer"}, StorageSettings()
)
SMALL = SettingsChange(indexing_threshold_kb=100, max_segment_size_kb=300)
"""Graphs from 400 vectors on, segments of 1,200 at most."""
WAIT_S = 60.0


@contextmanager
def opened(path: Path) -> Iterator[EdgeCollection]:
    """The collection of a store, made if there is none, with small segments."""
    with closing(EdgeStore.open(str(path), create=True)) as store:
        if "c__0001" not in store.physical_names():
            store.create_collection("c__0001", SPEC)
            store.admin_collection("c__0001").alter(SMALL)
        yield store.collection("c__0001")


def put(collection: EdgeCollection, ids: range, seed: int = 0) -> None:
    """Write points with random vectors, and make them durable."""
    rng = np.random.default_rng([seed, *ids])
    dense = rng.standard_normal((len(ids), 64)).astype(np.float32)
    sparse = [SparseVector([id_ % 50], [1.0 + id_ / 8192]) for id_ in ids]
    payloads = [{"seq": seed, "pid": str(id_)} for id_ in ids]
    collection.upsert(PointBatch("dense-x", list(ids), dense, sparse, payloads))
    collection.flush()


def answers(collection: EdgeCollection) -> list[list[object]]:
    """The ids that some exact searches find, dense and sparse."""
    vectors = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    nearest = [Nearest(vector, "dense-x") for vector in vectors]
    nearest += [Nearest(SparseVector([token], [1.0]), "bm25") for token in range(5)]
    exact = SearchEffort(exact=True)
    found = collection.query([PointQuery(one, 10, exact, fields=("pid",)) for one in nearest])
    return [[point.id for point in points] for points in found]  # rare words change their weight


def segments(collection: EdgeCollection) -> set[str]:
    """The names of the directories of its segments."""
    return {place.name for place in (collection.path / "segments").iterdir()}


class _Held:
    """Holds a build before its child process starts, until it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.let = threading.Event(), threading.Event()
        self._build = index_build.build
        monkeypatch.setattr(index_build, "build", self)

    def __call__(self, *arguments: Any) -> None:
        self.begun.set()
        assert self.let.wait(WAIT_S)
        self._build(*arguments)


@pytest.mark.slow
def test_build_does_not_change_linked_files(tmp_path: Path) -> None:
    """After updates and deletes in every segment, a build leaves the linked files unchanged."""
    with opened(tmp_path) as collection:
        for start in range(0, 1800, 600):
            put(collection, range(start, start + 600))
            put(collection, range(0, start, 7), seed=1)
            collection.delete(list(range(3, start, 11)), up_to_seq=2)
            collection.flush()
            shared = _shared_files(collection.path)
            before = answers(collection)
            index_build.build(collection.path, collection._lock_fd)
            assert shared == _shared_files(collection.path)
            assert before == answers(collection)
            collection.optimize()
            assert before == answers(collection)


def _shared_files(shard: Path) -> dict[str, bytes]:
    """The contents of the files that a build links."""
    files = (shard / "segments").rglob("*")
    linked = [file for file in files if any(fnmatch(file.name, name) for name in LINKED)]
    assert linked
    return {str(file): file.read_bytes() for file in linked}


@pytest.mark.parametrize("before_start", [True, False])
def test_r7_a_drop_ends_an_index_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_start: bool
) -> None:
    """The build would never end; searches of other collections wait for neither."""
    held, program = _Held(monkeypatch), tmp_path / "endless.py"
    program.write_text("print('started', flush=True)\nwhile True: input()")
    monkeypatch.setattr(index_build, "_PROGRAM", program)
    with opened(tmp_path / "store") as collection, ThreadPoolExecutor(2) as pool:
        put(collection, range(10))
        store = EdgeStore.open(str(tmp_path / "store"), create=False)
        store.create_collection("d__0001", SPEC)
        building = pool.submit(collection.optimize)
        assert held.begun.wait(WAIT_S)
        if before_start:
            dropping = pool.submit(store.drop_collection, "c__0001")
            held.let.set()
        else:
            held.let.set()
            _wait_until(lambda: collection._end_build.__name__ == "kill")
            dropping = pool.submit(store.drop_collection, "c__0001")
        dropping.result(WAIT_S)
        with pytest.raises(StoreError, match="the collection was dropped"):
            building.result(WAIT_S)
        assert 0 == store.collection("d__0001").info().points
        assert ["d__0001"] == store.physical_names()
        assert not collection.path.exists()
        store.close()


def _wait_until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_readers_go_on_and_writers_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """During an index build searches are answered; a write is applied after it."""
    held = _Held(monkeypatch)
    with opened(tmp_path) as collection, ThreadPoolExecutor(2) as pool:
        put(collection, range(1000))
        before, loaded = answers(collection), segments(collection)
        building = pool.submit(collection.optimize)
        assert held.begun.wait(WAIT_S)
        writing = pool.submit(put, collection, range(1000, 1001))
        assert before == answers(collection)
        assert 1000 == collection.info().points
        assert not writing.done()
        held.let.set()
        building.result(WAIT_S)
        writing.result(WAIT_S)
        assert 1001 == collection.info().points
        assert not loaded & segments(collection)


def test_nothing_is_left_of_a_build(tmp_path: Path) -> None:
    """A build removes its directories, and the collection is complete after a restart."""
    with opened(tmp_path) as collection:
        put(collection, range(1000))
        before = answers(collection)
        collection.optimize()
        assert 2000 == collection.info().indexed
        assert {"edge_config.json", "segments", "wal"} == _names(collection.path)
        path = collection.path
        put(collection, range(1000, 1010))
    with opened(tmp_path) as collection:
        assert 1010 == collection.info().points
        collection.delete(list(range(1000, 1010)), up_to_seq=2)
        assert before == answers(collection)
        assert {"edge_config.json", "segments", "wal"} == _names(path)


def _names(place: Path) -> set[str]:
    return {entry.name for entry in place.iterdir()}


def test_failed_build_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the last line of the child process; reads and writes go on."""
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('no memory')")
    with opened(tmp_path / "store") as collection:
        put(collection, range(500))
        before = answers(collection)
        with monkeypatch.context() as patched:
            patched.setattr(index_build, "_PROGRAM", program)
            with pytest.raises(StoreError, match="no memory; no passage is lost"):
                collection.optimize()
        assert before == answers(collection)
        put(collection, range(500, 510))
        collection.optimize()
        assert 510 == collection.info().points


def test_valid_segments_are_not_removed(tmp_path: Path) -> None:
    """`replaced/` without `segments/` has the valid segments: it is restored."""
    (tmp_path / "replaced" / "x").mkdir(parents=True)
    index_build.remove_leftovers(tmp_path)
    assert {"replaced"} == _names(tmp_path)
    index_build.recover(tmp_path)
    assert {"segments"} == _names(tmp_path)


def test_files_are_copied_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without hard links gets copies; any other error is raised."""
    monkeypatch.setattr("os.link", _refuse(1))
    source, target = tmp_path / "matrix.dat", tmp_path / "copy"
    source.write_bytes(b"12")
    optimize_child.copy_or_link(str(source), str(target))
    assert b"12" == target.read_bytes()
    monkeypatch.setattr("os.link", _refuse(28))
    with pytest.raises(OSError, match="28"):
        optimize_child.copy_or_link(str(source), str(target))


def _refuse(number: int) -> object:
    def link(_source: str, _target: str) -> None:
        raise OSError(number, f"error {number}")

    return link


def test_closed_collection_is_not_built(tmp_path: Path) -> None:
    """The error names the closed handle, and no process starts."""
    with opened(tmp_path) as collection:
        pass
    with pytest.raises(StoreError, match="closed"):
        collection.optimize()

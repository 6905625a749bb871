"""Errors and kills during the swap of an index: the next use finds every point."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge

from msmarco_qdrant.core.collection_types import SettingsChange
from msmarco_qdrant.errors import StoreCorruptError, StoreError
from msmarco_qdrant.stores.edge import index_build
from msmarco_qdrant.stores.edge.collection import EdgeCollection
from msmarco_qdrant.stores.edge.convert import change_config
from msmarco_qdrant.stores.edge.optimize_child import copy_or_link
from tests.stores.edge.test_index_build import answers, opened, put

POINTS = 500
LEFT = {"edge_config.json", "segments", "wal"}
STEPS = [
    *("flush", "rmtree", "rmtree", "disk_usage", "mkdir", "TemporaryFile", "_run"),
    *("close", "close", "rename", "rename", "_open"),
    *("sync_directory", "rename", "sync_directory", "rmtree", "rmtree"),
]
"""The steps of a build that can fail, in this order."""
RECOVERY = ["mkdir", "rename", "rename", "sync_directory", *3 * ["rmtree"], "_open"]
"""The same for loading a shard after `swap_in` without `commit_swap`."""

Before = Callable[..., None]


class PanicException(BaseException):
    """An exception like a panic of Rust."""


class WatchedShard:
    """A shard that calls a function before each step of a build."""

    def __init__(self, shard: Any, before: Before) -> None:
        self._shard = shard
        self.flush = watched(shard.flush, "flush", before)
        self.close = watched(shard.close, "close", before)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)


def watch(monkeypatch: pytest.MonkeyPatch, before: Before) -> None:
    """Call a function before each step; the child's work is done here, which is faster."""
    monkeypatch.setattr(index_build, "_run", build_here)
    for place, name in (
        *((Path, "rename"), (Path, "mkdir"), (shutil, "disk_usage"), (shutil, "rmtree")),
        *((tempfile, "TemporaryFile"), (index_build, "_run")),
        *((index_build, "sync_directory"), (EdgeCollection, "_open")),
    ):
        monkeypatch.setattr(place, name, watched(getattr(place, name), name, before))


def watched(function: Callable[..., Any], name: str, before: Before) -> Callable[..., Any]:
    """A function that calls another one first."""

    def call(*args: Any, **options: Any) -> Any:
        before(name, *args)
        return function(*args, **options)

    return call


def build_here(shard: Path, *_: object) -> int:
    """Build the index in this process."""
    place = shard / "building"
    shutil.copyfile(shard / "edge_config.json", place / "edge_config.json")
    shutil.copytree(shard / "segments", place / "segments", copy_function=copy_or_link)
    loaded = qdrant_edge.EdgeShard.load(str(place))
    loaded.optimize()
    loaded.close()
    return 0


# ---- errors ----------------------------------------------------------------------------------


class Trouble:
    """From one step on nothing succeeds, until it is over."""

    def __init__(self, first: int, kind: type[BaseException]) -> None:
        self._first, self._kind = first, kind
        self.seen: list[str] = []
        self.over = False

    def __call__(self, step: str, *_: Any) -> None:
        """Fail, if it is time. A removal goes on whatever fails in it, and closing again helps."""
        self.seen.append(step)
        passes = step == "rmtree" and issubclass(self._kind, Exception)
        passes = passes or self.seen[-2:] == ["close", "close"]
        if len(self.seen) > self._first and not self.over and not passes:
            raise self._kind("[Errno 5] Input/output error")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [StoreError, OSError, PanicException, KeyboardInterrupt])
def test_failure_at_any_step(tmp_path: Path, kind: type[BaseException]) -> None:
    """After the failure reads, writes and builds work, and a restart finds every point."""
    with opened(tmp_path) as collection:
        put(collection, range(POINTS))
        before = answers(collection)
        for first in range(len(STEPS)):
            build_in_trouble(collection, first, kind)
            assert before == answers(collection)
            put(collection, range(POINTS + first, POINTS + first + 1))
            before = answers(collection)
        collection.optimize()
        assert POINTS + len(STEPS) == collection.info().points
    with opened(tmp_path) as collection:
        assert before == answers(collection)
        assert LEFT == {entry.name for entry in collection.path.iterdir()}


def build_in_trouble(collection: EdgeCollection, first: int, kind: type[BaseException]) -> None:
    """Build and search while nothing succeeds; errors that are no interrupts become ours."""
    trouble = Trouble(first, kind)
    expected = (StoreError,) if issubclass(kind, Exception) else (StoreError, kind)
    with pytest.MonkeyPatch.context() as patched:
        watch(patched, trouble)
        collection._shard = WatchedShard(collection._shard, trouble)  # type: ignore[assignment]
        with suppress(*expected):
            collection.optimize()
        assert STEPS[: first + 1] == trouble.seen[: first + 1]
        with suppress(*expected):
            collection.info()
    trouble.over = True


@pytest.mark.slow
@pytest.mark.parametrize("name", ["id_tracker.mappings", "status.dat", "segment.json"])
def test_invalid_new_segments_are_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """If Edge cannot load them, or panics, that is the error; the old ones stay in use."""
    with opened(tmp_path) as collection:
        put(collection, range(POINTS))
        before = answers(collection)
        with monkeypatch.context() as patched:
            patched.setattr(index_build, "build", spoiling(name))
            with pytest.raises(StoreError, match=r"loading the new index in .*c__0001 failed: "):
                collection.optimize()
        assert before == answers(collection)
        collection.optimize()
        assert (2 * POINTS, before) == (collection.info().indexed, answers(collection))
    with opened(tmp_path) as collection:
        assert before == answers(collection)


def test_failed_reload_is_repeated(tmp_path: Path) -> None:
    """After a failed reload, the next use loads the collection."""
    trouble = Trouble(1, PanicException)
    with opened(tmp_path) as collection:
        put(collection, range(POINTS))
        before, config = answers(collection), change_config(collection.config(), SettingsChange())
        with pytest.MonkeyPatch.context() as patched:
            watch(patched, trouble)
            with pytest.raises(StoreError, match="Input/output"):
                collection.reload(config)
            trouble.over = True
        assert before == answers(collection)


def spoiling(name: str) -> Callable[..., None]:
    """A build whose segments cannot be loaded."""
    build = index_build.build

    def call(shard: Path, *arguments: Any) -> None:
        build(shard, *arguments)
        files = [*(shard / "building" / "segments").rglob(name)]
        assert files
        for file in files:
            file.write_bytes(b"\xff" * 64)

    return call


# ---- the end of the process ------------------------------------------------------------------


class Kills:
    """Keeps what a kill before each step, and in the midst of a removal, leaves of a directory."""

    def __init__(self, place: Path, kept: Path) -> None:
        self._place, self._kept = place, kept
        self.steps: list[str] = []
        self.left: list[Path] = []

    def __call__(self, step: str, *arguments: Any) -> None:
        """Keep a copy."""
        self.steps.append(step)
        self._keep()
        if step == "rmtree" and arguments[0].exists():
            for file in [one for one in sorted(arguments[0].rglob("*")) if one.is_file()][::2]:
                file.unlink()
            self._keep()

    def _keep(self) -> None:
        left = self._kept / str(len(self.left))
        # Unlike Python it copies the holes of a file as holes.
        subprocess.run(["cp", "-Rp", self._place, left], check=True)  # noqa: S607
        self.left.append(left)


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_kill_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: bool) -> None:
    """The next start has every point, whether the new segments are valid or not."""
    kills = Kills(tmp_path / "store", tmp_path)
    with opened(tmp_path / "store") as collection:
        put(collection, range(POINTS))
        before = answers(collection)
        with monkeypatch.context() as patched:
            watch(patched, kills)
            collection._shard = WatchedShard(collection._shard, kills)  # type: ignore[assignment]
            if spoilt:
                patched.setattr(index_build, "build", spoiling("id_tracker.mappings"))
            with suppress(StoreError):
                collection.optimize()
        assert before == answers(collection)
    assert STEPS[:12] == kills.steps[:12]
    assert (STEPS == kills.steps) == (not spoilt)
    for left in kills.left:
        assert before == answers_after_start(left)


def answers_after_start(store: Path) -> list[list[object]]:
    """What is found in a store, of which nothing but its segments is left then."""
    with opened(store) as collection:
        assert LEFT == {entry.name for entry in collection.path.iterdir()}
        return answers(collection)


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_kill_at_any_step_of_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: bool
) -> None:
    """A kill during the recovery, too, leaves every point."""
    kills = Kills(tmp_path / "store", tmp_path)
    with opened(tmp_path / "store") as collection:
        put(collection, range(POINTS))
        before, shard = answers(collection), collection.path
        build = spoiling("id_tracker.mappings") if spoilt else index_build.build
        build(shard, collection._lock_fd)
    index_build.swap_in(shard)
    with monkeypatch.context() as patched:
        watch(patched, kills)
        assert before == answers_after_start(tmp_path / "store")
    assert RECOVERY == kills.steps[-len(RECOVERY) :]
    for left in kills.left:
        assert before == answers_after_start(left)


def test_missing_segments_are_an_error(tmp_path: Path) -> None:
    """Edge itself would create an empty shard."""
    with opened(tmp_path) as collection:
        segments = collection.path / "segments"
    shutil.rmtree(segments)
    with pytest.raises(StoreCorruptError, match="segments is missing"), opened(tmp_path):
        pass

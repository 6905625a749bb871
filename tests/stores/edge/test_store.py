"""What Edge's store adds of its own: the directory, its lock, its catalog, the child process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from msmarco_qdrant.core.records import (
    CollectionSpec,
    HnswSettings,
    PointBatch,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.errors import (
    StoreCorruptError,
    StoreError,
    StoreInUseError,
    StoreNotFoundError,
    StoreUnavailableError,
    UsageError,
)
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.edge.store import EdgeStore

# Not quantized: an index that takes a moment to build can be interrupted.
SPEC = CollectionSpec(
    "dense-x",
    64,
    "cosine",
    "bm25",
    HnswSettings(),
    {"seq": "integer"},
    StorageSettings(on_disk=False, quantization="none"),
)


def fill(store_path: Path, count: int) -> None:
    """A store with one collection of random vectors, flushed and not optimized."""
    rng = np.random.default_rng(3)
    store = EdgeStore.open(str(store_path), create=True)
    store.create_collection("c__0001", SPEC)
    collection = store.collection("c__0001")
    for start in range(0, count, 5000):
        ids = list(range(start, min(start + 5000, count)))
        dense = rng.standard_normal((len(ids), 64)).astype(np.float32)
        sparse = [SparseVector([1], [1.0])] * len(ids)
        collection.upsert(PointBatch("dense-x", ids, dense, sparse, [{"seq": 1}] * len(ids)))
    collection.flush()
    store.close()


def start_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program that prints a line when it is ready."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_nothing_is_created_by_looking(tmp_path: Path) -> None:
    """Opening what is not there raises, and leaves the place as it was."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(StoreNotFoundError, match="no store at"):
            open_store(path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    """A store is not made among other people's files."""
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(StoreCorruptError, match=r"thesis\.tex"):
        open_store(tmp_path, create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("below_a_file", [True, False])
def test_a_place_that_cannot_be_written(
    tmp_path: Path,
    below_a_file: bool,  # a pytest parameter
) -> None:
    """A path below a file, or the file itself, is told as such."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreUnavailableError, match="cannot use"):
        open_store(file / "store" if below_a_file else file, create=True)


def test_what_a_crash_left_of_a_new_store_is_no_stranger(tmp_path: Path) -> None:
    """A lock file and half a catalog: the store is begun anew."""
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".store.json.0a1b2c3d.tmp").write_text("{")
    open_store(tmp_path, create=True).close()
    open_store(tmp_path).close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": 1}', "damaged"),
        ('{"format": 2}', "format 2"),
    ],
)
def test_a_catalog_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    """Damaged or of a later format: told, and the directory is free again afterwards."""
    open_store(tmp_path, create=True).close()
    (tmp_path / "store.json").write_text(text)
    for _ in range(2):
        with pytest.raises(StoreCorruptError, match=message):
            open_store(tmp_path)


def test_another_process_is_told_who_holds_the_store(tmp_path: Path) -> None:
    """While one process has it open, another is refused, and afterwards welcome."""
    holder = start_python(
        """
        import sys
        from msmarco_qdrant import open_store
        store = open_store(sys.argv[1], create=True)
        print("ready", flush=True)
        sys.stdin.read()
        """,
        str(tmp_path),
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    with pytest.raises(StoreInUseError, match=f"process {holder.pid} .*Qdrant server"):
        open_store(tmp_path)
    holder.communicate("")
    open_store(tmp_path).close()


def test_leftovers_of_a_killed_optimize_are_removed(tmp_path: Path) -> None:
    """What lies in temp_segments when a collection is opened goes."""
    fill(tmp_path, 10)
    left = tmp_path / "collections" / "c__0001" / "temp_segments" / "segment_builder_x"
    left.mkdir(parents=True)
    (left / "matrix.dat").write_bytes(b"0" * 1000)
    store = open_store(tmp_path)
    assert store.collection("c__0001").info().points == 10
    assert not left.exists()
    store.close()


def wait_for_temp_segment(shard: Path, running: Callable[[], bool]) -> None:
    """Return when an index is being built there."""
    temporary = shard / "building" / "temp_segments"
    while running():
        if temporary.is_dir() and any(temporary.iterdir()):
            return
    pytest.fail("the index was built before anyone could look")


def test_a_killed_parent_takes_the_index_builder_with_it(tmp_path: Path) -> None:
    """After kill -9 of a process that builds an index, the store can be opened at once."""
    fill(tmp_path, 60_000)
    parent = start_python(
        """
        import sys
        from msmarco_qdrant import open_store
        print("ready", flush=True)
        open_store(sys.argv[1]).collection("c__0001").optimize()
        """,
        str(tmp_path),
    )
    shard = tmp_path / "collections" / "c__0001"
    wait_for_temp_segment(shard, lambda: parent.poll() is None)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    store = open_store(tmp_path)
    assert store.collection("c__0001").info().points == 60_000
    assert not (shard / "building").exists()
    store.close()


def test_an_interrupt_ends_the_index_builder(tmp_path: Path) -> None:
    """Ctrl-C while an index is built ends the wait, and the store stays usable."""
    fill(tmp_path, 60_000)
    parent = start_python(
        """
        import sys
        from msmarco_qdrant import open_store
        store = open_store(sys.argv[1])
        collection = store.collection("c__0001")
        try:
            collection.optimize()
        except KeyboardInterrupt:
            print("interrupted with", collection.info().points, flush=True)
        """,
        str(tmp_path),
    )
    wait_for_temp_segment(tmp_path / "collections" / "c__0001", lambda: parent.poll() is None)
    parent.send_signal(signal.SIGINT)
    output, _ = parent.communicate()
    assert output == "interrupted with 60000\n"


def test_a_failed_index_build_is_told(tmp_path: Path) -> None:
    """When the child fails, its last words are in the error."""
    fill(tmp_path, 10)
    store = open_store(tmp_path)
    collection = store.collection("c__0001")
    config = tmp_path / "collections" / "c__0001" / "edge_config.json"
    kept = config.read_text()
    config.write_text("{")
    # The child cannot load the shard, and neither can this process when it takes it back.
    with pytest.raises(StoreError, match="c__0001"):
        collection.optimize()
    config.write_text(kept)


def test_the_catalog_is_plain_json(tmp_path: Path) -> None:
    """People can read what a store holds without this package."""
    fill(tmp_path, 1)
    assert json.loads((tmp_path / "store.json").read_text()) == {
        "format": 1,
        "aliases": {},
        "collections": {"c__0001": None},
    }


# ---- what happens around an open store -------------------------------------------------------


def test_the_working_directory_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was opened by a relative path stays where it was, and can be given back."""
    monkeypatch.chdir(tmp_path)
    fill(Path("store"), 3)
    store = open_store("store")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert store.collection("c__0001").info().points == 3
    store.close()
    open_store(tmp_path / "store").close()


def test_a_link_may_change(tmp_path: Path) -> None:
    """A store that was opened through a link stays open when the link goes."""
    fill(tmp_path / "store", 3)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "store")
    store = open_store(link)
    same = open_store(tmp_path / "store")
    link.unlink()
    assert store.collection("c__0001") is same.collection("c__0001")
    store.close()
    same.close()
    open_store(tmp_path / "store").close()


def test_a_forked_child_leaves_the_store_to_its_parent(tmp_path: Path) -> None:
    """It may not use what its parent opened, nor open it again; the parent can give it back."""
    fill(tmp_path, 3)
    program = """
        import os, sys
        from msmarco_qdrant import MsmarcoQdrantError, open_store
        store = open_store(sys.argv[1])
        collection = store.collection("c__0001")
        ready, done = os.pipe(), os.pipe()
        if os.fork() == 0:
            for use in (store.aliases, collection.info, lambda: open_store(sys.argv[1])):
                try:
                    use()
                except MsmarcoQdrantError as exc:
                    os.write(ready[1], str(exc).encode() + b"|")
            store.close()
            os.write(ready[1], b".")
            os.read(done[0], 1)
            os._exit(0)
        told = b""
        while not told.endswith(b"."):
            told += os.read(ready[0], 4096)
        print(*told.decode().split("|"), sep="\\n")
        store.close()  # while the child still runs
        open_store(sys.argv[1]).close()
        print("opened again")
        os.write(done[1], b".")
        os.wait()
        """
    output, _ = start_python(program, str(tmp_path)).communicate()
    handle, collection, again, dot, last = output.splitlines()
    assert "before this process was forked" in handle
    assert "before this process was forked" in collection
    assert "is in use by process" in again
    assert (dot, last) == (".", "opened again")


@pytest.mark.parametrize("dsn", ["", "a\0b"])
def test_a_place_without_a_name_is_refused(dsn: str) -> None:
    """It is no directory, not even the current one."""
    with pytest.raises(UsageError, match="must be a directory or a URL"):
        open_store(dsn, create=True)

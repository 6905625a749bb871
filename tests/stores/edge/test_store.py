"""The store of Qdrant Edge: its directory, lock, catalog and child process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from msmarco_qdrant import drop_collection
from msmarco_qdrant.collection.passages import get_passages
from msmarco_qdrant.core.collection_types import (
    CollectionSpec,
    HnswSettings,
    PointBatch,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import (
    SchemaError,
    StoreCorruptError,
    StoreInUseError,
    StoreNotFoundError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.edge.directory import EdgeDirectory
from msmarco_qdrant.stores.edge.store import EdgeStore
from msmarco_qdrant.testing import HashingEncoder

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


def test_open_without_create_creates_nothing(tmp_path: Path) -> None:
    """Opening a missing store raises, and changes no directory."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(StoreNotFoundError, match="no store at"):
            open_store(path)
    assert list(tmp_path.iterdir()) == []


def test_remains_of_an_interrupted_creation_are_accepted(tmp_path: Path) -> None:
    """A directory with only a lock file and half a catalog can become a store."""
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
def test_invalid_catalog_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """A damaged catalog or one of a later format is an error, and the lock is released."""
    open_store(tmp_path, create=True).close()
    (tmp_path / "store.json").write_text(text)
    for _ in range(2):
        with pytest.raises(StoreCorruptError, match=message):
            open_store(tmp_path)


def test_store_of_another_process_is_refused(tmp_path: Path) -> None:
    """The error names the process that uses the store; when it ends, the store can be opened."""
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
    with pytest.raises(
        StoreInUseError, match=f"in use by process {holder.pid} on .* since .*Qdrant server"
    ):
        open_store(tmp_path)
    holder.communicate("")
    open_store(tmp_path).close()


def test_leftovers_of_a_killed_optimize_are_removed(tmp_path: Path) -> None:
    """Opening a collection removes its temp_segments."""
    fill(tmp_path, 10)
    left = tmp_path / "collections" / "c__0001" / "temp_segments" / "segment_builder_x"
    left.mkdir(parents=True)
    (left / "matrix.dat").write_bytes(b"0" * 1000)
    store = open_store(tmp_path)
    assert store.collection("c__0001").info().points == 10
    assert not left.exists()
    store.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with 60,000 points without an index: a build can be interrupted."""
    path = tmp_path_factory.mktemp("large")
    fill(path, 60_000)
    return path


def wait_for_temp_segment(shard: Path, running: Callable[[], bool]) -> None:
    """Return when an index is being built there."""
    temporary = shard / "building" / "temp_segments"
    while running():
        if temporary.is_dir() and any(temporary.iterdir()):
            return
    pytest.fail("the index was built before anyone could look")


@pytest.mark.slow
def test_killed_parent_ends_the_index_build(large: Path) -> None:
    """After kill -9 of a process that builds an index, the store can be opened at once."""
    parent = start_python(
        """
        import sys
        from msmarco_qdrant import open_store
        print("ready", flush=True)
        open_store(sys.argv[1]).collection("c__0001").optimize()
        """,
        str(large),
    )
    shard = large / "collections" / "c__0001"
    wait_for_temp_segment(shard, lambda: parent.poll() is None)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    store = open_store(large)
    assert store.collection("c__0001").info().points == 60_000
    assert not (shard / "building").exists()
    store.close()


@pytest.mark.slow
def test_interrupt_ends_the_index_build(large: Path) -> None:
    """Control-C during an index build ends it, and the store stays usable."""
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
        str(large),
    )
    wait_for_temp_segment(large / "collections" / "c__0001", lambda: parent.poll() is None)
    parent.send_signal(signal.SIGINT)
    output, _ = parent.communicate()
    assert output == "interrupted with 60000\n"


def test_the_catalog_is_plain_json(tmp_path: Path) -> None:
    """`store.json` lists aliases and collections."""
    fill(tmp_path, 1)
    assert json.loads((tmp_path / "store.json").read_text()) == {
        "format": 1,
        "aliases": {},
        "collections": {"c__0001": None},
    }


# ---- changes around an open store --- -------------------------------------------------------


def test_the_working_directory_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is resolved when the store is opened."""
    monkeypatch.chdir(tmp_path)
    fill(Path("store"), 3)
    store = open_store("store")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert store.collection("c__0001").info().points == 3
    store.close()
    open_store(tmp_path / "store").close()


def test_a_link_may_change(tmp_path: Path) -> None:
    """A store opened through a link stays open when the link is removed."""
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


@pytest.mark.slow
def test_forked_child_cannot_use_the_store(tmp_path: Path) -> None:
    """The child may neither use the parent's handle nor open the store; the parent may close it."""
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
        errors = b""
        while not errors.endswith(b"."):
            errors += os.read(ready[0], 4096)
        print(*errors.decode().split("|"), sep="\\n")
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


# ---- disks that ignore case (macOS, Windows) ----------------------------------------------------

SAME_NAMES = [("films", "Films"), ("Films", "films"), ("my.films", "My.FILMS")]


@pytest.fixture
def case_insensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories of shards as on a disk that ignores case."""
    path = EdgeDirectory.shard_path

    def shard_path(self: EdgeDirectory, name: str) -> Path:
        return path(self, name.casefold())

    monkeypatch.setattr(EdgeDirectory, "shard_path", shard_path)


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["any", "case_insensitive"])
@pytest.mark.parametrize(("name", "other"), SAME_NAMES)
def test_r1_a_name_must_differ_on_every_disk(
    tmp_path: Path, name: str, other: str, disk: str, request: pytest.FixtureRequest
) -> None:
    """The second collection is refused, and the first keeps its passages."""
    if disk != "any":
        request.getfixturevalue(disk)
    encoder, store = HashingEncoder(), tmp_path / "store"
    passages = [Passage("1", "london")]
    ingest_passages(passages, store, collection=name, encoder=encoder, optimize=False)
    with pytest.raises(SchemaError, match=f"got '{other}' and there is '{name}'.*another name"):
        ingest_passages(passages, store, collection=other, encoder=encoder, optimize=False)
    ingest_passages([Passage("2", "x")], store, collection=f"{name}2", encoder=encoder)
    assert {"1": passages[0]} == get_passages(store, ["1"], collection=name)


@pytest.mark.usefixtures("case_insensitive")
def test_r1_a_store_with_both_names_keeps_the_directory_of_one(tmp_path: Path) -> None:
    """It was copied from a disk where they were two."""
    encoder, store = HashingEncoder(), tmp_path / "store"
    ingest_passages([Passage("1", "x")], store, collection="films", encoder=encoder)
    catalog = json.loads((store / "store.json").read_text())
    catalog["collections"]["Films__0001"] = catalog["collections"]["films__0001"]
    catalog["aliases"]["Films"] = "Films__0001"
    (store / "store.json").write_text(json.dumps(catalog))
    with closing(open_store(store)) as opened:
        opened.drop_collection("Films__0001")
    assert ["1"] == [*get_passages(store, ["1"], collection="films")]
    with closing(open_store(store)) as opened:
        drop_collection(opened, "films")
    assert [] == [*(store / "collections").iterdir()]

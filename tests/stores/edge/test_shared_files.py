"""Files of a shard for other processes: the same answers, and no process after a write."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import StoreError, StoreUnavailableError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Store, open_shared, open_store
from msmarco_qdrant.stores.edge import index_build
from msmarco_qdrant.testing import HashingEncoder

PASSAGES = [Passage(str(number), f"passage {number}") for number in range(200)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with an index and some passages after it."""
    with closing(open_store(tmp_path / "store", create=True)) as opened:
        ingest_passages(PASSAGES[:150], opened, encoder=HashingEncoder())
        ingest_passages(PASSAGES, opened, encoder=HashingEncoder(), optimize=False)
        yield opened


def digests(folder: Path) -> dict[Path, str]:
    """Digests of the files of a shard, without shared ones."""
    files = (path for path in folder.rglob("*") if path.is_file() and "shared" not in path.parts)
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_other_processes_search_shared_files(store: Store) -> None:
    """Several at a time, while the store is searched, and without a change of its files."""
    shard = Path(store.dsn) / "collections" / "msmarco__0001"
    with store.share_files("msmarco", lambda: None) as folder:
        before = digests(shard)
        opened = [open_shared(folder) for _ in range(2)]
        for one in (*opened, store.collection("msmarco")):
            assert 200 == one.count()
            assert {"pid": "199"} == one.retrieve([199], ("pid",))[199]
        for one in opened:
            one.close()  # type: ignore[attr-defined]
        assert before == digests(shard)
        assert folder.parent == shard / "shared"
    assert [] == [*folder.parent.iterdir()]


@pytest.mark.parametrize("swaps", [True, False], ids=["built", "not-swapped"])
def test_an_index_build_keeps_them(
    store: Store, swaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that opened a half removed folder would find some of the passages, in silence."""
    collection = store.collection("msmarco")

    def fail(_shard: Path) -> None:
        raise OSError(5, "Input/output error")

    if not swaps:  # then the next call loads the former segments
        monkeypatch.setattr(index_build, "commit_swap", fail)
    with store.share_files("msmarco", lambda: None) as folder:
        with nullcontext() if swaps else pytest.raises(StoreError):
            collection.optimize()
        assert 200 == collection.count()
        with closing(open_shared(folder)) as opened:  # type: ignore[type-var]  # it has `close`
            assert 200 == opened.count()


@pytest.mark.parametrize("change", ["upsert", "delete", "index", "drop", "close"])
def test_their_use_ends_before_a_change(store: Store, change: str) -> None:
    """Once; an index build that writes no point does not end it."""
    seen: list[int] = []
    collection = store.collection("msmarco")
    with store.share_files("msmarco", lambda: seen.append(collection.count())):
        collection.optimize()
        assert [] == seen
        if change == "upsert":
            ingest_passages([Passage("new", "one")], store, encoder=HashingEncoder())
        elif change == "delete":
            collection.delete([1], up_to_seq=collection.info().last_seq)
        elif change == "index":
            store.admin_collection("msmarco").create_payload_index("meta.year", "integer")
        elif change == "drop":
            store.drop_collection("msmarco__0001")
        else:
            store.close()
        assert [200] == seen


_SHARE_AND_DIE = """
import os, sys
from msmarco_qdrant.stores import open_store
with open_store(sys.argv[1]).share_files("msmarco", lambda: None):
    os._exit(9)
"""


def test_files_of_a_killed_process_are_removed(store: Store) -> None:
    """When the collection is opened next."""
    store.close()
    arguments = [sys.executable, "-c", _SHARE_AND_DIE, store.dsn]
    assert 9 == subprocess.run(arguments, check=False).returncode
    (left,) = Path(store.dsn).rglob("shared/*")
    with closing(open_store(store.dsn)) as again:
        assert 200 == again.collection("msmarco").count()
        assert not left.exists()


def test_a_full_disk_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is copied."""
    monkeypatch.setattr(index_build, "SPARE_BYTES", 2**62)
    with (
        pytest.raises(StoreUnavailableError, match="sharing files with other processes in"),
        store.share_files("msmarco", lambda: None),
    ):
        pass
    assert [] == [*Path(store.dsn).rglob("shared/*")]

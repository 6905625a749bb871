"""A nearly full disk: writes and index builds are refused until disk space is free."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from msmarco_qdrant.errors import StoreUnavailableError
from msmarco_qdrant.stores.edge.collection import EdgeCollection
from msmarco_qdrant.stores.edge.index_build import SPARE_BYTES, unindexed_bytes
from msmarco_qdrant.stores.edge.store import EdgeStore
from tests.stores.edge.test_index_build import SPEC, answers, opened, put

MIB = 2**20


class Usage(NamedTuple):
    """The result of `shutil.disk_usage`."""

    total: int
    used: int
    free: int


def leave(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Let a disk have so many free bytes."""
    usage = Usage(2**40, 2**40 - free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage)


WRITES: dict[str, Callable[[EdgeCollection], object]] = {
    "writing points": lambda one: put(one, range(1)),
    "writing payloads": lambda one: one.replace_payloads([1], [{"seq": 1}]),
    "deleting points": lambda one: one.delete([1], up_to_seq=2),
}


@pytest.mark.parametrize("action", WRITES)
def test_write_needs_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """The error has the missing bytes; reads and `flush` need none."""
    with opened(tmp_path) as collection:
        put(collection, range(500))
        before = answers(collection)
        leave(monkeypatch, SPARE_BYTES - 5 * MIB - 1)
        message = f"{action} in .* needs 256 MiB of free disk space, got 250 MiB: free 6 MiB more"
        with pytest.raises(StoreUnavailableError, match=message):
            WRITES[action](collection)
        collection.flush()
        assert before == answers(collection)
        leave(monkeypatch, SPARE_BYTES)
        WRITES[action](collection)


def test_build_needs_space_for_unindexed_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build is refused before it writes; segments with a graph do not count."""
    with opened(tmp_path) as collection:
        put(collection, range(500))
        size = unindexed_bytes(collection.path / "segments")
        assert 500 * 64 * 4 < size
        leave(monkeypatch, SPARE_BYTES + size - 1)
        with pytest.raises(StoreUnavailableError, match=r"building the index in .*: free 1 MiB"):
            collection.optimize()
        assert not (collection.path / "building").exists()
        leave(monkeypatch, SPARE_BYTES + size)
        collection.optimize()
        assert size > unindexed_bytes(collection.path / "segments")
        assert 1000 == collection.info().indexed


def test_new_collection_needs_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused creation leaves nothing, and can be repeated."""
    with EdgeStore.open(str(tmp_path), create=True) as store:
        with monkeypatch.context() as patched:
            leave(patched, 0)
            with pytest.raises(StoreUnavailableError, match="creating the collection in"):
                store.create_collection("c__0001", SPEC)
        assert [] == store.physical_names()
        store.create_collection("c__0001", SPEC)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "name"), [(tempfile, "TemporaryFile"), (subprocess, "Popen")])
def test_build_without_files_or_processes_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: object, name: str
) -> None:
    """Without free files or processes a build fails transiently; the next one succeeds."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    with opened(tmp_path) as collection:
        put(collection, range(500))
        with monkeypatch.context() as patched:
            patched.setattr(place, name, refuse)
            with pytest.raises(StoreUnavailableError, match=r"building the index in .*Too many"):
                collection.optimize()
        collection.optimize()
        assert 1000 == collection.info().indexed

"""Shards and replicas of a new collection: chosen once, kept by a re-embedding and a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.collection.backup import backup_collection
from msmarco_qdrant.collection.restore import restore_collection
from msmarco_qdrant.core.collection_types import ShardSettings
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import UnsupportedError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import new_store

PASSAGES = [Passage("a", "first"), Passage("b", "second")]
CHOSEN = ShardSettings(shards=6, replication=2, write_consistency=2)


def ingest(store: Store | Path, sharding: Any = None, collection: str = "msmarco") -> None:
    """Ingest with the shards of a new collection."""
    ingest_passages(
        PASSAGES, store, collection=collection, encoder=HashingEncoder(), sharding=sharding
    )


def test_they_are_kept(tmp_path: Path) -> None:
    """By an ingest without them, a re-embedding, and a backup that is restored."""
    with new_store("loopback", tmp_path) as store:
        ingest(store, {"shards": 6, "replication": 2, "write_consistency": 2})
        ingest(store, {"shards": 6})
        ingest(store)
        assert CHOSEN == store.collection("msmarco").spec().sharding
        reembed_collection(store, encoder=HashingEncoder(dimension=128))
        assert CHOSEN == store.collection("msmarco").spec().sharding
        backup_collection(store, "msmarco", tmp_path / "saved", portable=True)
        restore_collection(store, tmp_path / "saved", name="copy")
        assert CHOSEN == store.collection("copy").spec().sharding


def test_a_server_chooses_without_them(tmp_path: Path) -> None:
    """Its defaults are one of each."""
    with new_store("loopback", tmp_path) as store:
        ingest(store)
        assert ShardSettings(1, 1, 1) == store.collection("msmarco").spec().sharding


def test_another_choice_for_an_existing_collection_is_refused(tmp_path: Path) -> None:
    """Nothing is written."""
    with new_store("loopback", tmp_path) as store:
        ingest(store, CHOSEN)
        with pytest.raises(UsageError, match="shards must be the 6 of collection 'msmarco', got 3"):
            ingest(store, ShardSettings(shards=3))


@pytest.mark.parametrize("engine", ["edge", "memory"])
@pytest.mark.parametrize("exists", [True, False])
def test_other_engines_refuse_them(engine: str, exists: bool, tmp_path: Path) -> None:
    """For a new collection and for an existing one."""
    with new_store(engine, tmp_path) as store:
        if exists:
            ingest(store)
        with pytest.raises(UnsupportedError, match="shards and replicas need a Qdrant server"):
            ingest(store, CHOSEN)
        assert exists == ("msmarco" in store.aliases())


def test_a_new_directory_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    """Nothing is created."""
    with pytest.raises(UnsupportedError, match="needs a Qdrant server for shards and replicas"):
        ingest_passages(PASSAGES, tmp_path / "new", model="no-such-model", sharding=CHOSEN)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"shards": 0}, "shards must be an integer of 1 or more, got 0"),
        ({"shards": True}, "shards of sharding must be an integer, got True"),
        ({"shards": "6"}, "shards of sharding must be an integer, got '6'"),
        ({"replication": -1}, "replication must be an integer of 1 or more, got -1"),
        ({"write_consistency": 2}, "write_consistency must be at most replication, 1, got 2"),
        ({"replication": 2, "write_consistency": 3}, "at most replication, 2, got 3"),
        ({"nodes": 3}, "sharding has no field 'nodes'"),
        ("6", "sharding must be a dictionary of its fields"),
    ],
)
def test_invalid_values_are_refused(values: Any, reason: str, tmp_path: Path) -> None:
    """With the rule and the value."""
    with pytest.raises(UsageError, match=reason):
        ingest(tmp_path, values)

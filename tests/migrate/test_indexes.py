"""Payload indexes: added, removed and listed on every store, kept by reembed and rollback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import CollectionNotFoundError, StoreInUseError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.indexes import add_index, list_indexes, remove_index
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.migration_locks import hold_lock
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import ENGINES, new_store
from tests.reembed.steps import SMALL, V2, passages, reembed, rollback

ROWS = [Passage("1", "one", {"year": 1, "place": {"name": "x"}}), Passage("2", "two", {"year": 2})]


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each engine with two passages in 'films'."""
    with new_store(request.param, tmp_path) as opened:
        ingest_passages(ROWS, opened, collection="films", encoder=HashingEncoder(), optimize=False)
        yield opened


def test_an_index_is_added_and_removed(store: Store) -> None:
    """Both report the effect; a store in memory reports that it has none."""
    added = add_index(store, "films", "year", "integer")
    again = add_index(store, "films", "year", "integer")
    add_index(store, "films", "place.name", "keyword")
    if not store.capabilities.payload_indexes:
        assert added == again == "nothing: Memory has no payload index"
        assert added == remove_index(store, "films", "year")
        assert {} == list_indexes(store, "films")
        return
    assert added.startswith("no index -> integer: 2 payloads are read")
    assert again == "nothing changes: it has that index"
    assert {"year": "integer", "place.name": "keyword"} == list_indexes(store, "films")
    removed = remove_index(store, "films", "year")
    assert removed == "almost nothing; filters on 'year' then read up to 2 payloads"
    assert {"place.name": "keyword"} == list_indexes(store, "films")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    """With both commands that change the kind; the index stays."""
    with new_store("loopback", tmp_path) as store:
        ingest_passages(ROWS, store, collection="films", encoder=HashingEncoder(), optimize=False)
        add_index(store, "films", "year", "integer")
        with pytest.raises(UsageError, match=r"kind integer, got float: .*index remove.*index add"):
            add_index(store, "films", "year", "float")
        assert {"year": "integer"} == list_indexes(store, "films")


def test_an_index_that_does_not_exist_cannot_be_removed(tmp_path: Path) -> None:
    """The message lists those that exist."""
    with new_store("loopback", tmp_path) as store:
        ingest_passages(ROWS, store, collection="films", encoder=HashingEncoder(), optimize=False)
        add_index(store, "films", "year", "integer")
        with pytest.raises(UsageError, match=r"index in 'films' \(year\), got 'yaer'"):
            remove_index(store, "films", "yaer")


def test_invalid_arguments_change_nothing(store: Store) -> None:
    """A missing collection, a physical name, a field, a kind, a lock that another process holds."""
    with pytest.raises(CollectionNotFoundError):
        add_index(store, "nope", "year", "integer")
    with pytest.raises(UsageError, match="physical collection"):
        add_index(store, "films__0001", "year", "integer")
    with pytest.raises(UsageError, match="index kind of 'year' must be one of"):
        add_index(store, "films", "year", "number")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        remove_index(store, "films", 'a"b')
    with hold_lock(store.migration_locks, "films"), pytest.raises(StoreInUseError):
        add_index(store, "films", "year", "integer")
    assert {} == list_indexes(store, "films")


def test_a_path_is_opened_and_closed(tmp_path: Path) -> None:
    """As everywhere a store is taken."""
    place = tmp_path / "store"
    ingest_passages(ROWS, place, collection="films", encoder=HashingEncoder(), optimize=False)
    add_index(place, "films", "year", "integer")
    assert {"year": "integer"} == list_indexes(str(place), "films")
    remove_index(place, "films", "year")
    assert {} == list_indexes(place, "films")


@pytest.mark.slow
def test_indexes_are_kept_by_a_model_change_and_its_rollback(tmp_path: Path) -> None:
    """An index that is added after the change is there after the rollback, too."""
    with new_store("loopback", tmp_path) as store:
        ingest_passages(passages(), store, collection="things", encoder=V2, optimize=False)
        add_index(store, "things", "n", "integer")
        add_index(store, "things", "kind", "keyword")
        reembed(store, SMALL)
        assert {"n": "integer", "kind": "keyword"} == list_indexes(store, "things")
        add_index(store, "things", "later", "bool")
        remove_index(store, "things", "kind")
        rollback(store)
        assert {"n": "integer", "later": "bool"} == list_indexes(store, "things")

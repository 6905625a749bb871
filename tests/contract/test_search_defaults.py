"""Search options kept with a collection, over every engine."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant import (
    AsyncSearchClient,
    Fusion,
    Hit,
    SearchClient,
    SearchDefaults,
    backup_collection,
    open_store,
    restore_collection,
)
from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.collection.metadata import change_metadata, save_search_defaults
from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import CollectionNotFoundError, StoreInUseError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.migration_locks import this_process
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.engines import ENGINES_AND_SERVER, new_store
from tests.search.support import run

_PASSAGES = [Passage(str(n), f"castle {'river ' * (n % 5)} tower {n}") for n in range(30)]
_QUERY = "river tower 7"
_SAVED = SearchDefaults(Fusion(dense_weight=0.25), ef=64, rerank_depth=12, source="a test")


@pytest.fixture(scope="module", params=ENGINES_AND_SERVER)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """A store of each engine in turn."""
    with new_store(request.param, tmp_path_factory.mktemp("defaults")) as opened:
        yield opened


@pytest.fixture
def name(store: Store) -> Iterator[str]:
    """A collection of its own for each test."""
    made = f"defaults-{uuid.uuid4().hex[:12]}"
    ingest_passages(_PASSAGES, store, encoder=HashingEncoder(), collection=made, optimize=False)
    yield made
    drop_collection(store, made)


def _open(store: Store, name: str) -> SearchClient:
    return SearchClient.open(
        store, collection=name, encoder=HashingEncoder(), reranker=WordOverlapReranker()
    )


def _scores(hits: Sequence[Hit]) -> Mapping[str, object]:
    """Scores by pid; engines in this process compute the last bits of a score in any order."""
    return {hit.pid: round(hit.score, 4) for hit in hits}


def test_kept_options_are_those_of_searches_without_their_own(store: Store, name: str) -> None:
    """By both clients, search and rank; an option that a caller passes is used instead."""
    pids = [passage.pid for passage in _PASSAGES]
    before = _open(store, name).search(_QUERY, mode="hybrid")
    save_search_defaults(store, _SAVED, collection=name)
    client = _open(store, name)
    found = client.search(_QUERY, mode="hybrid")
    assert _scores(found) == _scores(
        client.search(_QUERY, mode="hybrid", fusion=_SAVED.fusion, ef=64)
    )
    assert _scores(found) != _scores(before)
    assert _scores(before) == _scores(client.search(_QUERY, mode="hybrid", fusion="convex"))
    assert _scores(client.rank(_QUERY, pids, mode="hybrid")) == _scores(
        client.rank(_QUERY, pids, mode="hybrid", fusion=_SAVED.fusion)
    )
    reranked = client.search(_QUERY, limit=5, rerank_depth=12)
    assert reranked == client.search(_QUERY, limit=5, rerank_depth="auto")

    async def search() -> None:
        async with await AsyncSearchClient.open(
            store, collection=name, encoder=HashingEncoder(), reranker=WordOverlapReranker()
        ) as other:
            assert _scores(found) == _scores(await other.search(_QUERY, mode="hybrid"))
            assert reranked == await other.search(_QUERY, limit=5, rerank_depth="auto")

    run(search)


def test_options_are_replaced_and_removed(store: Store, name: str) -> None:
    """The last ones count; empty ones leave the package's defaults."""
    for given in (_SAVED, SearchDefaults(ef=32), SearchDefaults()):
        save_search_defaults(store, given, collection=name)
        assert given == store.metadata(name).search_defaults


def test_a_held_migration_lock_refuses_a_change(store: Store, name: str) -> None:
    """Nothing is changed by the refused call, or by a change that returns the same."""
    ours = LockHolder(token=uuid.uuid4().hex, **this_process())
    store.migration_locks.acquire(name, ours)
    with pytest.raises(StoreInUseError, match="is being migrated or restored"):
        save_search_defaults(store, _SAVED, collection=name)
    store.migration_locks.release(name, ours.token)
    assert SearchDefaults() == store.metadata(name).search_defaults
    assert change_metadata(store, name, lambda found: found) == store.metadata(name)


def test_a_missing_collection_is_refused(store: Store) -> None:
    """As is a value of another type."""
    with pytest.raises(CollectionNotFoundError):
        save_search_defaults(store, _SAVED, collection="missing")
    with pytest.raises(UsageError, match="must be SearchDefaults, got 3"):
        save_search_defaults(store, 3, collection="missing")  # type: ignore[arg-type]


def test_a_path_is_a_store(tmp_path: Path) -> None:
    """The function opens and closes it."""
    path = tmp_path / "store"
    ingest_passages(_PASSAGES[:2], path, encoder=HashingEncoder(), optimize=False)
    save_search_defaults(path, _SAVED)
    with SearchClient.open(path, encoder=HashingEncoder()) as client:
        assert _SAVED == client.metadata.search_defaults


@pytest.mark.slow
def test_a_backup_has_them(tmp_path: Path) -> None:
    """A restored collection searches alike."""
    with closing(open_store(tmp_path / "store", create=True)) as store:
        ingest_passages(_PASSAGES[:3], store, encoder=HashingEncoder(), optimize=False)
        save_search_defaults(store, _SAVED)
        backup_collection(store, "msmarco", tmp_path / "backup")
        restore_collection(store, tmp_path / "backup", name="again")
        assert _SAVED == store.metadata("again").search_defaults


def test_a_client_that_is_open_sees_new_defaults_after_a_minute(store: Store, name: str) -> None:
    """By its next search, which reads the metadata once; so does the asyncio client."""
    client = _open(store, name)
    now = client.session.refresh.clock()
    client.session.refresh.clock = lambda: now
    before = client.search(_QUERY, mode="hybrid")
    save_search_defaults(store, _SAVED, collection=name)
    expected = client.search(_QUERY, mode="hybrid", fusion=_SAVED.fusion)
    assert _scores(before) != _scores(expected)
    assert _scores(before) == _scores(client.search(_QUERY, mode="hybrid"))
    now += 61.0
    assert _scores(expected) == _scores(client.search(_QUERY, mode="hybrid"))
    assert _SAVED == client.metadata.search_defaults
    save_search_defaults(store, SearchDefaults(), collection=name)
    assert _scores(expected) == _scores(client.search(_QUERY, mode="hybrid"))
    now += 61.0
    pids = [hit.pid for hit in before]
    ranked = client.rank(_QUERY, pids, mode="hybrid")
    assert _scores(ranked) == _scores(client.rank(_QUERY, pids, mode="hybrid", fusion="convex"))

    async def main() -> None:
        async with await AsyncSearchClient.open(
            store, collection=name, encoder=HashingEncoder()
        ) as asyncio_client:
            await asyncio_client.search(_QUERY, mode="hybrid")
            save_search_defaults(store, _SAVED, collection=name)
            later = time.monotonic() + 61.0
            asyncio_client.session.refresh.clock = lambda: later
            found = await asyncio_client.search(_QUERY, mode="hybrid")
            assert _scores(expected) == _scores(found)

    run(main)

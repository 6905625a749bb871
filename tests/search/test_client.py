"""Queries to ranked passages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    ModelMismatchError,
    StoreError,
    StoreNotFoundError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, passages: Sequence[Passage]) -> Path:
    """A store with the five passages, for tests that change nothing."""
    path = tmp_path_factory.mktemp("filled") / "store"
    ingest_passages(passages, path, encoder=HashingEncoder())
    return path


@pytest.fixture
def client(filled: Path, encoder: HashingEncoder) -> Iterator[SearchClient]:
    """A client on them."""
    with SearchClient.open(filled, encoder=encoder) as opened:
        yield opened


def test_hits_are_ranked(client: SearchClient, encoder: HashingEncoder) -> None:
    """Ranks from 1, scores falling, with text and meta."""
    hits = client.search("a city in france")
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert hits[0] == Hit(
        rank=1,
        pid="2",
        score=hits[0].score,
        text="paris is a city in france",
        meta={"lang": "fr", "year": 2002, "live": True},
    )
    (query,) = encoder.encode_queries(["a city in france"])
    (passage,) = encoder.encode_queries([hits[0].text])
    assert hits[0].score == pytest.approx(float(query @ passage), abs=1e-6)


def test_a_store_or_collection_that_is_not_there(filled: Path, encoder: HashingEncoder) -> None:
    """Told, nothing created, and the store is free again."""
    missing = filled.parent / "missing"
    with pytest.raises(StoreNotFoundError, match="missing"):
        SearchClient.open(missing, encoder=encoder)
    assert not missing.exists()
    with pytest.raises(CollectionNotFoundError, match=r"'films'.*msmarco"):
        SearchClient.open(filled, collection="films", encoder=encoder)
    store = open_store(filled)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.aliases()


def test_another_model_is_refused(filled: Path) -> None:
    """A client with another encoder than the collection's would find nonsense."""
    with pytest.raises(ModelMismatchError, match="costless-64x"):
        SearchClient.open(filled, encoder=HashingEncoder(salt="x"))
    with pytest.raises(UsageError, match="not both"):
        SearchClient.open(filled, encoder=HashingEncoder(), model="x")


def test_an_open_store_stays_the_callers(filled: Path, encoder: HashingEncoder) -> None:
    """Closing the client leaves it open; closing a client that opened it does not."""
    store = open_store(filled)
    with SearchClient.open(store, encoder=encoder) as client:
        client.search("city")
    assert store.aliases() == {"msmarco": "msmarco__0001"}
    store.close()


def test_a_closed_client_answers_no_more(filled: Path, encoder: HashingEncoder) -> None:
    """Whether or not anyone else has the store open."""
    with SearchClient.open(filled, encoder=encoder):
        client = SearchClient.open(filled, encoder=encoder)
        client.close()
        client.close()
        with pytest.raises(StoreError, match="'msmarco' was closed"):
            client.search("city")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda client: client.search("  \n"), "query must not be empty"),
        (lambda client: client.search_many("city"), "for one query call search"),
        (lambda client: client.search("x", limit=0), "limit must be 1 to 10,000, got 0"),
        (lambda client: client.search("x", limit=10_001), "limit must be 1 to 10,000, got 10001"),
        (lambda client: client.search("x", meta_filter={"lang": ["en", None]}), "filter on 'lang'"),
        (lambda client: client.search(None), "query must be a string, got None"),
        (lambda client: client.search("\ud800"), "lone surrogate"),
        (lambda client: client.search("x", limit="5"), "limit must be 1 to 10,000, got '5'"),
        (lambda client: client.search("x", limit=2.0), "limit must be 1 to 10,000, got 2.0"),
        (lambda client: client.search_many(iter(["x"])), "list of queries"),
        (lambda client: client.search("x", meta_filter=["lang"]), "mapping"),
        (lambda client: client.search("x", meta_filter={'a"b': 1}), "quotation marks around a"),
        (lambda client: client.search("x", meta_filter={"a": "\ud800"}), "filter on 'a'"),
    ],
)
def test_a_call_that_means_nothing_is_refused(
    client: SearchClient, call: Callable[[Any], object], message: str
) -> None:
    """With what was found and what was expected, before anything is encoded."""
    with pytest.raises(UsageError, match=message):
        call(client)


def test_threads_share_a_client(client: SearchClient) -> None:
    """Eight threads get the answers that one gets."""
    expected = client.search("a city in france")
    with ThreadPoolExecutor(8) as threads:
        answers = [*threads.map(client.search, ["a city in france"] * 160)]
    assert answers == [expected] * 160


def test_new_passages_are_found_while_a_client_is_open(
    tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Ingesting through the same process: searchable at once, before any index is built."""
    path = tmp_path / "store"
    ingest_passages(passages, path, encoder=encoder)
    with SearchClient.open(path, encoder=encoder) as client:
        ingest_passages([Passage("new", "zebras graze")], path, encoder=encoder, optimize=False)
        assert client.search("zebras", limit=1)[0].pid == "new"

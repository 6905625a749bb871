"""Collections with all kinds of settings, and their whole state, to compare before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from msmarco_qdrant.core.collection_types import Bm25Settings, SettingsChange, StorageSettings
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.payload import sort_tokens
from msmarco_qdrant.testing import HashingEncoder

ENCODER = HashingEncoder()
QUERIES = ("london city", "a spy", "w3 w8 x", "w1", "numbers")


def many_passages(count: int) -> Sequence[Passage]:
    """Short texts with pids of both kinds of point ids."""
    return [
        Passage(f"{'p' * (n % 3 == 0)}{n}", f"w{n % 97} w{n % 31} w{n % 1009} x é", {"n": n})
        for n in range(count)
    ]


def fill(store: Store, name: str, passages: Sequence[Passage], *, optimize: bool = True) -> None:
    """Ingest passages into a collection with settings of its own, and as if it was migrated."""
    can = store.capabilities
    ingest_passages(
        passages,
        store,
        collection=name,
        encoder=ENCODER,
        bm25=Bm25Settings(avg_len=4.0),
        storage=StorageSettings(on_disk=False, quantization="int8" if can.quantization else "none"),
        payload_indexes={"n": "integer", "lang": "keyword"},
        optimize=False,
    )
    if can.ann:
        change = SettingsChange(
            m=20, ef_construct=64, indexing_threshold_kb=50, max_segment_size_kb=9_000
        )
        store.admin_collection(name).alter(change)
    metadata = store.metadata(name)
    migrations = (*metadata.migrations, "0001_of_the_user")
    store.put_metadata(name, replace(metadata, migrations=migrations, swaps=3))
    if optimize:
        store.collection(name).optimize()


def points(store: Store, name: str) -> dict[Any, Any]:
    """Every point with its vectors and payload."""
    found = {}
    for batch in store.admin_collection(name).scan_points():
        for row, id_ in enumerate(batch.ids):
            sparse = sort_tokens(batch.sparse[row].indices, batch.sparse[row].values)
            found[id_] = (batch.dense[row].tolist(), sparse, batch.payloads[row])
    return found


def description(store: Store, name: str) -> Sequence[Any]:
    """Metadata, settings and thresholds of a collection."""
    return [
        store.metadata(name),
        store.collection(name).info().spec,
        store.admin_collection(name).optimizers(),
    ]


def answers(store: Store, name: str, limit: int = 1000) -> Sequence[dict[str, float]]:
    """Scores of all hits of some queries by dense vectors, exact, and by words."""
    client = SearchClient.open(store, collection=name, encoder=ENCODER)
    search: Callable[..., Any] = client.search
    return [
        {hit.pid: hit.score for hit in search(query, limit=limit, **options)}
        for query in QUERIES
        for options in ({"exact": True}, {"mode": "bm25"})
    ]


def check_same_points(store: Store, name: str, other: Store, copy: str) -> None:
    """Points, payloads and answers are equal; an engine scales vectors to unit length again."""
    check_equal_points(points(store, name), points(other, copy))
    for expected, found in zip(answers(store, name), answers(other, copy), strict=True):
        assert expected.keys() == found.keys()
        scores = [found[pid] for pid in expected]
        np.testing.assert_allclose([*expected.values()], scores, rtol=1e-5, atol=1e-6)


def check_equal_points(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> None:
    """Points are equal; an engine scales vectors to unit length again."""
    assert before.keys() == after.keys()
    for id_, (dense, *rest) in before.items():
        np.testing.assert_allclose(dense, after[id_][0], atol=1e-6)
        assert rest == [*after[id_][1:]]


def check_same_answers(store: Store, name: str, other: Store, copy: str) -> None:
    """The best scores are equal, whichever of several equal hits come first."""
    pairs = zip(answers(store, name, 100), answers(other, copy, 100), strict=True)
    for before, after in pairs:
        expected, found = sorted(before.values()), sorted(after.values())
        np.testing.assert_allclose(expected, found, rtol=1e-5, atol=1e-6)

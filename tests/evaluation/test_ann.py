"""Approximate search against exact search, over collections of hashed words."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msmarco_qdrant.core.collection_types import CollectionSpec, SettingsChange, StorageSettings
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.core.search_types import PointQuery, ScoredPoint
from msmarco_qdrant.errors import UnsupportedError, UsageError
from msmarco_qdrant.evaluation import sweep_ann
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.testing import HashingEncoder, NullCollection, NullStore
from tests.engines import new_store
from tests.evaluation.collection import QUERIES

WORDS = [f"word{number}" for number in range(40)]
QUANTIZED = [
    "int8, not rescored",
    "int8, rescored",
    "int8, rescored, oversampling 2",
    "int8, rescored, oversampling 4",
]


def _texts(count: int, seed: int) -> list[str]:
    random = Random(seed)
    return [" ".join(random.choices(WORDS, k=12)) for _ in range(count)]


PASSAGES = [Passage(str(number), text) for number, text in enumerate(_texts(300, 1))]
ASKED = [Query(f"q{number}", text) for number, text in enumerate(_texts(12, 2))]


@pytest.fixture(scope="module", params=["int8", "none"])
def collection(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SearchClient]:
    """A client on three hundred passages, quantized and not."""
    place = tmp_path_factory.mktemp("ann") / "store"
    storage = StorageSettings(quantization=request.param)
    ingest_passages(PASSAGES, place, encoder=HashingEncoder(), storage=storage, optimize=False)
    with SearchClient.open(place, encoder=HashingEncoder()) as client:
        yield client


def is_quantized(client: SearchClient) -> bool:
    """Return True if the collection has int8 vectors."""
    return client.store.collection("msmarco").info().spec.storage.quantization == "int8"


def test_the_settings_are_those_of_the_collection(collection: SearchClient) -> None:
    """Each with each ef, in order; quantized ones only for quantized vectors."""
    measured: list[tuple[str, int]] = []
    sweep = sweep_ann(
        collection, ASKED, efs=(16, 64), on_setting=lambda name, ef: measured.append((name, ef))
    )

    settings = [*(QUANTIZED if is_quantized(collection) else []), "float32"]
    assert [(setting, ef) for setting in settings for ef in (16, 64)] == [
        (point.setting, point.ef) for point in sweep.points
    ]
    assert [(point.setting, point.ef) for point in sweep.points] == measured
    assert (10, len(ASKED)) == (sweep.k, sweep.queries)


def test_a_huge_ef_finds_everything(collection: SearchClient) -> None:
    """Without quantization it is exact; times are there and in order."""
    sweep = sweep_ann(collection, ASKED, efs=(100_000,))

    (point,) = (point for point in sweep.points if point.setting == "float32")
    assert (1.0, 1.0, "q0") == (point.recall, point.worst, point.worst_qid)
    assert sweep.exact_ms > 0
    assert 0 < point.median_ms <= point.p95_ms


class _NumberEncoder(HashingEncoder):
    """An encoder whose vector of a number begins with that number."""

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Read the numbers."""
        vectors = np.zeros((len(queries), self.info.dimension), np.float32)
        vectors[:, 0] = [float(query) for query in queries]
        return vectors


class _ForgetfulCollection(NullCollection):
    """A collection whose approximate search with ef=16 loses as many of ten as its vector is."""

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Points 0 to 9, and in place of what is lost some that were not wanted."""
        return [self._answer(query) for query in queries]

    def _answer(self, query: PointQuery) -> list[ScoredPoint]:
        lost = 0 if query.effort.exact or query.effort.ef > 16 else int(query.nearest.vector[0])  # type: ignore[index,union-attr]
        return [ScoredPoint(id_, 1.0, {}) for id_ in range(lost, 10 + lost)]


class _ForgetfulStore(NullStore):
    """A store with a graph, of such collections."""

    capabilities = replace(NullStore.capabilities, ann=True)

    def create_collection(
        self, name: str, spec: CollectionSpec, metadata: CollectionMetadata | None = None
    ) -> None:
        """Make one."""
        super().create_collection(name, spec, metadata)
        self._collections[name] = _ForgetfulCollection(name, spec)


def test_the_worst_query_is_named() -> None:
    """Three queries lose 3, 0 and 6 of ten with an ef of 16, and none with 32."""
    store = _ForgetfulStore()
    ingest_passages([], store, encoder=_NumberEncoder(), optimize=False)
    client = SearchClient(store, "msmarco", _NumberEncoder())
    sweep = sweep_ann(
        client, [Query("three", "3"), Query("none", "0"), Query("six", "6")], efs=(16, 32)
    )

    assert [
        ("float32", 16, pytest.approx(0.7), 0.4, "six"),
        ("float32", 32, 1.0, 1.0, "three"),
    ] == [
        (point.setting, point.ef, point.recall, point.worst, point.worst_qid)
        for point in sweep.points
    ]


@pytest.mark.parametrize("k", [1, 300, 1000])
def test_k_may_be_any_size(collection: SearchClient, k: int) -> None:
    """One hit, all passages, and more than there are: recall is of what there is."""
    sweep = sweep_ann(collection, ASKED[:2], k=k, efs=(1000,))

    assert k == sweep.k
    assert 1.0 == sweep.points[-1].recall
    assert all(0 <= point.worst <= point.recall <= 1 for point in sweep.points)


def test_collection_without_a_graph_gives_a_warning(
    collection: SearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Its searches are exact."""
    with caplog.at_level(logging.WARNING, "msmarco_qdrant"):
        sweep_ann(collection, ASKED[:1], efs=(16,))

    (message,) = caplog.messages
    assert "'msmarco' has no index" in message
    assert "each of its 300 vectors: run `msmarco-qdrant optimize --collection " in message


@pytest.mark.slow
def test_index_of_older_vectors_gives_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Replaced vectors still count as indexed."""
    with new_store("edge", tmp_path) as store:
        ingest_passages(PASSAGES, store, encoder=HashingEncoder())
        store.admin_collection("msmarco").alter(SettingsChange(indexing_threshold_kb=1))
        store.collection("msmarco").optimize()
        with SearchClient.open(store, encoder=HashingEncoder()) as client:
            caplog.clear()
            sweep_ann(client, ASKED[:1], efs=(16,))
            assert [] == caplog.messages
            changed = [Passage(one.pid, f"{one.text} again") for one in PASSAGES]
            ingest_passages(changed, store, encoder=HashingEncoder(), optimize=False)
            caplog.clear()
            sweep_ann(client, ASKED[:1], efs=(16,))
    (message,) = caplog.messages
    assert "the index of 'msmarco' is older than many of its 300 vectors" in message


@pytest.mark.parametrize(
    ("queries", "options", "message"),
    [
        ([], {}, "a sweep needs one query or more"),
        (ASKED, {"efs": ()}, "efs must be one number or more, such as"),
        (ASKED, {"efs": (16, 0)}, "must be 1 or more, got k=10 and ef=0"),
        (ASKED, {"k": 0}, "must be 1 or more, got k=0 and ef=16"),
    ],
)
def test_invalid_sweep_is_refused(
    collection: SearchClient, queries: list[Query], options: dict[str, Any], message: str
) -> None:
    """Before the first search."""
    with pytest.raises(UsageError, match=message):
        sweep_ann(collection, queries, **options)


def test_an_engine_without_a_graph_is_refused(client: SearchClient) -> None:
    """There is nothing to compare."""
    with pytest.raises(UnsupportedError, match="always searches exactly: it has no graph"):
        sweep_ann(client, QUERIES)


def test_an_empty_collection_lacks_nothing(tmp_path: Path) -> None:
    """Nothing is found and nothing missed."""
    encoder = HashingEncoder()
    ingest_passages([], tmp_path / "store", encoder=encoder, optimize=False)
    with SearchClient.open(tmp_path / "store", encoder=encoder) as client:
        assert {1.0} == {point.recall for point in sweep_ann(client, ASKED, efs=(16,)).points}

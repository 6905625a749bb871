"""Diverse hits, and the parts of passages that hits have, over every engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.encoding import Tokenized
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.search.diversity import select_diverse
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.contract.test_search_modes import PASSAGES
from tests.engines import ENGINES_AND_SERVER, new_store
from tests.search.support import near, run

ENCODER = HashingEncoder()
QUERY = "castle and garden near the river"
VECTORS = dict(
    zip((p.pid for p in PASSAGES), ENCODER.encode([p.text for p in PASSAGES]), strict=True)
)


@pytest.fixture(scope="module", params=ENGINES_AND_SERVER)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SearchClient]:
    """A client on sixty passages, of each engine in turn."""
    name = f"content-{uuid.uuid4().hex[:12]}"
    with new_store(request.param, tmp_path_factory.mktemp("content")) as store:
        ingest_passages(PASSAGES, store, encoder=ENCODER, collection=name, optimize=False)
        yield SearchClient.open(
            store, collection=name, encoder=ENCODER, reranker=WordOverlapReranker()
        )
        drop_collection(store, name)  # a real server goes on after the tests


def mmr(scores: dict[str, float], diversity: float) -> list[str]:
    """Maximal marginal relevance, as its formula reads."""
    chosen: list[str] = []
    while len(chosen) < len(scores):

        def value(pid: str) -> float:
            nearest = max((float(VECTORS[pid] @ VECTORS[one]) for one in chosen), default=0.0)
            return (1 - diversity) * scores[pid] - diversity * nearest

        rest = [pid for pid in scores if pid not in chosen]
        chosen.append(max(rest, key=value) if chosen else rest[0])
    return chosen


@pytest.mark.parametrize("diversity", [0.3, 0.5, 1.0])
def test_diverse_hits_are_those_of_the_formula(client: SearchClient, diversity: float) -> None:
    """With the scores of the plain search; a part of the answer is its start, and pages fit."""
    plain = {hit.pid: hit.score for hit in client.search(QUERY, limit=60, exact=True)}
    hits = client.search(QUERY, limit=60, exact=True, diversity=diversity)
    assert mmr(plain, diversity)[:20] == [hit.pid for hit in hits][:20]
    assert plain == pytest.approx({hit.pid: hit.score for hit in hits}, abs=1e-5)
    assert [*range(1, 61)] == [hit.rank for hit in hits]
    first = client.search(QUERY, limit=7, exact=True, diversity=diversity)
    options: dict[str, Any] = {"limit": 7, "exact": True, "diversity": diversity}
    assert near(hits[:7]) == first
    assert {None} == {hit.vector for hit in first}
    assert near(hits[7:14]) == client.search(QUERY, offset=7, **options)
    assert near(hits[7:14]) == client.search(QUERY, cursor=first.cursor, **options)


@pytest.mark.parametrize("mode", get_args(SearchMode))
@pytest.mark.parametrize(
    "more", [{}, {"rerank_depth": 20}, {"group_by": "doc"}, {"meta_filter": {"doc": "d1"}}], ids=str
)
def test_diversity_permutes_what_is_found(client: SearchClient, mode: Any, more: Any) -> None:
    """In every mode, reranked, grouped and filtered; 0 is the plain search, 1 is not."""
    options: dict[str, Any] = {"mode": mode, "limit": 10, **more}
    plain = client.search(QUERY, **options)
    assert near(plain) == client.search(QUERY, diversity=0, **options)
    deep: dict[str, Any] = {**options, "limit": 20}
    most = {hit.pid: hit for hit in client.search(QUERY, **deep)}
    hits = client.search(QUERY, diversity=1.0, **deep)
    assert plain[0].pid == hits[0].pid
    if len(most) < 20 or more.get("rerank_depth"):
        assert {*most} == {hit.pid for hit in hits}
    assert [*most] != [hit.pid for hit in hits]


def test_similar_passages_can_be_diverse(client: SearchClient) -> None:
    """The most similar one first, then others than without it."""
    plain, diverse = (client.similar("7", limit=10, diversity=d) for d in (None, 0.7))
    assert plain[0].pid == diverse[0].pid
    assert [hit.pid for hit in plain] != [hit.pid for hit in diverse]
    assert "7" not in {hit.pid for hit in diverse}


@pytest.mark.parametrize("mode", get_args(SearchMode))
@pytest.mark.parametrize("more", [{}, {"group_by": "doc"}, {"rerank_depth": 10}, {"offset": 2}])
def test_hits_have_what_is_wanted(client: SearchClient, mode: Any, more: Any) -> None:
    """Vectors, fields of meta and text; the order and the scores are those of the plain search."""
    options: dict[str, Any] = {"mode": mode, "limit": 5, **more}
    plain = client.search(QUERY, **options)
    bare = client.search(QUERY, with_meta=False, with_text=False, with_vectors=True, **options)
    some = client.search(QUERY, with_meta=["doc", "nothing", "a b"], **options)
    one = client.search(QUERY, with_meta=["doc"], with_text=False, **options)
    for hits in (bare, some, one):
        assert [(h.rank, h.pid) for h in plain] == [(h.rank, h.pid) for h in hits]
        assert [h.score for h in plain] == pytest.approx([h.score for h in hits], abs=1e-5)
    for hit in bare:
        assert ("", {}) == (hit.text, hit.meta)
        assert VECTORS[hit.pid] == pytest.approx(np.array(hit.vector), abs=1e-6)
    texts = {passage.pid: passage.text for passage in PASSAGES}
    assert [(texts[h.pid], {"doc": f"d{int(h.pid) // 6}"}, None) for h in plain] == [
        (h.text, h.meta, h.vector) for h in some
    ]
    assert [("", {"doc": f"d{int(h.pid) // 6}"}) for h in plain] == [(h.text, h.meta) for h in one]


def test_snippets_are_the_best_sentences(client: SearchClient) -> None:
    """Those most similar to the query, in the order of the text, also without the text."""
    hits = client.search(QUERY, limit=3, snippets=2)
    assert [(hit.text,) for hit in hits] == [hit.snippets for hit in hits]  # one sentence each
    bare = client.search(QUERY, limit=3, snippets=1, with_text=False)
    assert [("", hit.snippets) for hit in hits] == [(hit.text, hit.snippets) for hit in bare]
    with (
        SearchClient.open(client.store, collection=client.collection, bm25_only=True) as words,
        pytest.raises(UsageError, match="snippets need its model"),
    ):
        words.search("castle", mode="bm25", snippets=1)


def test_the_same_from_an_event_loop(client: SearchClient) -> None:
    """Each option, and all together."""
    calls: list[dict[str, Any]] = [
        {"diversity": 0.5},
        {"with_vectors": True, "with_meta": ["doc"], "with_text": False, "mode": "hybrid"},
        {"snippets": 1, "diversity": 0.2, "with_meta": False, "with_vectors": True},
    ]

    async def ask() -> list[Any]:
        async with await AsyncSearchClient.open(
            client.store, collection=client.collection, encoder=ENCODER
        ) as same:
            return [await same.search(QUERY, **call) for call in calls]

    assert near([client.search(QUERY, **call) for call in calls]) == run(ask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diversity": 1.1}, "diversity must be 0 to 1, got 1.1"),
        ({"diversity": True}, "diversity must be 0 to 1, got True"),
        ({"diversity": float("nan")}, "diversity must be 0 to 1, got nan"),
        ({"with_vectors": 1}, "with_vectors must be True or False, got 1"),
        ({"with_text": "no"}, "with_text must be True or False, got 'no'"),
        ({"with_meta": "lang"}, "with_meta must be True, False or a list .*, got 'lang'"),
        ({"with_meta": ["a", 1]}, r"with_meta must be .*, got \['a', 1\]"),
        ({"snippets": 21}, "snippets must be 0 to 20, got 21"),
        ({"snippets": -1}, "snippets must be 0 to 20, got -1"),
    ],
)
def test_what_cannot_be_wanted(client: SearchClient, options: Any, message: str) -> None:
    """Refused with the rule and the value."""
    with pytest.raises(UsageError, match=message):
        client.search("castle", **options)


def test_zero_vectors_are_hits_once() -> None:
    """They are similar to nothing: by a cosine of 0 / 0 the first hit was selected again."""
    passages = [Passage(str(number), f"castle {number}") for number in range(4)]
    with new_store("memory", Path()) as store:
        ingest_passages(passages[:2], store, encoder=ENCODER)
        ingest_passages(passages, store, encoder=_Zeros())
        with SearchClient.open(store, encoder=ENCODER) as searched:
            hits = searched.search("castle", mode="bm25", diversity=0.5)
    assert ["0", "2", "3", "1"] == [hit.pid for hit in hits]


class _Zeros(HashingEncoder):
    """An encoder for which no passage has a meaning."""

    def _batches(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        for batch in super()._batches(passages):
            yield EncodedBatch(batch.positions, np.zeros_like(batch.vectors))


def test_equal_candidates_keep_their_order() -> None:
    """Also where all have one vector."""
    same = np.ones((4, 1), np.float32)
    assert [0, 1, 2, 3] == select_diverse(np.ones(4), same, 0.5, 10)
    assert [0, 1] == select_diverse(np.array([0.9, 0.8, 0.7, 0.6]), same, cast("Any", 0.5), 2)

"""Searching by vectors, by words and by both, grouped and reranked, over every engine."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from random import Random
from typing import Any, cast, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Fusion, Hit, ScoredPoint, SearchMode
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.search.options import SearchOptions
from msmarco_qdrant.search.ranking import fuse
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.engines import ENGINES_AND_SERVER, new_store

_WORDS = (
    *("city", "river", "bridge", "market", "castle", "garden"),
    *("harbor", "tower", "street", "museum", "station", "square"),
)
_QUERY = "castle and garden near the river"
_HYBRID = [
    Fusion(),
    Fusion("convex", 0.3, depth=5),
    Fusion("rrf"),
    Fusion("rrf", 0.9, depth=10),
    Fusion("dbsf"),
]


def _passages() -> list[Passage]:
    """Sixty passages, ten documents of six; no two are alike, so that few scores are."""
    random = Random(5)
    made = []
    for number in range(60):
        words = random.choices((*_WORDS, "the", "and", "of"), k=random.randint(4, 30))
        meta = {"doc": f"d{number // 6}", "number": number}
        made.append(Passage(str(number), f"{' '.join(words)} stop{number}", meta))
    return made


PASSAGES = _passages()


class _NoEncoder(HashingEncoder):
    """An encoder that must not be asked for queries."""

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Fail."""
        raise AssertionError(f"nothing was to be encoded, but {queries} was")


@pytest.fixture(scope="module", params=ENGINES_AND_SERVER)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SearchClient]:
    """A client on the sixty passages, of each engine in turn."""
    name = f"modes-{uuid.uuid4().hex[:12]}"
    with new_store(request.param, tmp_path_factory.mktemp("modes")) as store:
        ingest_passages(PASSAGES, store, encoder=HashingEncoder(), collection=name, optimize=False)
        yield SearchClient.open(
            store, collection=name, encoder=HashingEncoder(), reranker=WordOverlapReranker()
        )
        drop_collection(store, name)  # a real server goes on after the tests


def _another(client: SearchClient, encoder: HashingEncoder) -> SearchClient:
    """A client on the same collection, without a reranker."""
    return SearchClient.open(client.store, collection=client.collection, encoder=encoder)


def pids(hits: Sequence[Hit]) -> list[str]:
    """Their pids, in order."""
    return [hit.pid for hit in hits]


def near(hits: Sequence[Hit]) -> list[Hit]:
    """Hits that equal those whose scores differ in the last bits."""
    return [replace(hit, score=cast(float, pytest.approx(hit.score, abs=1e-5))) for hit in hits]


def as_points(hits: Sequence[Hit]) -> list[ScoredPoint]:
    """Hits as points whose payload is the hit."""
    return [ScoredPoint(int(hit.pid), hit.score, {}) for hit in hits]


# ---- modes ---------------------------------------------------------------------------------


def test_words_find_what_holds_them(client: SearchClient) -> None:
    """Only passages that share a word, the rarer the better, with ranks and texts."""
    hits = client.search("castle stop7", mode="bm25", limit=60)
    assert "7" in pids(hits[:2])
    assert [*range(1, len(hits) + 1)] == [hit.rank for hit in hits]
    assert {p.pid for p in PASSAGES if {"castle", "stop7"} & {*p.text.split()}} == {*pids(hits)}
    assert {hit.pid: hit.text for hit in hits}.items() <= {p.pid: p.text for p in PASSAGES}.items()


def test_stop_words_find_nothing_but_vectors_may(client: SearchClient) -> None:
    """A query without a token is no error: "bm25" finds nothing, "hybrid" goes by vectors."""
    assert [] == client.search("the and of", mode="bm25")
    assert pids(client.search("the and of")) == pids(client.search("the and of", mode="hybrid"))
    asked = ["the and of", "castle"]
    assert [[], client.search("castle", mode="bm25")] == client.search_many(asked, mode="bm25")


@pytest.mark.parametrize("fusion", _HYBRID, ids=str)
def test_hybrid_is_the_fusion_of_both(client: SearchClient, fusion: Fusion) -> None:
    """Of the real scores of the union of the best `depth` of both, on every engine."""
    dense = client.search(_QUERY, limit=60, exact=True)
    bm25 = client.search(_QUERY, limit=60, mode="bm25")
    union = {*pids(dense[: fusion.depth]), *pids(bm25[: fusion.depth])}
    expected = fuse(
        as_points([hit for hit in dense if hit.pid in union]),
        as_points([hit for hit in bm25 if hit.pid in union]),
        fusion,
        depth=fusion.depth,
        similarity="cosine",
    )
    hits = client.search(_QUERY, mode="hybrid", fusion=fusion, limit=5, exact=True)
    assert [point.score for point in expected[:5]] == pytest.approx(
        [hit.score for hit in hits], abs=1e-5
    )
    scores = {str(point.id): point.score for point in expected}
    assert [hit.score for hit in hits] == pytest.approx([scores[p] for p in pids(hits)], abs=1e-5)


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_many_queries_are_answered_as_alone(client: SearchClient, mode: SearchMode) -> None:
    """A query has the same hits and scores in a batch, best first; the order of ties is open."""
    queries = ["castle", "the", "river bridge stop3"]
    together = client.search_many(queries, mode=mode, limit=len(PASSAGES))
    for query, hits in zip(queries, together, strict=True):
        alone = client.search(query, mode=mode, limit=len(PASSAGES))
        scores = {hit.pid: hit.score for hit in alone}
        assert scores == pytest.approx({hit.pid: hit.score for hit in hits}, abs=1e-5)
        for ranked in (alone, hits):
            assert [*range(1, len(ranked) + 1)] == [hit.rank for hit in ranked]
            assert sorted((hit.score for hit in ranked), reverse=True) == [h.score for h in ranked]
    assert together[0]


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_a_filter_holds_in_every_mode(client: SearchClient, mode: SearchMode) -> None:
    """And there are as many hits as without it, where the collection holds them."""
    hits = client.search(_QUERY, mode=mode, meta_filter={"doc": ["d1", "d2"]}, limit=6)
    assert 6 == len(hits)
    assert {"d1", "d2"} >= {hit.meta["doc"] for hit in hits}


def test_without_a_model_words_can_be_searched_for(client: SearchClient) -> None:
    """No encoder is loaded, and what would need one is refused with a reason."""
    with SearchClient.open(client.store, collection=client.collection, bm25_only=True) as words:
        assert client.search("castle", mode="bm25") == words.search("castle", mode="bm25")
        words.warm_up()
        for mode in ("dense", "hybrid"):
            with pytest.raises(UsageError, match=f"bm25_only: it cannot search by {mode}"):
                words.search("castle", mode=mode)
    with pytest.raises(UsageError, match="omit model and encoder"):
        SearchClient.open(client.store, bm25_only=True, encoder=HashingEncoder())


def test_words_alone_cost_no_encoding(client: SearchClient) -> None:
    """Neither in a search nor in a ranking."""
    with _another(client, _NoEncoder()) as words:
        assert words.search("castle", mode="bm25")
        assert words.rank("castle", ["1", "2"], mode="bm25")


# ---- groups --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
@pytest.mark.parametrize("limit", [1, 10, 10_000])
def test_one_passage_of_each_group(client: SearchClient, mode: SearchMode, limit: int) -> None:
    """The best of each, in the order of the whole ranking."""
    everything = client.search(_QUERY, mode=mode, limit=60, exact=True)
    best: dict[str, str] = {}
    for hit in everything:
        best.setdefault(hit.meta["doc"], hit.pid)
    hits = client.search(_QUERY, mode=mode, limit=limit, group_by="doc", exact=True)
    assert [*best.values()][:limit] == pids(hits)
    assert [*range(1, len(hits) + 1)] == [hit.rank for hit in hits]


def test_what_has_no_group_is_left_out(
    client: SearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A field that no passage has finds nothing, and a warning names it."""
    assert [] == client.search(_QUERY, group_by="nothing")
    assert "no passage found has the field 'nothing'" in caplog.text


# ---- reranking -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
@pytest.mark.parametrize("depth", [5, 20])
def test_reranking_permutes_its_candidates(
    client: SearchClient, mode: SearchMode, depth: int
) -> None:
    """None is added, none lost; the order and the scores are the cross-encoder's."""
    candidates = client.search(_QUERY, mode=mode, limit=depth)
    hits = client.search(_QUERY, mode=mode, limit=depth, rerank_depth=depth)
    assert sorted(pids(candidates)) == sorted(pids(hits))
    pairs = [(_QUERY, hit.text) for hit in candidates]
    scores = dict(zip(pids(candidates), WordOverlapReranker().scores(pairs).tolist(), strict=True))
    assert sorted(pids(candidates), key=lambda pid: (-scores[pid], int(pid))) == pids(hits)
    assert [scores[hit.pid] for hit in hits] == [hit.score for hit in hits]
    assert hits[:3] == client.search(_QUERY, mode=mode, limit=3, rerank_depth=depth)


def test_as_many_as_can_be_asked(client: SearchClient) -> None:
    """The largest limit in every mode."""
    for mode in get_args(SearchMode):
        hits = client.search(_QUERY, mode=mode, limit=10_000)
        assert [*range(1, len(hits) + 1)] == [hit.rank for hit in hits]
        assert hits[:10] == client.search(_QUERY, mode=mode)


def test_fewer_groups_than_wanted(client: SearchClient) -> None:
    """Of the reranked candidates only, however many are wanted."""
    candidates = client.search(_QUERY, limit=8, rerank_depth=8)
    groups = {hit.meta["doc"] for hit in candidates}
    found = client.search(_QUERY, limit=8, rerank_depth=8, group_by="doc")
    assert len(groups) == len(found) < 8


def test_reranked_groups(client: SearchClient) -> None:
    """The candidates are reranked first, then each group shows its best."""
    reranked = client.search(_QUERY, limit=30, rerank_depth=30)
    best: dict[str, str] = {}
    for hit in reranked:
        best.setdefault(hit.meta["doc"], hit.pid)
    hits = client.search(_QUERY, limit=5, rerank_depth=30, group_by="doc")
    assert [*best.values()][:5] == pids(hits)


def test_reranking_needs_a_cross_encoder(client: SearchClient) -> None:
    """Which the message names a way to get."""
    with (
        _another(client, HashingEncoder()) as plain,
        pytest.raises(UsageError, match="reranker='ms-marco-MiniLM-L6-v2'"),
    ):
        plain.search("castle", rerank_depth=10)


# ---- given candidates ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
@pytest.mark.parametrize("rerank", [False, True])
def test_ranking_permutes_what_is_there(
    client: SearchClient, mode: SearchMode, rerank: bool
) -> None:
    """Every given passage that the collection holds, once; unknown ones are left out."""
    given = ["3", "nobody", "17", "3", "42", "8", "007"]
    hits = client.rank("castle stop17", given, mode=mode, rerank=rerank)
    assert ["17", "3", "42", "8"] == sorted(pids(hits))
    assert [1, 2, 3, 4] == [hit.rank for hit in hits]
    assert sorted((hit.score for hit in hits), reverse=True) == [hit.score for hit in hits]


@pytest.mark.parametrize("mode", ["dense", "bm25"])
def test_a_ranking_has_the_scores_of_a_search(client: SearchClient, mode: SearchMode) -> None:
    """The same numbers as an exact search; without a shared word BM25 is 0."""
    scores = {hit.pid: hit.score for hit in client.search(_QUERY, mode=mode, limit=60, exact=True)}
    hits = client.rank(_QUERY, [p.pid for p in PASSAGES], mode=mode)
    assert 60 == len(hits)
    assert [scores.get(hit.pid, 0.0) for hit in hits] == pytest.approx(
        [hit.score for hit in hits], abs=1e-5
    )


def test_a_ranking_of_stop_words_has_the_scores_of_a_search(client: SearchClient) -> None:
    """A hybrid one weighs the cosine alike, although there is nothing to add to it."""
    query, asked = "the and of", [passage.pid for passage in PASSAGES]
    scores = {h.pid: h.score for h in client.search(query, mode="hybrid", limit=60, exact=True)}
    ranked = {h.pid: h.score for h in client.rank(query, asked, mode="hybrid")}
    assert scores == pytest.approx(ranked, abs=1e-5)


def test_rankings_of_several_queries(client: SearchClient) -> None:
    """Each query has its own candidates; none is no error."""
    queries, candidates = ["castle", "river", "tower"], [["1", "2"], [], ["5"]]
    assert [
        near(client.rank(query, given)) for query, given in zip(queries, candidates, strict=True)
    ] == client.rank_many(queries, candidates)
    assert [[], []] == client.rank_many(["castle", "river"], [[], ["nobody"]], mode="hybrid")


@pytest.mark.parametrize(
    ("queries", "candidates", "message"),
    [
        (["castle"], [], "got 0 for 1 queries"),
        (["castle"], ["12"], "one list for each query, got str"),
        (["castle"], [[12]], "pid must be a string, got 12"),
        (["castle"], [iter(["1"])], "one list for each query"),
        (["castle"], [["1"] * 10_001], "at most 10,000 for each query, got 10,001"),
        ([""], [["1"]], "empty"),
    ],
)
def test_candidates_that_cannot_be_ranked(
    client: SearchClient, queries: Any, candidates: Any, message: str
) -> None:
    """Told before anything is encoded."""
    with pytest.raises(UsageError, match=message):
        client.rank_many(queries, candidates)


# ---- what is asked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sparse"}, "mode must be one of dense, bm25, hybrid, got 'sparse'"),
        ({"fusion": "sum"}, "must be one of convex, rrf, dbsf, got 'sum'"),
        ({"rerank_depth": 5}, r"limit \(10\) or more, .*, got 5"),
        ({"rerank_depth": 0}, "rerank_depth must be 1 to 10,000, got 0"),
        ({"oversampling": 0.5}, "oversampling must be .*, got 0.5"),
        ({"oversampling": float("nan")}, "oversampling must be .*, got nan"),
        ({"ef": 0}, "ef must be 1 to 10,000, got 0"),
        ({"group_by": ""}, "group_by must be .*, got ''"),
        ({"group_by": 3}, "group_by must be .*, got 3"),
        ({"limit": True}, "limit must be .*, got True"),
        ({"limit": 2.0}, "limit must be .*, got 2.0"),
        ({"exact": "no"}, "exact must be True or False, got 'no'"),
        ({"rescore": 1}, "rescore must be True or False, got 1"),
        ({"oversampling": "2"}, "oversampling must be .*, got '2'"),
    ],
)
def test_what_cannot_be_asked(client: SearchClient, options: Any, message: str) -> None:
    """Each with what would do."""
    with pytest.raises(UsageError, match=message):
        client.search("castle", **options)


def test_numbers_of_numpy_are_numbers(client: SearchClient) -> None:
    """As they come out of an array."""
    wanted: Any = np.int64(3)
    assert 3 == len(client.search("castle", limit=wanted))


def test_the_options_are_those_of_a_request() -> None:
    """The typed keywords and the checked request name the same, except for the collection's."""
    from msmarco_qdrant.search.request import SearchRequest

    options = {one.name for one in fields(SearchRequest) if one.init}
    assert {*SearchOptions.__annotations__} == options - {"limits", "default_ef"}


def test_a_field_without_an_index_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning with the field; not for one that is indexed, and not twice."""
    monkeypatch.setattr("msmarco_qdrant.search.filter_checks._FEW_POINTS", 0)
    ingest_passages(
        PASSAGES, tmp_path, encoder=HashingEncoder(), payload_indexes={"doc": "keyword"}
    )
    with SearchClient.open(tmp_path, encoder=HashingEncoder()) as client:
        with caplog.at_level(logging.WARNING, "msmarco_qdrant"):
            for _ in range(2):
                client.search("castle", meta_filter={"doc": "d1", "number": 7})
        (told,) = [record.getMessage() for record in caplog.records]
        assert "meta.number" in told
        assert "meta.doc" not in told

"""Queries asked of a collection: as runs, over everything or over given candidates."""

from __future__ import annotations

from typing import Any

import pytest

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_types import Fusion
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation import Run, System, rank_run, run_queries, search_run
from msmarco_qdrant.evaluation.systems import count_missing_candidates, to_system
from msmarco_qdrant.search.client import SearchClient
from tests.evaluation.collection import QUERIES, ListeningEncoder

GIVEN = Run("given", {"q1": [("c", 3.0), ("a", 2.0), ("nobody", 1.0), ("b", 0.5)], "q9": []})


def pids(run: Run, qid: str) -> list[str]:
    """What a run answers to a query."""
    return [pid for pid, _ in run.rankings[qid]]


@pytest.mark.parametrize(
    ("system", "name", "limit"),
    [
        (System(), "dense", 1000),
        (System("bm25"), "bm25", 1000),
        (System("hybrid"), "hybrid", 1000),
        (System("hybrid", Fusion("rrf"), 50), "hybrid rrf reranked", 50),
        (System("hybrid", Fusion("rrf", k=2, depth=9)), "hybrid rrf depth=9 k=2", 1000),
        (System("hybrid", Fusion("dbsf", 0.25)), "hybrid dbsf 0.25", 1000),
        (System("hybrid", Fusion(dense_weight=0.5), exact=True), "hybrid 0.5 exact", 1000),
        (System("dense", Fusion("rrf"), exact=True), "dense exact", 1000),
        (System(rerank_depth=50, label="mine"), "mine", 50),
        (System(rerank_depth=2000), "dense reranked", 1000),
    ],
    ids=str,
)
def test_a_system_has_a_name_and_a_depth(system: System, name: str, limit: int) -> None:
    """A reranked one has no more hits than it reranks."""
    options = system.options(1000)

    assert name == system.name
    assert (limit, system.mode, system.fusion, system.rerank_depth, system.exact) == tuple(
        options[key] for key in ("limit", "mode", "fusion", "rerank_depth", "exact")
    )


def test_answers_become_a_run(client: SearchClient) -> None:
    """Of every query as many hits as wanted, the best first, under the system's name."""
    run = search_run(client, QUERIES, System(), 2)

    assert ("dense", None) == (run.name, run.model)
    assert {"q1": 2, "q2": 2, "q3": 2, "q4": 2} == {q: len(of) for q, of in run.rankings.items()}
    assert (["a", "b"], ["c", "d"], ["g", "d"]) == tuple(pids(run, q) for q in ("q1", "q2", "q3"))
    assert [1.0, 2**-0.5] == pytest.approx([score for _, score in run.rankings["q1"]])


def test_words_know_their_published_figures(client: SearchClient) -> None:
    """BM25 is in the catalog; a query whose words are nowhere has an empty ranking."""
    run = search_run(client, [*QUERIES, Query("q5", "nowhere")], System("bm25"), 5)

    assert ("bm25", "BM25") == (run.name, run.model)
    assert (["a", "b"], []) == (pids(run, "q1"), pids(run, "q5"))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_reranked_run_holds_what_was_reranked(client: SearchClient, depth: int) -> None:
    """Not more for a larger depth; the order is the cross-encoder's."""
    run = search_run(client, QUERIES, System(rerank_depth=depth), 10)

    assert ("dense reranked", None) == (run.name, run.model)
    assert {depth} == {len(ranking) for ranking in run.rankings.values()}
    assert [["g"], ["d", "g"]][depth > 1] == pids(run, "q3")[:2]


def test_candidates_are_ranked_and_nothing_else(client: SearchClient) -> None:
    """A query without candidates is left out; a passage that is not there, too."""
    run = rank_run(client, QUERIES, System(), GIVEN)

    assert {"q1": ["a", "b", "c"]} == {qid: pids(run, qid) for qid in run.rankings}
    assert (1, 4) == count_missing_candidates(run, GIVEN)


@pytest.mark.parametrize(
    "system", [System("bm25"), System("hybrid"), System("bm25", rerank_depth=1)]
)
def test_every_candidate_is_ranked_by_every_system(client: SearchClient, system: System) -> None:
    """Also without a common word; a cross-encoder scores all of them at any depth."""
    run = rank_run(client, QUERIES, system, GIVEN)

    assert ["a", "b", "c"] == pids(run, "q1")


def test_queries_are_asked_in_batches(client: SearchClient, listening: ListeningEncoder) -> None:
    """In their order, a batch when its first answer is wanted, and not before."""
    queries = [Query(str(number), f"castle {number}") for number in range(70)]
    answers = run_queries(client, iter(queries), {"limit": 1})

    assert [] == listening.asked
    assert "0" == next(answers)[0].qid
    assert [32] == [len(texts) for texts in listening.asked]
    assert [str(number) for number in range(1, 70)] == [query.qid for query, _ in answers]
    assert [32, 32, 6] == [len(texts) for texts in listening.asked]


@pytest.mark.parametrize(
    ("queries", "system", "message"),
    [
        (
            [Query("q", "river"), Query("q", "castle")],
            System(),
            "each query needs its own qid, got 'q' twice",
        ),
        ([Query("q", " ")], System(), "query"),
        ([Query("q", "river")], System(rerank_depth=0), "rerank_depth"),
        ([Query("q", "river")], System("sparse"), "sparse"),  # type: ignore[arg-type]
    ],
)
def test_invalid_search_is_refused(
    client: SearchClient, queries: Any, system: System, message: str
) -> None:
    """The message names the option or the query."""
    with pytest.raises(UsageError, match=message):
        search_run(client, queries, system, 10)


def test_missing_model_or_reranker_is_refused(client: SearchClient) -> None:
    """A model for vectors, a cross-encoder for reranking."""
    with SearchClient.open(client.store, bm25_only=True) as words:
        assert ["a", "b"] == pids(search_run(words, QUERIES, System("bm25"), 5), "q1")
        with pytest.raises(UsageError, match="bm25_only"):
            rank_run(words, QUERIES, System(), GIVEN)
        with pytest.raises(UsageError, match="without a reranker"):
            search_run(words, QUERIES, System("bm25", rerank_depth=5), 5)


def test_a_system_takes_plain_values() -> None:
    """The name of a mode, and the name of a fusion."""
    assert System("bm25") == to_system("bm25")
    assert System("hybrid") == to_system(System("hybrid"))
    rrf = System("hybrid", fusion="rrf")
    assert ("hybrid rrf", Fusion("rrf")) == (rrf.name, rrf.fusion)
    with pytest.raises(UsageError, match="one of dense, bm25, hybrid, got 'sparse'"):
        to_system("sparse")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one of convex, rrf, dbsf, got 'sum'"):
        System(fusion="sum")  # type: ignore[arg-type]

"""Systems of one collection asked, measured and compared, with values known by hand."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation import (
    Evaluated,
    Run,
    System,
    check_evaluation,
    evaluate_search,
    poorest_queries,
)
from msmarco_qdrant.search import SearchClient
from tests.evaluation.collection import QRELS, QUERIES, ListeningEncoder

CANDIDATES = Run("given", {"q1": [("c", 3.0), ("a", 2.0), ("b", 1.0)], "q3": [("d", 1.0)]})


def means(evaluated: Evaluated, measure: str) -> dict[str, float]:
    """The mean of each run."""
    return {run.name: run.values[measure].mean for run in evaluated.evaluation.runs}


def depths(evaluated: Evaluated) -> set[int]:
    """How many hits the queries got."""
    return {len(ranking) for run in evaluated.runs for ranking in run.rankings.values()}


def test_systems_are_measured(client: SearchClient) -> None:
    """The relevant passage stands at ranks 2, 1 and 2; after reranking at 2, 1 and 1."""
    systems = [System(), System("bm25"), System(rerank_depth=5)]
    found = evaluate_search(client, QUERIES, QRELS, systems, measures="RR@10 P@1")

    expected = {"dense": 2 / 3, "bm25": 2 / 3, "dense reranked": 5 / 6}
    assert pytest.approx(expected) == means(found, "RR@10")
    assert pytest.approx({"dense": 1 / 3, "bm25": 1 / 3, "dense reranked": 2 / 3}) == means(
        found, "P@1"
    )
    assert (3, 1) == (found.evaluation.judged, found.evaluation.unjudged)
    assert {"dense"} == {one.baseline for one in found.evaluation.comparisons}
    assert ["dense", "bm25", "dense reranked"] == [run.name for run in found.runs]


@pytest.mark.parametrize(
    ("measures", "depth", "expected"),
    [("RR@3 P@1", None, 3), ("RR@3 AP", None, 7), ("RR@3", 5, 5), ("AP", 1, 1)],
)
def test_depth_follows_the_measures(
    client: SearchClient, measures: str, depth: int | None, expected: int
) -> None:
    """As deep as they look; to the end where one has none; or what is asked for."""
    found = evaluate_search(client, QUERIES, QRELS, [System()], measures=measures, depth=depth)

    assert {expected} == depths(found)


def test_candidates_come_first(client: SearchClient) -> None:
    """They are the baseline; then other runs, then the systems, which rank nothing else."""
    other = Run("other", {"q1": [("b", 1.0)]})
    found = evaluate_search(
        client,
        QUERIES,
        QRELS,
        [System(), System("bm25")],
        measures="RR@10",
        candidates=CANDIDATES,
        others=[other],
    )

    assert ["given", "other", "dense", "bm25"] == [run.name for run in found.runs]
    assert {"given"} == {one.baseline for one in found.evaluation.comparisons}
    expected = {"given": 4 / 9, "other": 1 / 3, "dense": 1 / 2, "bm25": 1 / 2}
    assert pytest.approx(expected) == means(found, "RR@10")
    assert {"q1": ["a", "b", "c"], "q3": ["d"]} == {
        qid: [pid for pid, _ in ranking] for qid, ranking in found.runs[2].rankings.items()
    }
    assert [1, 2, 1, 1] == [run.unanswered for run in found.evaluation.runs]


def test_other_runs_come_before_systems(client: SearchClient) -> None:
    """The first of all is what the others are compared with."""
    other = Run("other", {"q1": [("b", 1.0)]})
    found = evaluate_search(client, QUERIES, QRELS, [System()], measures="RR@10", others=[other])

    assert [("other", "dense")] == [(one.baseline, one.run) for one in found.evaluation.comparisons]


@pytest.mark.parametrize("unjudged", [False, True])
def test_unjudged_queries_are_asked_for_a_run_only(
    client: SearchClient, listening: ListeningEncoder, unjudged: bool
) -> None:
    """They count nothing, so they cost nothing, unless their answers are wanted."""
    found = evaluate_search(client, QUERIES, QRELS, [System()], measures="RR@10", unjudged=unjudged)

    asked = ["castle", "river", "bridge", *(["street"] if unjudged else [])]
    assert [asked] == listening.asked
    assert unjudged == ("q4" in found.runs[0].rankings)
    assert pytest.approx({"dense": 2 / 3}) == means(found, "RR@10")
    assert (3, 1) == (found.evaluation.judged, found.evaluation.unjudged)


def test_progress_is_told(client: SearchClient) -> None:
    """Before each query: whose turn it is, how many were asked, and of how many."""
    told: list[tuple[str, int, int]] = []
    evaluate_search(
        client,
        QUERIES,
        QRELS,
        [System(), System("bm25")],
        measures="RR@10",
        on_query=lambda system, asked, count: told.append((system.name, asked, count)),
    )

    assert [(name, asked, 3) for name in ("dense", "bm25") for asked in range(3)] == told


def test_missing_candidates_are_told(
    client: SearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for all systems, with both counts; unasked queries do not count."""
    given = Run("given", {"q1": [("a", 2.0), ("x", 1.0)], "q3": [("y", 1.0)], "q9": [("z", 1.0)]})
    with caplog.at_level(logging.WARNING, "msmarco_qdrant"):
        evaluate_search(
            client,
            QUERIES,
            QRELS,
            [System(), System("bm25")],
            measures="RR@10",
            candidates=given,
        )

    assert [
        "2 of 3 candidates are not in the collection 'msmarco' and are left out"
    ] == caplog.messages


def test_complete_candidates_are_no_news(
    client: SearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    """No warning."""
    evaluate_search(client, QUERIES, QRELS, [System()], measures="RR@10", candidates=CANDIDATES)

    assert [] == caplog.messages


def test_candidates_of_another_collection_are_refused(client: SearchClient) -> None:
    """Not measured as a system that finds nothing."""
    given = Run("given", {"q1": [("x", 2.0), ("y", 1.0)]})
    with pytest.raises(UsageError, match="none of the 2 candidates is in the collection 'msmarco'"):
        evaluate_search(client, QUERIES, QRELS, [System()], measures="RR@10", candidates=given)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"measures": "mrr", "depth": 5}, "measure 'mrr' is unknown"),
        ({"qrels": {"q9": {"a": 1}}}, "none of the 4 queries has judgements"),
        ({"others": [Run("dense", {})]}, "two runs have one name: dense, dense"),
        ({"systems": []}, "no run was given"),
        ({"queries": [*QUERIES, *QUERIES]}, "query 'q1' comes 2 times"),
        ({"systems": [System(), System(exact=True)]}, "two runs have one name"),
        ({"candidates": Run("given", {"q4": [("a", 1.0)]})}, "none of the 3 judged queries"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    client: SearchClient, listening: ListeningEncoder, changed: dict[str, Any], message: str
) -> None:
    """Before the first query is asked."""
    given = {"queries": QUERIES, "qrels": QRELS, "systems": [System()], **changed}
    with pytest.raises(UsageError, match=message):
        evaluate_search(client, **given)

    assert [] == listening.asked


def test_an_evaluation_is_checked_without_a_client() -> None:
    """The same, before there is one."""
    check_evaluation(QUERIES, QRELS, [CANDIDATES, System()], "RR@10", CANDIDATES)
    with pytest.raises(UsageError, match="two runs have one name"):
        check_evaluation(QUERIES, QRELS, [System(), System()], "RR@10")


def test_the_poorest_queries_have_texts(client: SearchClient) -> None:
    """Of each run, the lowest values first, with the passages from the collection."""
    gone = Run("gone", {"q2": [("x", 1.0)]})
    found = evaluate_search(client, QUERIES, QRELS, [System()], measures="RR@10", others=[gone])
    poor = poorest_queries(client, found, QUERIES, QRELS)

    assert {"gone": ["q1", "q2", "q3"], "dense": ["q1", "q3", "q2"]} == {
        name: [query.qid for query in queries] for name, queries in poor.items()
    }
    first = poor["dense"][0]
    assert ("castle", 0.5) == (first.text, first.value)
    assert ["castle", "castle garden"] == [passage.text for passage in first.top[:2]]
    assert ["castle garden"] == [passage.text for passage in poor["gone"][0].missed]
    assert [None] == [passage.text for passage in poor["gone"][1].top]

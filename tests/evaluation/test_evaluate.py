"""Systems of one collection measured and compared, with values computed by hand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation import (
    Run,
    SearchEvaluation,
    System,
    evaluate_search,
    find_worst_queries,
    plan_evaluation,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from tests.evaluation.collection import QRELS, QUERIES, ListeningEncoder

CANDIDATES = Run("given", {"q1": [("c", 3.0), ("a", 2.0), ("b", 1.0)], "q3": [("d", 1.0)]})


def evaluate(client: SearchClient, systems: Sequence[System], **options: Any) -> SearchEvaluation:
    """Evaluate systems on the small collection, by RR@10 unless the options differ."""
    return evaluate_search(client, QUERIES, QRELS, systems, **{"measures": "RR@10", **options})


def means(evaluated: SearchEvaluation, measure: str) -> dict[str, float]:
    """The mean of each run."""
    return {run.name: run.values[measure].mean for run in evaluated.evaluation.runs}


def depths(evaluated: SearchEvaluation) -> set[int]:
    """The numbers of hits per query."""
    return {len(ranking) for run in evaluated.runs for ranking in run.rankings.values()}


def test_systems_are_measured(client: SearchClient) -> None:
    """The relevant passage has the ranks 2, 1 and 2; after reranking 2, 1 and 1."""
    systems = [System(), System("bm25"), System(rerank_depth=5)]
    found = evaluate(client, systems, measures="RR@10 P@1")

    expected = {"dense": 2 / 3, "bm25": 2 / 3, "dense reranked": 5 / 6}
    assert pytest.approx(expected) == means(found, "RR@10")
    expected = {"dense": 1 / 3, "bm25": 1 / 3, "dense reranked": 2 / 3}
    assert pytest.approx(expected) == means(found, "P@1")
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
    """The largest cutoff, 1,000 if one has none, or the given depth."""
    found = evaluate(client, [System()], measures=measures, depth=depth)

    assert {expected} == depths(found)


def test_candidates_come_first(client: SearchClient, caplog: pytest.LogCaptureFixture) -> None:
    """They are the baseline; then other runs, then the systems, which rank nothing else."""
    other = Run("other", {"q1": [("b", 1.0)]})
    systems = [System(), System("bm25")]
    found = evaluate(client, systems, candidates=CANDIDATES, others=[other])

    assert ["given", "other", "dense", "bm25"] == [run.name for run in found.runs]
    assert {"given"} == {one.baseline for one in found.evaluation.comparisons}
    expected = {"given": 4 / 9, "other": 1 / 3, "dense": 1 / 2, "bm25": 1 / 2}
    assert pytest.approx(expected) == means(found, "RR@10")
    assert {"q1": ["a", "b", "c"], "q3": ["d"]} == {
        qid: [pid for pid, _ in ranking] for qid, ranking in found.runs[2].rankings.items()
    }
    assert [1, 2, 1, 1] == [run.unanswered for run in found.evaluation.runs]
    assert [] == caplog.messages  # no candidate is missing


@pytest.mark.parametrize("unjudged", [False, True])
def test_unjudged_queries_are_searched_for_a_run_only(
    client: SearchClient, listening: ListeningEncoder, unjudged: bool
) -> None:
    """They do not count."""
    found = evaluate(client, [System()], unjudged=unjudged)

    asked = ["castle", "river", "bridge", *(["street"] if unjudged else [])]
    assert [asked] == listening.asked
    assert unjudged == ("q4" in found.runs[0].rankings)
    assert pytest.approx({"dense": 2 / 3}) == means(found, "RR@10")
    assert (3, 1) == (found.evaluation.judged, found.evaluation.unjudged)


def test_missing_candidates_give_a_warning(
    client: SearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for all systems, with both counts; unasked queries do not count."""
    given = Run("given", {"q1": [("a", 2.0), ("x", 1.0)], "q3": [("y", 1.0)], "q9": [("z", 1.0)]})
    with caplog.at_level(logging.WARNING, "msmarco_qdrant"):
        evaluate(client, [System(), System("bm25")], candidates=given)

    (message,) = caplog.messages
    assert "2 of 3 candidates are not in the collection 'msmarco' and are left out" == message


def test_candidates_of_another_collection_are_refused(
    client: SearchClient, listening: ListeningEncoder
) -> None:
    """After the first system; they are not measured as a system that finds nothing."""
    given, systems = Run("given", {"q1": [("x", 2.0), ("y", 1.0)]}), [System("bm25"), System()]
    with pytest.raises(UsageError, match="none of the 2 candidates is in the collection 'msmarco'"):
        evaluate(client, systems, candidates=given)
    assert [] == listening.asked  # the second system was not searched


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"measures": "mrr", "depth": 5}, "measure 'mrr' is unknown"),
        ({"qrels": {"q9": {"a": 1}}}, "none of the 4 queries has judgments"),
        (
            {"qrels": {"q1": {"a": 0, "b": -1}}},
            "must have a grade of 1 or more .* got 0",
        ),
        ({"measures": "RR(rel=2)@10"}, "counts grades of 2 or more, but the highest .* is 1"),
        (
            {"others": [Run("x", {"7": [("a", 1.0)]})]},
            "the run 'x' answers none of the 3 .* such as '7', the judged queries 'q1', 'q2', 'q3'",
        ),
        (
            {"qrels": {"q1": {"doc-a": 1}, "q2": {"doc-c": 0}}},
            "none of the 1 relevant .* 'doc-a', the collection '[a-g]', '[a-g]', '[a-g]'; pass",
        ),
        ({"qrels": {"q1": {"B": 1}}}, "the judgments have pids such as 'B', the collection 'b'; "),
        (
            {"others": [Run("x", {"q1": [("doc-a", 1.0)]})]},
            "none of the 1 first passages of the run 'x' is in the collection 'msmarco': the run",
        ),
        ({"others": [Run("dense", {})]}, "each run needs its own name, got dense, dense"),
        ({"systems": []}, "an evaluation needs one run or system or more, got none"),
        ({"queries": [*QUERIES, *QUERIES]}, "each query needs its own qid, got 'q1' 2 times"),
        ({"systems": [System(), System(label="dense")]}, "each run needs its own name"),
        ({"candidates": Run("given", {"q4": [("a", 1.0)]})}, "none of the 3 judged queries"),
        (
            {"candidates": Run("given", {"q1": [(str(pid), 1.0) for pid in range(10_001)]})},
            "a query has at most 10,000 candidates, got 10,001 for query 'q1' in 'given'",
        ),
        (
            {"measures": "RR@10 R@20000 R@100"},
            "'R@20000' needs 20,000 hits per query, a search returns at most 10,000: pass depth=",
        ),
        ({"depth": 10_001}, "depth must be 1 to 10,000, got 10001"),
        ({"depth": 0}, "depth must be 1 to 10,000, got 0"),
        ({"systems": [System(rerank_depth=0)]}, "rerank_depth must be 1 to 10,000, got 0"),
        ({"systems": [System(), System("sparse")]}, "sparse"),  # type: ignore[arg-type]
        ({"queries": [*QUERIES[:2], Query("q3", " ")]}, "cannot search for query 'q3': "),
        ({"queries": [*QUERIES[:2], Query("q3", "a\udcff")]}, "query 'q3': .* lone surrogate"),
        ({"measures": "ERR@10", "qrels": {"q1": {"b": 5}}}, "accepts grades up to 4, got 5"),
    ],
)
def test_s7_invalid_input_is_refused_early(
    client: SearchClient, listening: ListeningEncoder, changed: dict[str, Any], message: str
) -> None:
    """Before the first search."""
    given = {"queries": QUERIES, "qrels": QRELS, "systems": [System()], **changed}
    with pytest.raises(UsageError, match=message):
        evaluate_search(client, **given)

    assert [] == listening.asked


def test_unsearched_query_is_not_refused(client: SearchClient) -> None:
    """One without judgments, unless `unjudged`; nor a deep measure with a given depth."""
    queries = [*QUERIES[:3], Query("q4", " ")]
    for options in ({"depth": 5}, {"candidates": CANDIDATES}):
        evaluate_search(client, queries, QRELS, [System()], measures="R@20000", **options)
    with pytest.raises(UsageError, match="cannot search for query 'q4'"):
        evaluate_search(client, queries, QRELS, [System()], measures="RR@10", unjudged=True)


def test_shallow_run_is_warned_of(client: SearchClient, caplog: pytest.LogCaptureFixture) -> None:
    """Once, with the deeper measures."""
    systems = [System(), System("bm25")]
    evaluate(client, systems, measures="nDCG@10 R@100 P@3 AP", depth=3)
    evaluate(client, systems, measures="RR@5 P@3", depth=3)
    evaluate(client, systems, measures="RR@3", depth=3)

    assert [
        f"depth 3 is less than the cutoff of {names}: passages below it count as not found"
        for names in ("nDCG@10 and R@100", "RR@5")
    ] == caplog.messages


def test_run_is_passed_on_when_complete(client: SearchClient) -> None:
    """Before the next system is searched, so a later failure loses nothing."""
    events: list[str] = []
    with pytest.raises(UsageError, match="without a reranker"):
        evaluate(
            SearchClient(client.store, "msmarco", client.encoder),
            [System(), System("bm25"), System(rerank_depth=5)],
            on_query=lambda system, count, _: events.append(f"{system.name} {count}"),
            on_answer=lambda query, hits: events.append(f"{query.qid} {hits[0].pid}"),
            on_run=lambda run: events.append(f"{run.name}: {len(run.rankings)}"),
        )

    asked = [f"dense {count}" for count in range(3)]
    assert [*asked, "q1 a", "q2 c", "q3 g", "dense: 3"] == events[:7]
    assert "bm25: 3" == events[-1]


def test_an_evaluation_is_checked_without_a_client() -> None:
    """Before a model is loaded."""
    plan = plan_evaluation(QUERIES, QRELS, [System()], measures="RR@10 P@7")
    assert (("RR@10", "P@7"), 10, QUERIES[:3]) == (plan.measures, plan.depth, plan.searched)
    with pytest.raises(UsageError, match="each run needs its own name"):
        plan_evaluation(QUERIES, QRELS, [System(), System()], measures="RR@10")


def test_the_worst_queries_have_texts(client: SearchClient) -> None:
    """Of each run, the lowest values first, with the passages from the collection."""
    lost = Run("lost", {"q2": [("g", 1.0)]})
    found = evaluate(client, [System()], others=[lost])
    worst = find_worst_queries(client, found, QUERIES, QRELS)

    assert {"lost": ["q1", "q2", "q3"], "dense": ["q1", "q3", "q2"]} == {
        name: [query.qid for query in queries] for name, queries in worst.items()
    }
    first = worst["dense"][0]
    assert ("castle", 0.5) == (first.text, first.value)
    assert ["castle", "castle garden"] == [passage.text for passage in first.top[:2]]
    assert ["castle garden"] == [passage.text for passage in worst["lost"][0].missed]
    assert ["bridge bridge bridge market harbor"] == [
        passage.text for passage in worst["lost"][1].top
    ]


def test_s7_missing_passages_are_counted(
    client: SearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Relevant ones in the evaluation, those of another run in a warning."""
    qrels = {"q1": {"b": 1, "y": 2, "z": 0}, "q2": {"c": 0}, "q3": {"d": 1}}
    other = Run("other", {"q1": [("x", 2.0), ("b", 1.0)]})
    found = evaluate_search(client, QUERIES, qrels, [System("bm25")], others=[other]).evaluation

    assert (3, 1, 1) == (found.relevant, found.missing, found.without_relevant)
    message = "1 of the 2 first passages of the run 'other' are not in the collection 'msmarco'"
    assert [message] == caplog.messages


def test_s7_number_at_the_end_of_a_pid_is_compared(client: SearchClient) -> None:
    """The most frequent difference is named for one passage of both sides."""
    ingest_passages([Passage("159", "castle")], client.store, encoder=client.encoder)
    for pid in ("doc-159", "00159", "msmarco_passage_159"):
        with pytest.raises(UsageError, match=f"such as '{pid}', the collection '159'"):
            evaluate_search(client, QUERIES, {"q1": {pid: 1}}, [System("bm25")])

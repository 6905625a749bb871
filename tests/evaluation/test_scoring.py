"""Runs measured over the same queries, compared, and their worst queries."""

from __future__ import annotations

import math

import pytest

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation import Qrels, Run, evaluate_runs, worst_queries
from msmarco_qdrant.evaluation.records import JudgedPassage, WorstQuery
from tests.evaluation.cases import BETTER, NDCG_OF_PLAIN, PLAIN, QRELS, QUERIES, evaluated


def test_runs_are_measured_over_the_judged_queries() -> None:
    """A query that a run does not answer counts 0; one without judgments is left out."""
    evaluation = evaluated()
    plain, better = evaluation.runs

    assert (3, 1, 0) == (evaluation.judged, evaluation.unjudged, evaluation.unasked)
    assert ("nDCG@10", "RR@10", "R@2") == evaluation.measures == tuple(plain.values)
    assert {"plain": 1, "better": 0} == {run.name: run.unanswered for run in evaluation.runs}
    assert pytest.approx((NDCG_OF_PLAIN + 1) / 3) == plain.values["nDCG@10"].mean
    assert pytest.approx((1 + 1 / math.log2(3) + 1) / 3) == better.values["nDCG@10"].mean
    interval = plain.values["RR@10"].interval
    assert interval is not None
    assert 0 <= interval.low < 0.5 < interval.high <= 1


def test_judgments_of_other_queries_are_ignored() -> None:
    """Their number is in the evaluation."""
    evaluation = evaluate_runs(QUERIES[:2], QRELS, [PLAIN], "RR@10")

    assert (2, 0, 1) == (evaluation.judged, evaluation.unjudged, evaluation.unasked)
    assert 0.75 == evaluation.runs[0].values["RR@10"].mean
    assert () == evaluation.comparisons


def test_runs_are_compared_query_by_query() -> None:
    """RR@10 of q1, q2, q3: 1/2, 1, 0 and 1, 1/2, 1."""
    comparison = next(one for one in evaluated().comparisons if one.measure == "RR@10")

    assert ("plain", "better") == (comparison.baseline, comparison.run)
    assert {"q1": 0.5, "q2": -0.5, "q3": 1.0} == comparison.differences
    assert (2, 0, 1) == (comparison.wins, comparison.ties, comparison.losses)
    assert pytest.approx(1 / 3) == comparison.mean_difference
    assert comparison.test.t_test is not None
    assert 0 < comparison.test.t_test < 1


def test_every_other_run_is_compared_with_the_baseline() -> None:
    """Measure by measure; against itself nothing is compared."""
    runs = [PLAIN, BETTER, Run("third", {})]
    evaluation = evaluate_runs(QUERIES, QRELS, runs, "RR@10 R@2", baseline="better")

    assert [
        ("better", "plain", "RR@10"),
        ("better", "plain", "R@2"),
        ("better", "third", "RR@10"),
        ("better", "third", "R@2"),
    ] == [(one.baseline, one.run, one.measure) for one in evaluation.comparisons]
    assert 0.0 == evaluation.runs[2].values["RR@10"].mean
    assert 3 == evaluation.runs[2].unanswered


def test_equal_runs_do_not_differ() -> None:
    """All are ties, and both p-values are 1."""
    copy = Run("copy", PLAIN.rankings)

    for comparison in evaluated(PLAIN, copy).comparisons:
        assert (0, 3, 0) == (comparison.wins, comparison.ties, comparison.losses)
        assert (1.0, 1.0) == comparison.test
        assert (0.0, 0.0) == comparison.interval


def test_the_models_published_figures_come_along() -> None:
    """Between 0 and 1, with the protocol."""
    plain, better = evaluated().runs

    assert [("nDCG@10", 0.4546, "v3"), ("RR@10", 0.1729, "v3")] == [
        (figure.measure, figure.value, figure.source) for figure in plain.published
    ]
    assert [0.7051, 0.7345, 0.3808] == [figure.value for figure in better.published]
    assert "TREC DL 2019, reranking the given 1,000" == better.published[0].protocol
    assert () == evaluated(Run("x", {}, "all-MiniLM-L6-v2")).runs[0].published


@pytest.mark.parametrize(
    ("runs", "baseline", "message"),
    [
        ([], None, "an evaluation needs one run or system or more, got none"),
        ([PLAIN, PLAIN], None, "each run needs its own name, got plain, plain"),
        ([PLAIN], "best", "baseline must be one of plain, got 'best'"),
        ([Run("x", {}, "gpt")], None, "model 'gpt' is not in the catalog"),
    ],
)
def test_invalid_runs_are_refused(runs: list[Run], baseline: str | None, message: str) -> None:
    """The message has their names; for judgments of other queries it has qids of both."""
    with pytest.raises(UsageError, match=message):
        evaluate_runs(QUERIES, QRELS, runs, baseline=baseline)
    foreign = r"none of the 1 queries .*'19335', the judgments 'q1', 'q2'"
    with pytest.raises(UsageError, match=foreign):
        evaluate_runs([Query("19335", "x")], QRELS, [PLAIN])


def test_worst_queries() -> None:
    """The lowest first, with the first passages and the missed ones."""
    texts = {"c": "text of c", "b": "text of b"}

    found = worst_queries(evaluated(), PLAIN, QUERIES, QRELS, texts, count=2, depth=3)

    expected = (
        WorstQuery("q3", "three", 0.0, (), (JudgedPassage("e", 2, None, None, None),), 1),
        WorstQuery(
            "q1",
            "one",
            found[1].value,
            (
                JudgedPassage("c", 0, 1, 9.0, "text of c"),
                JudgedPassage("a", 3, 2, 8.0, None),
                JudgedPassage("x", None, 3, 7.0, None),
            ),
            (JudgedPassage("b", 1, 4, 6.0, "text of b"),),
            1,
        ),
    )
    assert expected == found
    assert pytest.approx(NDCG_OF_PLAIN) == found[1].value
    deeper = worst_queries(evaluated(), PLAIN, QUERIES, QRELS, texts, count=2, depth=4)
    assert () == deeper[1].missed  # the passage at rank 4 is among the first 4


def test_run_outside_the_evaluation_has_no_worst_queries() -> None:
    """Its name is in the message."""
    with pytest.raises(UsageError, match="run 'better' is not in the evaluation"):
        worst_queries(evaluated(PLAIN), BETTER, QUERIES, QRELS, {})


@pytest.mark.parametrize(
    ("queries", "qrels", "run", "message"),
    [
        ([*QUERIES, QUERIES[0]], QRELS, PLAIN, "each query needs its own qid, got 'q1' 2 times"),
        (
            QUERIES,
            {"q1": {"a": 0}},
            PLAIN,
            "must have a grade of 1 or more .* got 0",
        ),
        ([], QRELS, PLAIN, "an evaluation must have one query or more, got none"),
        (QUERIES, {"q1": {}}, PLAIN, "none of the 4 queries has judgments"),
        (QUERIES, QRELS, Run("x", {"9": [("a", 1.0)]}), "the run 'x' answers none of the 3 judged"),
    ],
)
def test_s7_nothing_to_measure_is_refused(
    queries: list[Query], qrels: Qrels, run: Run, message: str
) -> None:
    """Instead of a mean of 0."""
    with pytest.raises(UsageError, match=message):
        evaluate_runs(queries, qrels, [run], "RR@10")


def test_s7_run_without_a_judged_passage_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Pids of another form are the usual cause."""
    evaluate_runs(QUERIES, QRELS, [PLAIN, Run("x", {"q1": [("doc-a", 1.0)]})], "RR@10")

    (message,) = caplog.messages
    assert "no passage of the run 'x' is judged: it has pids such as 'doc-a', the" in message

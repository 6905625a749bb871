"""An evaluation as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from msmarco_qdrant.evaluation import Run, evaluate_runs
from msmarco_qdrant.evaluation.tables import (
    evaluation_json,
    evaluation_text,
    p_text,
    queries_text,
    signed_text,
    sweep_json,
    sweep_text,
)
from tests.evaluation.cases import BETTER, PLAIN, QRELS, QUERIES, SWEEP, evaluated


def test_the_table_shows_measures_beside_published_figures() -> None:
    """Two lines a run, the means and their intervals; notes explain the published figures."""
    lines = evaluation_text(evaluated(measures="RR@10 R@2")).splitlines()

    assert (
        "judged queries: 3; 1 without judgments left out; plain has no answer for 1, which count 0"
        == lines[0]
    )
    assert ["run", "RR@10", "R@2", "nDCG@10", "(1)", "nDCG@10", "(2)", "RR@10", "(3)"] == (
        lines[2].split()
    )
    assert lines[3].startswith("plain   0.5000            0.5000            0.4546")
    assert "        [0.0000, 1.0000]  [0.0000, 1.0000]" == lines[4]
    assert ["0.4546", "-", "0.1729"] == lines[3].split()[-3:]
    assert ["0.7051", "0.7345", "0.3808"] == lines[5].split()[-3:]
    assert "(1) published: nDCG@10, TREC DL 2019, reranking the given 1,000" == lines[8]
    assert "(3) published: RR@10, MS MARCO dev, 6,980 queries" == lines[10]


def test_the_table_shows_comparisons() -> None:
    """With signs, counts and both tests, below the name of the run that is compared with."""
    lines = evaluation_text(evaluated(measures="RR@10")).splitlines()
    heading = lines.index("compared with plain:")
    row = lines[heading + 3].split()

    assert ["better", "RR@10", "+0.3333", "[-0.5000,", "+1.0000]", "2/0/1"] == row[:6]
    assert "[ ] 95 % confidence interval of the mean (bootstrap over the queries)" == lines[-2]
    assert (
        "p   of a paired t test and a permutation test, not corrected for their number" == lines[-1]
    )


def test_the_tables_fit_a_terminal() -> None:
    """Three measures, two published columns and long names: 100 columns."""
    runs = [
        Run("bm25-top100.dl19", PLAIN.rankings, "BM25"),
        Run("hybrid reranked", BETTER.rankings),
    ]
    text = evaluation_text(evaluated(*runs, measures="nDCG@10 RR@10 R@100"))

    assert "RR@10 (2)" in text
    assert max(map(len, text.splitlines())) <= 100


def test_one_run_is_not_compared() -> None:
    """No published figures, no comparison: one table."""
    text = evaluation_text(evaluated(Run("x", {}), measures="RR@10"))

    assert "published" not in text
    assert "compared with" not in text
    assert "permutation" not in text


def test_undefined_value_is_a_dash() -> None:
    """A single query has no interval; "nan" is never shown."""
    evaluation = evaluate_runs(QUERIES[:1], QRELS, [PLAIN, BETTER], "RR@10")
    text = evaluation_text(evaluation)

    assert "2 with judgments not among the queries" in text
    assert "plain   0.5000" in text
    assert "        -\n" in text
    assert "+0.5000 -" in text
    assert "nan" not in text.lower()


def test_numbers_are_shown_with_four_decimals() -> None:
    """No zero has a sign of its own, and a p-value is never 0."""
    assert ("+0.0000", "-0.1235") == (signed_text(-0.00001), signed_text(-0.12345678))
    assert ("-", "<0.0001", "0.0500") == (p_text(None), p_text(1e-9), p_text(0.05))


def test_json_holds_everything() -> None:
    """The values of each query too, and null for undefined values."""
    found = json.loads(json.dumps(evaluation_json(evaluated(measures="RR@10")), allow_nan=False))

    counts = {"judged": 3, "unjudged": 1, "unasked": 0, "without_relevant": 0}
    assert counts == found["queries"]
    assert {"judged": 4, "missing": None} == found["relevant_passages"]
    assert ["RR@10"] == found["measures"]
    assert {"q1": 0.5, "q2": 1.0, "q3": 0.0} == found["runs"][0]["values"]["RR@10"]["per_query"]
    assert [0.0, 1.0] == found["runs"][0]["values"]["RR@10"]["interval"]
    assert {
        "measure": "nDCG@10",
        "protocol": "TREC DL 2019, reranking the given 1,000",
        "value": 0.4546,
        "source": "v3",
    } == found["runs"][0]["published"][0]
    (comparison,) = found["comparisons"]
    assert ("better", "plain", 2, 0, 1) == tuple(
        comparison[name] for name in ("run", "baseline", "wins", "ties", "losses")
    )
    single = evaluation_json(evaluate_runs(QUERIES[:1], QRELS, [PLAIN, BETTER], "RR@10"))
    assert single["comparisons"][0]["p_t_test"] is None
    assert single["runs"][0]["values"]["RR@10"]["interval"] is None


def test_no_query_is_blamed_where_all_is_found() -> None:
    """The worst of equals is a dash."""
    perfect = replace(SWEEP.points[0], recall=1.0, worst=1.0)
    lines = sweep_text(replace(SWEEP, points=(perfect,))).splitlines()

    assert ["none", "16", "1.0000", "1.0000", "-", "0.41", "0.60"] == lines[3].split()


def test_a_sweep_is_shown() -> None:
    """A line a point, in both forms."""
    lines = sweep_text(SWEEP).splitlines()

    assert "queries: 1,374; exact search: 21.50 ms per query (median)" == lines[0]
    assert ["none", "16", "0.9700", "0.4000", "q1", "0.41", "0.60"] == lines[3].split()
    assert {
        "setting": "int8",
        "ef": 16,
        "recall": 0.93,
        "worst": 0.3,
        "worst_qid": "q1",
        "median_ms": 0.3,
        "p95_ms": 0.5,
    } == sweep_json(SWEEP)["points"][2]


def test_s7_passages_that_a_collection_lacks_are_counted() -> None:
    """In the line of the queries, which the report shows too."""
    evaluation = replace(evaluated(), missing=2, without_relevant=1)

    assert (
        "judged queries: 3; 1 without judgments left out; 1 without a relevant passage, which "
        "count 0; 2 of 4 relevant passages are not in the collection; plain has no answer for 1, "
        "which count 0"
    ) == queries_text(evaluation)

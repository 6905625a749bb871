"""The verdict: only a paired test on unseen queries switches a model."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.evaluation import evaluate_runs
from msmarco_qdrant.evaluation.records import Evaluation, Run
from msmarco_qdrant.train.improve_records import ImproveRound
from msmarco_qdrant.train.improve_verdict import decide, detectable_difference

QIDS = [f"q{number}" for number in range(60)]
QRELS = {qid: {"yes": 1} for qid in QIDS}
ROUNDS = (ImproveRound(1, "one", 0.5), ImproveRound(2, "two", 0.4))


def _evaluation(*shares: float) -> Evaluation:
    """Runs that find the relevant passage of these shares of the queries."""
    runs = [_run(f"run {number}", share) for number, share in enumerate(shares)]
    queries = [Query(qid, "text") for qid in QIDS]
    return evaluate_runs(queries, QRELS, runs, "nDCG@10")


def _run(name: str, share: float) -> Run:
    found = random.Random(7).sample(QIDS, round(share * len(QIDS)))
    return Run(name, {qid: [("yes" if qid in found else "no", 1.0)] for qid in QIDS})


@pytest.mark.parametrize(
    ("dense", "hybrid", "is_better"),
    [
        ((0.3, 0.6), (0.4, 0.6), True),
        ((0.3, 0.6), (0.4, 0.4), True),
        ((0.3, 0.6), (0.6, 0.3), False),
        ((0.3, 0.32), (0.4, 0.6), False),
        ((0.6, 0.3), (0.4, 0.6), False),
        ((0.3, 0.3), (0.4, 0.4), False),
    ],
)
def test_first_mode_is_better_and_no_other_worse(
    dense: Sequence[float], hybrid: Sequence[float], is_better: bool
) -> None:
    """A gain within chance switches nothing, nor does one that costs another mode."""
    found = decide(ROUNDS[:1], {"dense": _evaluation(*dense), "hybrid": _evaluation(*hybrid)})
    assert found.is_better is is_better
    assert "dense: nDCG@10" in found.reason
    assert "hybrid: nDCG@10" in found.reason


def test_validation_queries_choose_the_round() -> None:
    """Not the test queries: the second round is better there, and is not chosen."""
    found = decide(ROUNDS, {"dense": _evaluation(0.3, 0.6, 0.9)})
    assert found.round == 1
    assert "+0.3000" in found.reason


def test_equal_rounds_choose_the_first() -> None:
    """More training without a gain is not used."""
    rounds = (ImproveRound(1, "one", 0.5), ImproveRound(2, "two", 0.5))
    assert decide(rounds, {"dense": _evaluation(0.3, 0.6, 0.9)}).round == 1


def test_detectable_difference_falls_with_the_queries() -> None:
    """Four times as many queries show half the difference."""
    few, many = ([0.1, -0.1] * count for count in (50, 200))
    assert detectable_difference(few) == pytest.approx(2.802 * 0.1 / 10, rel=0.01)
    assert detectable_difference(many) == pytest.approx(detectable_difference(few) / 2, rel=0.02)
    assert detectable_difference([0.1]) == float("inf")

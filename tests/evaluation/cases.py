"""A small evaluation with values known by hand, for several tests.

Judgments: q1 has a=3, b=1, c=0; q2 has d=1; q3 has e=2. Ideal gains of q1: 3 + 1/log2(3).
"""

from __future__ import annotations

import math
from functools import cache

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.evaluation import Evaluation, Qrels, Run, evaluate_runs
from msmarco_qdrant.evaluation.records import AnnPoint, AnnSweep

QUERIES = [Query("q1", "one"), Query("q2", "two"), Query("q3", "three"), Query("q4", "unjudged")]
QRELS: Qrels = {"q1": {"a": 3, "b": 1, "c": 0}, "q2": {"d": 1}, "q3": {"e": 2}}
# c, a, x, b: gains 0, 3, 0, 1; the first relevant at rank 2
PLAIN = Run(
    "plain",
    {"q1": [("c", 9.0), ("a", 8.0), ("x", 7.0), ("b", 6.0)], "q2": [("d", 1.0)]},
    model="BM25",
)
BETTER = Run(
    "better",
    {"q1": [("a", 0.9), ("b", 0.8)], "q2": [("x", 0.5), ("d", 0.4)], "q3": [("e", 0.1)]},
    model="msmarco-bert-base-dot-v5",
)
NDCG_OF_PLAIN = (3 / math.log2(3) + 1 / math.log2(5)) / (3 + 1 / math.log2(3))
SWEEP = AnnSweep(
    k=10,
    queries=1374,
    exact_ms=21.5,
    points=(
        AnnPoint("none", 16, 0.97, 0.4, "q1", 0.41, 0.6),
        AnnPoint("none", 64, 0.998, 0.8, "q2", 0.83, 1.2),
        AnnPoint("int8", 16, 0.93, 0.3, "q1", 0.3, 0.5),
    ),
)


def evaluated(*runs: Run, measures: str = "nDCG@10 RR@10 R@2") -> Evaluation:
    """The evaluation of these runs, or of both."""
    return evaluate_runs(QUERIES, QRELS, runs, measures) if runs else _evaluate_both(measures)


@cache
def _evaluate_both(measures: str) -> Evaluation:
    return evaluate_runs(QUERIES, QRELS, (PLAIN, BETTER), measures)

"""Decide by paired tests whether a trained model is better than the collection's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from msmarco_qdrant.evaluation.records import Evaluation, RunComparison
from msmarco_qdrant.evaluation.tables import p_text, signed_text
from msmarco_qdrant.train.improve_records import ImproveRound, Verdict

SIGNIFICANT = 0.05
# Two-sided test of 5 %, power of 80 %: the sum of the normal quantiles of 0.975 and 0.8
# (Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.4).
_POWER = 1.960 + 0.842


def decide(rounds: Sequence[ImproveRound], evaluations: Mapping[str, Evaluation]) -> Verdict:
    """Choose a round by the validation queries, and compare it over the test queries.

    The permutation test decides. The first mode must be better with p below 0.05, and no other
    mode worse with p below 0.05.

    Args:
        rounds: The trained models.
        evaluations: By mode, the first one first; the runs are the old model and then each round.
    """
    chosen = max(rounds, key=lambda one: (one.validation, -one.number))
    compared = {mode: _comparison(one, chosen.number) for mode, one in evaluations.items()}
    first, *others = compared.values()
    is_better = _is_significant(first) and first.mean_difference > 0
    is_worse = any(_is_significant(one) and one.mean_difference < 0 for one in others)
    return Verdict(
        round=chosen.number,
        is_better=is_better and not is_worse,
        reason="; ".join(_text(mode, one) for mode, one in compared.items()),
        detectable=detectable_difference([*first.differences.values()]),
    )


def detectable_difference(differences: Sequence[float]) -> float:
    """Return the mean difference that a paired test of so many queries finds four times of five."""
    if len(differences) < 2:
        return math.inf
    return _POWER * stdev(differences, fmean(differences)) / math.sqrt(len(differences))


def _comparison(evaluation: Evaluation, number: int) -> RunComparison:
    """Return the comparison of a round with the old model, by the first measure."""
    name, measure = evaluation.runs[number].name, evaluation.measures[0]
    return next(one for one in evaluation.comparisons if (one.run, one.measure) == (name, measure))


def _is_significant(one: RunComparison) -> bool:
    return one.test.permutation is not None and one.test.permutation < SIGNIFICANT


def _text(mode: str, one: RunComparison) -> str:
    word = "not significant"
    if _is_significant(one):
        word = "better" if one.mean_difference > 0 else "worse"
    figures = f"{signed_text(one.mean_difference)}, p {p_text(one.test.permutation)}"
    return f"{mode}: {one.measure} {figures} ({word})"

"""Intervals and paired tests: known values, edges, and the same result every time."""

from __future__ import annotations

import math

import pytest

from msmarco_qdrant.evaluation.records import Interval, PairedTest
from msmarco_qdrant.evaluation.statistics import RESAMPLES, mean_interval, paired_test
from msmarco_qdrant.evaluation.tables import p_text

VALUES = [((place * 37) % 101) / 100 for place in range(60)]  # spread over 0 to 1


def test_an_interval_is_near_the_normal_one() -> None:
    """For 60 values the bootstrap gives about the mean and 1.96 standard errors to each side."""
    mean = sum(VALUES) / len(VALUES)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in VALUES) / len(VALUES))
    error = 1.96 * deviation / math.sqrt(len(VALUES))

    found = mean_interval(VALUES)

    assert found is not None
    assert pytest.approx((mean - error, mean + error), abs=0.006) == tuple(found)
    assert found == mean_interval(VALUES)


def test_an_interval_keeps_within_the_values() -> None:
    """Where the normal one would go beyond 1."""
    found = mean_interval([1.0] * 9 + [0.0])

    assert found is not None
    assert 0.0 <= found.low < 0.9 < found.high <= 1.0


def test_intervals_at_the_edges() -> None:
    """None for one value; equal values have no spread."""
    assert mean_interval([]) is None
    assert mean_interval([0.5]) is None
    assert Interval(0.5, 0.5) == mean_interval([0.5, 0.5, 0.5])


def test_both_tests_have_known_values() -> None:
    """By hand: t = 2.5 / (sqrt(5/3) / 2) = 3.873 at 3 degrees; 2 of 16 signs are as extreme."""
    found = paired_test([1.0, 2.0, 3.0, 4.0])

    assert found.t_test == pytest.approx(0.0305, abs=1e-4)
    assert found.permutation == pytest.approx(2 / 16)


def test_the_tests_agree_on_many_queries() -> None:
    """As Smucker et al. (CIKM 2007) found; and give the same every time."""
    differences = [value - 0.42 for value in VALUES]

    found = paired_test(differences)

    assert found.t_test is not None
    assert pytest.approx(found.t_test, abs=0.02) == found.permutation
    assert found == paired_test(differences)


def test_ties_change_the_t_test_alone() -> None:
    """A query on which both are equal has no sign to change."""
    few, many = paired_test([1.0, 2.0, 3.0, 4.0]), paired_test([1.0, 0.0, 2.0, 3.0, 4.0, 0.0])

    assert few.permutation == many.permutation
    assert few.t_test != many.t_test


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.0, 0.0, 0.0], PairedTest(1.0, 1.0)),
        ([0.0], PairedTest(1.0, 1.0)),
        ([0.25], PairedTest(None, None)),
        ([0.0, 0.25], PairedTest(0.5, 1.0)),
        ([0.3 - 0.2, 0.2 - 0.1, 0.1], PairedTest(None, 0.25)),
    ],
    ids=["equal", "one-equal", "one", "one-differs", "constant"],
)
def test_tests_at_the_edges(differences: list[float], expected: PairedTest) -> None:
    """Never a number that is none, and no warning."""
    found = paired_test(differences)

    assert pytest.approx(expected) == found


def test_the_smallest_p_values() -> None:
    """Of drawn signs 2 in 10,000, as both tails count; a t test's has no end."""
    found = paired_test([1.0 + value for value in VALUES])

    assert found.t_test is not None
    assert ("0.0002", "<0.0001") == (p_text(found.permutation), p_text(found.t_test))
    assert pytest.approx(2 / (RESAMPLES + 1)) == found.permutation

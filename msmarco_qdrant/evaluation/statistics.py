"""The adapter of SciPy: how sure a mean is, and whether two runs differ by more than chance.

Two tests of paired differences are reported side by side. Student's paired t test is the usual
one in information retrieval; the randomization (permutation) test assumes nothing of how the
differences are distributed. Smucker, Allan and Carterette (CIKM 2007, "A comparison of
statistical significance tests for information retrieval evaluation") found that both and the
bootstrap agree on TREC's runs, and advise against Wilcoxon's and the sign test, so neither of
these is here. Where the two disagree, believe the permutation test.

Everything that draws numbers is seeded: the same values give the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.errors import MissingExtraError
from msmarco_qdrant.evaluation.records import Interval, PairedTest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 9999  # with the sample itself 10,000, of two sides: the smallest p-value is 0.0002
_SEED = 2007
_AT_ONCE = 500  # resamples in memory


def mean_interval(values: Sequence[float]) -> Interval | None:
    """A 95 % confidence interval of the mean, by the percentile bootstrap.

    It resamples the queries 9,999 times (Efron and Tibshirani 1993, chapter 13): unlike mean plus
    or minus twice the standard error it does not leave the range of the values.

    Args:
        values: One a query.

    Returns:
        None for fewer than two values: one query says nothing of the spread.

    Raises:
        MissingExtraError: Without the extra `eval`.
    """
    if len(values) < 2:
        return None
    import numpy as np

    found = (
        _stats()
        .bootstrap(
            (np.asarray(values, np.float64),),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            batch=_AT_ONCE,
            rng=np.random.default_rng(_SEED),
        )
        .confidence_interval
    )
    return Interval(float(found.low), float(found.high))


def paired_test(differences: Sequence[float]) -> PairedTest:
    """How probable differences as large as these are between two runs that are alike.

    Two-sided. Nothing is corrected for the number of comparisons made.

    Args:
        differences: One a query, of the same measure of two runs.

    Returns:
        1 for both where all differences are zero.

    Raises:
        MissingExtraError: Without the extra `eval`.
    """
    import numpy as np

    values = np.asarray(differences, np.float64)
    if not values.any():
        return PairedTest(1.0, 1.0)
    if len(values) < 2:
        return PairedTest(None, None)
    return PairedTest(_t_test(values), _permutation_test(values))


def _t_test(values: NDArray[np.float64]) -> float | None:
    """None where the differences do not vary but by rounding: t would be infinite."""
    if float(abs(values - values[0]).max()) <= 1e-12 * float(abs(values).max()):
        return None
    return float(_stats().ttest_1samp(values, 0.0).pvalue)


def _permutation_test(values: NDArray[np.float64]) -> float:
    """Each difference keeps or changes its sign; exact where there are few ways to do so.

    Where there are many, 9,999 are drawn and the sample itself is counted as one more (Phipson and
    Smyth 2010); SciPy doubles the p of the smaller tail. So it is 2/10,000 at least.

    Zeros are left out: their sign changes nothing, and most queries may be ties.
    """
    import numpy as np

    values = values[values != 0]
    if len(values) < 2:
        return 1.0  # with one sign or the other, the mean is as large

    def mean(sample: Any, axis: int) -> Any:
        return sample.mean(axis=axis)

    found = _stats().permutation_test(
        (values,),
        mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_AT_ONCE,
        rng=np.random.default_rng(_SEED),
    )
    return float(found.pvalue)


def _stats() -> Any:
    try:
        from scipy import stats
    except ModuleNotFoundError as exc:
        raise MissingExtraError("evaluating", "eval") from exc
    return stats

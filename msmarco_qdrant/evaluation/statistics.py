"""Adapter of SciPy: confidence intervals of means, and paired significance tests.

Reports have two tests of paired differences. Student's paired t test is the usual one in
information retrieval; the randomization (permutation) test does not assume a distribution of the
differences. Smucker, Allan and Carterette (CIKM 2007, "A comparison of statistical significance
tests for information retrieval evaluation") found that both and the bootstrap agree on TREC's runs.
They advise against Wilcoxon's test and the sign test, which are not offered. If the two disagree,
trust the permutation test.

All random numbers are seeded: the same values give the same figures.
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
_BATCH_RESAMPLES = 500  # resamples in memory


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Compute a 95 % confidence interval of the mean by the percentile bootstrap.

    It resamples the queries 9,999 times (Efron and Tibshirani 1993, chapter 13). Unlike the mean
    plus or minus two standard errors, it stays within the range of the values. It is None for
    fewer than two values.

    Raises:
        MissingExtraError: Without the extra `eval`.
    """
    if len(values) < 2:
        return None
    import numpy as np

    found = _stats().bootstrap(
        (np.asarray(values, np.float64),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=_BATCH_RESAMPLES,
        rng=np.random.default_rng(_SEED),
    )
    return Interval(*map(float, found.confidence_interval))


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Compute two-sided p-values of the hypothesis that two runs do not differ.

    They are not corrected for the number of comparisons, and 1 if all differences are zero.

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
    """Return None if the differences vary only by rounding: t would be infinite."""
    if float(abs(values - values[0]).max()) <= 1e-12 * float(abs(values).max()):
        return None
    return float(_stats().ttest_1samp(values, 0.0).pvalue)


def _permutation_test(values: NDArray[np.float64]) -> float:
    """Flip the signs of the differences: all combinations, or 9,999 random ones if there are more.

    The sample itself counts as one more (Phipson and Smyth 2010), and SciPy doubles the p-value of
    the smaller tail, so a drawn p-value is at least 2/10,000. Zeros are left out: flipping them
    changes nothing, and most queries may be ties.
    """
    import numpy as np

    values = values[values != 0]
    if len(values) < 2:
        return 1.0  # the absolute mean is the same with both signs

    def mean(sample: Any, axis: int) -> Any:
        return sample.mean(axis=axis)

    found = _stats().permutation_test(
        (values,),
        mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_BATCH_RESAMPLES,
        rng=np.random.default_rng(_SEED),
    )
    return float(found.pvalue)


def _stats() -> Any:
    try:
        from scipy import stats
    except ModuleNotFoundError as exc:
        raise MissingExtraError("evaluating", "eval") from exc
    return stats

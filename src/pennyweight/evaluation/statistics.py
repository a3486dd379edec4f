"""Statistics of results: over seeds, of several comparisons, and what a comparison could detect.

Tests of two runs on the same rows are in `paired_tests`, and the difference of two systems of
several runs in `differences`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

__all__ = ["ALPHA", "POWER", "detectable_difference", "holm", "mean_interval", "paired_p"]

# A difference is called significant below this adjusted p-value.
ALPHA = 0.05
# The probability with which a detectable difference is found.
POWER = 0.8
_ROUNDING = 1e-12


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's 95% t interval of the mean, or None for fewer than three values.

    The interval of two values is 12.7 times as wide as their standard error, and says nothing.

    Args:
        values: one figure per seed.
    """
    if len(values) < 3:
        return None
    mean = float(np.mean(values))
    if np.ptp(values) == 0.0:
        # Scipy gives NaN for a distribution without spread.
        return mean, mean
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
    return float(low), float(high)


def paired_p(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the two-sided p-value of the paired t-test over the same seeds.

    None if the test is undefined: there are fewer than two pairs, or all differences are the
    same and not zero.

    Raises:
        ValueError: the two have different lengths.
    """
    differences = np.array([a - b for a, b in zip(first, second, strict=True)])
    if len(differences) < 2:
        return None
    # Differences that are equal in exact arithmetic may differ by rounding.
    if np.ptp(differences) < _ROUNDING:
        return 1.0 if abs(differences[0]) < _ROUNDING else None
    return float(stats.ttest_rel(first, second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of several comparisons, adjusted by Holm's step-down method (1979).

    Declaring those below 0.05 significant keeps the probability of any false discovery among the
    comparisons below 5%, whatever the dependence between them. Holm, S. 1979. "A Simple
    Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6(2).
    For comparisons in language processing: Dror et al. 2018, "The Hitchhiker's Guide to Testing
    Statistical Significance in Natural Language Processing", doi:10.18653/v1/P18-1128.

    Args:
        p_values: one per comparison, in any order; the result has the same order.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.maximum.accumulate(values[order] * factors)
    return [min(1.0, float(value)) for value in adjusted]


def detectable_difference(
    standard_error: float,
    *,
    degrees_of_freedom: float = np.inf,
    comparisons: int = 1,
    rows: int | None = None,
) -> float:
    """Return the smallest true difference that the comparison would find in 4 of 5 repetitions.

    A test at the 5% level, divided by the number of comparisons as in the strictest step of Holm's
    method, finds it with a power of 80%: (t(1 - alpha/2) + t(0.8)) times the standard error. A
    comparison whose detectable difference is larger than the differences to be expected says
    nothing if it finds none (Card et al. 2020, "With Little Power Comes Great Responsibility",
    doi:10.18653/v1/2020.emnlp-main.745).

    Args:
        standard_error: of the difference, as observed.
        degrees_of_freedom: of the standard error.
        comparisons: number of comparisons that are corrected together.
        rows: number of rows, for the accuracies of two runs. These can differ by d only if the
            runs differ on a share of at least d of the rows, which makes the variance at least
            (d - d^2) / rows, also where the runs that were observed hardly differ.
    """
    t = stats.t(degrees_of_freedom)
    errors = float(t.ppf(1.0 - ALPHA / comparisons / 2.0) + t.ppf(POWER))
    smallest = 0.0 if rows is None else errors**2 / (rows + errors**2)
    return max(errors * standard_error, smallest)

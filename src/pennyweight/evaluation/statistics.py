"""Statistics: the interval of a mean over seeds, and paired comparisons of two systems."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

__all__ = ["mcnemar_p", "mean_interval", "paired_p"]


def mcnemar_p(only_one: int, only_other: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (1947) on the same rows.

    Args:
        only_one: number of rows that only the first of two systems answers correctly.
        only_other: number of rows that only the second answers correctly.
    """
    differing = only_one + only_other
    return float(stats.binomtest(only_one, differing).pvalue) if differing else 1.0


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
    if np.ptp(differences) == 0.0:
        return 1.0 if differences[0] == 0.0 else None
    return float(stats.ttest_rel(first, second).pvalue)

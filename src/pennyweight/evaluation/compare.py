"""Several seeds in one figure, and whether two systems differ over the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

__all__ = ["mean_interval", "paired_p"]


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * error
    return mean - half, mean + half


def paired_p(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Two-sided p of the paired t-test; None where it says nothing (one pair, or no spread).

    Raises:
        ValueError: the two do not hold as many values.
    """
    differences = np.subtract(one, other)
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0.0:
        return 1.0 if differences[0] == 0.0 else None
    return float(stats.ttest_rel(one, other).pvalue)

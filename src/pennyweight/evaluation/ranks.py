"""Compare systems over several data sets by their ranks, as Demšar recommends.

Demšar, J. 2006. "Statistical Comparisons of Classifiers over Multiple Data Sets", Journal of
Machine Learning Research 7, jmlr.org/papers/v7/demsar06a.html.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pennyweight.evaluation.statistics import ALPHA

__all__ = ["RankTest", "compare_ranks"]


@dataclass(frozen=True, slots=True)
class RankTest:
    """Ranks of systems over data sets; rank 1 is the best.

    Attributes:
        ranks: of each system on each data set; systems that are equally good share the mean of
            their ranks.
        mean_ranks: mean of each system's ranks.
        critical_difference: systems whose mean ranks differ by at least this much differ
            significantly, by Nemenyi's test at the 5% level.
        chi_square: Friedman's statistic, corrected for ties; None for fewer than three systems, or
            if all are equally good everywhere.
        friedman_p: its p-value, which is conservative with few data sets.
        p: the p-value of Iman and Davenport's F, which is derived from it and less conservative.
    """

    ranks: tuple[tuple[float, ...], ...]
    mean_ranks: tuple[float, ...]
    critical_difference: float
    chi_square: float | None
    friedman_p: float | None
    p: float | None


def compare_ranks(values: Sequence[Sequence[float]]) -> RankTest:
    """Rank systems on each data set, and test whether their mean ranks differ.

    With k systems and N data sets, Nemenyi's critical difference is q sqrt(k (k + 1) / (6 N)),
    where q is the 95% point of the studentized range of k groups divided by sqrt(2), and Iman and
    Davenport's F is (N - 1) chi² / (N (k - 1) - chi²) with k - 1 and (k - 1) (N - 1) degrees of
    freedom.

    Args:
        values: a figure of each system on each data set, larger ones being better; shape
            [systems, data sets].

    Raises:
        ValueError: there are fewer than two systems or data sets.
    """
    table = np.asarray(values, dtype=np.float64)
    systems, sets = table.shape
    if systems < 2 or sets < 2:
        raise ValueError("ranks need at least two systems and two data sets")
    ranks = stats.rankdata(-table, axis=0)
    quantile = float(stats.studentized_range.ppf(1.0 - ALPHA, systems, np.inf)) / math.sqrt(2.0)
    chi_square = friedman_p = p = None
    if systems > 2 and np.ptp(ranks) > 0.0:
        test = stats.friedmanchisquare(*table)
        chi_square, friedman_p = float(test.statistic), float(test.pvalue)
        rest = sets * (systems - 1) - chi_square
        # Without a rest, all data sets agree on the order.
        f = (sets - 1) * chi_square / rest if rest > 1e-9 else math.inf
        p = float(stats.f.sf(f, systems - 1, (systems - 1) * (sets - 1)))
    return RankTest(
        ranks=tuple(tuple(map(float, row)) for row in ranks),
        mean_ranks=tuple(map(float, ranks.mean(axis=1))),
        critical_difference=quantile * math.sqrt(systems * (systems + 1) / (6.0 * sets)),
        chi_square=chi_square,
        friedman_p=friedman_p,
        p=p,
    )

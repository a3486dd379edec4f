"""Tests of two single runs on the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, binomtest

from pennyweight.evaluation.answers import AnsweredRows

__all__ = ["McNemar", "mcnemar", "randomization_p"]

# Differences that are equal in exact arithmetic may differ by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test of two runs on the same rows.

    Attributes:
        rows: number of rows.
        only_one: rows that only the first run answers correctly.
        only_other: rows that only the second run answers correctly.
        p: two-sided mid-p-value that both runs are equally accurate.
        exact_p: two-sided exact p-value, which is never below the mid-p-value.
    """

    rows: int
    only_one: int
    only_other: int
    p: float
    exact_p: float


def mcnemar(one: np.ndarray, other: np.ndarray) -> McNemar:
    """Return McNemar's test (1947, doi:10.1007/BF02295996) of two runs on the same rows.

    Only rows that one run alone answers correctly tell the runs apart; if both are equally
    accurate, either has half of these. Of the tests that compare classifiers trained once, this
    one has an acceptable rate of false alarms (Dietterich 1998, doi:10.1162/089976698300017197).
    The exact test is conservative; the mid-p-value, which counts half of the probability of the
    observed outcome, keeps close to the nominal level (Fagerland et al. 2013,
    doi:10.1186/1471-2288-13-91).

    Args:
        one: bool `[rows]`, whether the first run answers a row correctly.
        other: the same of the second run.
    """
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    differing = only_one + only_other
    if differing == 0:
        return McNemar(len(one), 0, 0, 1.0, 1.0)
    exact = float(binomtest(only_one, differing).pvalue)
    # With equal counts, the exact p-value is 1 and its half of the outcome is counted once.
    twice = 2.0 if only_one != only_other else 1.0
    observed = float(binom.pmf(only_one, differing, 0.5))
    return McNemar(len(one), only_one, only_other, exact - twice * observed / 2.0, exact)


def randomization_p(
    answers: AnsweredRows, *, resamples: int, generator: np.random.Generator
) -> float:
    """Return the two-sided p-value of the approximate randomization test of two runs.

    It works for any metric: the answers of both runs are swapped on random rows, and p is the
    share of such swaps whose difference is at least the observed one (Noreen 1989, "Computer
    Intensive Methods for Testing Hypotheses"; Dror et al. 2018, doi:10.18653/v1/P18-1128). With
    accuracy as the metric, this is McNemar's exact test.

    Args:
        answers: of two runs.
        resamples: number of swaps; the smallest p is 1 / (resamples + 1).
        generator: draws the swaps.
    """
    first, second = answers.scores()
    differences = answers.swapped_differences(resamples, generator=generator)
    as_large = np.abs(differences) >= abs(second - first) - _ROUNDING
    return float((as_large.sum() + 1) / (resamples + 1))

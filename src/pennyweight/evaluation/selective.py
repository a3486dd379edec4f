"""Selective classification: what is gained by giving no answer where the confidence is low.

El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification"; Geifman &
El-Yaniv 2017, arXiv:1705.08500.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CoveragePoint", "area_under_risk", "coverage_curve", "point_at", "threshold_at"]

# Coverages at which a curve is recorded: 2%, 4%, ..., 100%.
_POINTS = 50


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """One point of a coverage-accuracy curve; all values are in 0..1.

    Attributes:
        coverage: share of the rows that are answered: those with the highest confidence.
        accuracy: of the answered rows.
        confidence: lowest confidence of an answered row, which is the threshold.
    """

    coverage: float
    accuracy: float
    confidence: float


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> tuple[CoveragePoint, ...]:
    """Return accuracy and threshold by rising coverage, at most 50 points; the last one is 1.

    Rows of equal confidence are answered together, so that a threshold gives exactly its point.

    Args:
        confidence: float `[rows]`, at least one row.
        correct: bool `[rows]`.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, right = confidence[order], np.cumsum(correct[order])
    last_of_equals = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True)) + 1
    requested = np.ceil(np.arange(1, _POINTS + 1) / _POINTS * len(ranked) - 1e-9).astype(int)
    answered = np.unique(last_of_equals[np.searchsorted(last_of_equals, requested)])
    return tuple(
        CoveragePoint(
            coverage=float(rows / len(ranked)),
            accuracy=float(right[rows - 1] / rows),
            confidence=float(ranked[rows - 1]),
        )
        for rows in answered.tolist()
    )


def area_under_risk(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return the area under the risk-coverage curve: the mean error rate over all coverages.

    0 for a classifier without mistakes. A classifier whose confidence says nothing about its
    mistakes has its error rate, and one that ranks them last has less.

    Args:
        confidence: float `[rows]`, at least one row; rows of equal confidence count alike.
        correct: bool `[rows]`.
    """
    _, group, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    # Equal rows have no order, so each is taken as wrong by the mean of its group.
    wrong = np.bincount(group, weights=~correct.astype(bool)) / sizes
    errors = np.cumsum(np.repeat(wrong, sizes))
    return float((errors / np.arange(1, len(errors) + 1)).mean())


def point_at(curve: Sequence[CoveragePoint], confidence: float) -> CoveragePoint | None:
    """Return the last point of a curve whose rows all have at least a confidence, if any has."""
    return next((each for each in reversed(curve) if each.confidence >= confidence), None)


def threshold_at(curve: Sequence[CoveragePoint], coverage: float) -> float:
    """Return the confidence from which a share of the rows is answered.

    Between two recorded points it is interpolated.

    Args:
        curve: from `coverage_curve`.
        coverage: share of the rows to answer, above 0 and at most 1; with 1, it is 0.
    """
    if coverage >= 1.0:
        return 0.0
    return float(
        np.interp(coverage, [each.coverage for each in curve], [each.confidence for each in curve])
    )

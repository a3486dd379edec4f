"""Calibration: how far confidence and accuracy differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Bin",
    "bins_of",
    "calibration_error",
    "expected_calibration_error",
    "reliability_diagram",
]


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram: mean confidence and accuracy of its rows, in 0..1.

    For a multi-label task: the mean probability of the bin's decisions, the share of them whose row
    has the class, and their number.
    """

    confidence: float
    accuracy: float
    rows: int


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int
) -> float:
    """Return the mean gap between confidence and accuracy over equal-width confidence bins.

    Guo et al. 2017, arXiv:1706.04599.

    Args:
        probabilities: float `[rows, classes]`.
        labels: int `[rows]`.
        bins: number of bins between confidence 0 and 1.
    """
    return calibration_error(reliability_diagram(probabilities, labels, bins=bins))


def calibration_error(diagram: Sequence[Bin]) -> float:
    """Return the mean gap between confidence and accuracy, weighted by the rows of each bin."""
    gaps = sum(abs(each.confidence - each.accuracy) * each.rows for each in diagram)
    return gaps / sum(each.rows for each in diagram)


def reliability_diagram(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int
) -> tuple[Bin, ...]:
    """Return the non-empty bins of the reliability diagram, by rising confidence."""
    return bins_of(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins=bins)


def bins_of(confidence: np.ndarray, correct: np.ndarray, *, bins: int) -> tuple[Bin, ...]:
    """Return the non-empty bins of equal width of some confidences, both `[values]`."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    diagram = []
    for index in np.unique(bin_of):
        inside = bin_of == index
        mean, accuracy = float(confidence[inside].mean()), float(correct[inside].mean())
        diagram.append(Bin(mean, accuracy, int(inside.sum())))
    return tuple(diagram)

"""Calibration: how far confidence and accuracy differ, and the temperature that corrects it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "FEWEST_MISTAKES",
    "Bin",
    "bins_of",
    "calibration_error",
    "fit_temperature",
    "reliability_diagram",
    "temperature_of",
]

# With fewer wrong answers, the rows hardly show how confident wrong answers are: without any, every
# temperature is too high.
FEWEST_MISTAKES = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram: mean confidence and accuracy of its rows, in 0..1.

    For a multi-label task: the mean probability of the bin's decisions, the share of them whose row
    has the class, and their number.
    """

    confidence: float
    accuracy: float
    rows: int


def calibration_error(diagram: Sequence[Bin]) -> float:
    """Return the mean gap between confidence and accuracy, weighted by the rows of each bin.

    Guo et al. 2017, arXiv:1706.04599.
    """
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


def temperature_of(
    logits: np.ndarray, labels: np.ndarray, *, offsets: np.ndarray | None = None
) -> float:
    """Return the temperature that maximizes the likelihood of labelled rows.

    Guo et al. 2017, arXiv:1706.04599. The temperature lies between exp(-3) and exp(3).

    Args:
        logits: float `[rows, classes]`.
        labels: int `[rows]`.
        offsets: added to the scaled logits, float `[classes]`, such as for the shares of the rows'
            classes where the classifier has learned from others; None for none.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    added = 0.0 if offsets is None else offsets

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature) + added, axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    optimum = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded")
    return float(np.exp(optimum.x))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the temperature of `temperature_of`; None if fewer than 10 answers are wrong.

    Args:
        logits: float `[rows, classes]`.
        labels: int `[rows]`.
    """
    if int((logits.argmax(axis=1) != labels).sum()) < FEWEST_MISTAKES:
        return None
    return temperature_of(logits, labels)

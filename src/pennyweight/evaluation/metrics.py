"""How good a classifier is on labelled rows, with an interval and its calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax
from scipy.stats import norm
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

__all__ = [
    "Bin",
    "ClassMetrics",
    "Metrics",
    "expected_calibration_error",
    "measure",
    "wilson_interval",
]


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class; all fractions in 0..1."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose confidence lies in one bin of a reliability diagram; means in 0..1."""

    confidence: float
    accuracy: float
    rows: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """A classifier on one labelled set.

    Attributes:
        rows: number of rows.
        accuracy: share of rows whose most probable class is the label.
        accuracy_interval: its 95 % Wilson score interval.
        macro_f1: mean of the classes' F1.
        nll: mean negative log-likelihood of the label, in nats.
        brier: mean squared distance of the probabilities from the label's one-hot vector (0..2).
        ece: expected calibration error over equal-width bins of confidence.
        classes: per class.
        confusion: `[label][predicted]` counts.
        reliability: the bins of the calibration error that have rows.
    """

    rows: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    nll: float
    brier: float
    ece: float
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[Bin, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the record and `--json`."""
        return asdict(self)

    def scalars(self) -> dict[str, float]:
        """The metrics that a run can be steered by."""
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "nll": self.nll,
            "brier": self.brier,
            "ece": self.ece,
        }


def measure(
    logits: np.ndarray, labels: np.ndarray, *, names: Sequence[str], bins: int = 15
) -> Metrics:
    """All metrics of logits, float `[rows, classes]`, against labels, int `[rows]`.

    Raises:
        ValueError: there are no rows, or a label is not in 0..classes-1.
    """
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(names):
        raise ValueError("metrics need at least one row, and a label from 0 for each")
    classes = list(range(len(names)))
    probabilities = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = logits.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0.0
    )
    hits = int((predicted == labels).sum())
    return Metrics(
        rows=len(labels),
        accuracy=float(accuracy_score(labels, predicted)),
        accuracy_interval=wilson_interval(hits, len(labels)),
        macro_f1=float(
            f1_score(labels, predicted, labels=classes, average="macro", zero_division=0.0)
        ),
        nll=float(log_loss(labels, probabilities, labels=classes)),
        brier=float(brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)),
        ece=expected_calibration_error(probabilities, labels, bins=bins),
        classes=tuple(
            ClassMetrics(name, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
            for i, name in enumerate(names)
        ),
        confusion=tuple(
            tuple(int(n) for n in row)
            for row in confusion_matrix(labels, predicted, labels=classes)
        ),
        reliability=_reliability(probabilities, labels, bins=bins),
    )


def wilson_interval(hits: int, rows: int, *, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    z = float(norm.ppf(0.5 + level / 2))
    p = hits / rows
    scale = 1 + z * z / rows
    centre = (p + z * z / (2 * rows)) / scale
    half = z * math.sqrt(p * (1 - p) / rows + z * z / (4 * rows * rows)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int
) -> float:
    """Mean gap of confidence and accuracy over equal-width bins (Guo et al. 2017)."""
    found = _reliability(probabilities, labels, bins=bins)
    return sum(abs(b.confidence - b.accuracy) * b.rows for b in found) / len(labels)


def _reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int) -> tuple[Bin, ...]:
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    found = []
    for index in np.unique(bin_of):
        inside = bin_of == index
        mean, share = float(confidence[inside].mean()), float(right[inside].mean())
        found.append(Bin(mean, share, int(inside.sum())))
    return tuple(found)

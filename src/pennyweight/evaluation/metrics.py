"""Classification metrics with a confidence interval and calibration.

Run records hold `Metrics` and are read by commands that must start quickly, so scipy and
scikit-learn are imported inside the functions that compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

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
    """Metrics of one class; all fractions are in 0..1."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram: mean confidence and accuracy of its rows, in 0..1."""

    confidence: float
    accuracy: float
    rows: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics of a classifier on one labelled set.

    Attributes:
        rows: number of rows.
        accuracy: fraction of rows whose most probable class is the label.
        accuracy_interval: 95% Wilson score interval of the accuracy.
        macro_f1: mean F1 over the classes.
        nll: mean negative log-likelihood of the label, in nats.
        brier: mean squared distance between the probabilities and the one-hot label (0..2).
        ece: expected calibration error over equal-width confidence bins.
        classes: metrics of each class.
        confusion: row counts, `[label][predicted]`.
        reliability: the non-empty bins behind the calibration error.
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
        """Return the metrics as plain values, for `--json` output."""
        return asdict(self)

    def scalars(self) -> dict[str, float]:
        """Return the metrics that can select a checkpoint or stop training."""
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
    """Compute all metrics of a classifier's logits against the labels.

    Args:
        logits: float `[rows, classes]`.
        labels: int `[rows]`, each in 0..classes-1.
        names: class names, `[classes]`.
        bins: number of confidence bins of the calibration error.

    Raises:
        ValueError: there are no rows, or a label is outside 0..classes-1.
    """
    from scipy.special import log_softmax
    from sklearn import metrics as sk

    if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(
            f"metrics need at least one row, and labels from 0 to {len(names) - 1} only"
        )
    classes = list(range(len(names)))
    probabilities = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = logits.argmax(axis=1)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0.0
    )
    brier = sk.brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)
    macro_f1 = sk.f1_score(labels, predicted, labels=classes, average="macro", zero_division=0.0)
    return Metrics(
        rows=len(labels),
        accuracy=float(sk.accuracy_score(labels, predicted)),
        accuracy_interval=wilson_interval(int((predicted == labels).sum()), len(labels)),
        macro_f1=float(macro_f1),
        nll=float(sk.log_loss(labels, probabilities, labels=classes)),
        brier=float(brier),
        ece=expected_calibration_error(probabilities, labels, bins=bins),
        classes=tuple(
            ClassMetrics(name, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
            for i, name in enumerate(names)
        ),
        confusion=tuple(
            tuple(int(count) for count in row)
            for row in sk.confusion_matrix(labels, predicted, labels=classes)
        ),
        reliability=_reliability(probabilities, labels, bins=bins),
    )


def wilson_interval(hits: int, rows: int) -> tuple[float, float]:
    """Return the 95% score interval of a proportion (Wilson 1927).

    doi:10.1080/01621459.1927.10502953.

    Args:
        hits: number of successes.
        rows: number of trials, at least 1.
    """
    from scipy.stats import binomtest

    interval = binomtest(hits, rows).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


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
    diagram = _reliability(probabilities, labels, bins=bins)
    return sum(abs(b.confidence - b.accuracy) * b.rows for b in diagram) / len(labels)


def _reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int) -> tuple[Bin, ...]:
    """Return the non-empty bins of the reliability diagram, by rising confidence."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    diagram = []
    for index in np.unique(bin_of):
        inside = bin_of == index
        mean, accuracy = float(confidence[inside].mean()), float(correct[inside].mean())
        diagram.append(Bin(mean, accuracy, int(inside.sum())))
    return tuple(diagram)

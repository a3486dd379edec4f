"""Classification metrics with a confidence interval and calibration.

Run records hold `Metrics` and are read by commands that must start quickly, so scipy and
scikit-learn are imported inside the functions that compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pennyweight.evaluation.calibration import Bin, calibration_error, reliability_diagram
from pennyweight.evaluation.intervals import (
    RESAMPLES,
    Headline,
    Interval,
    macro_f1_interval,
    wilson_interval,
)
from pennyweight.evaluation.multi_label import (
    LabelMetrics,
    MultiLabelMetrics,
    measure_multi_label,
)
from pennyweight.evaluation.selective import CoveragePoint, area_under_risk, coverage_curve

__all__ = [
    "EVEN_RATIO",
    "AnyMetrics",
    "Bin",
    "ClassMetrics",
    "CoveragePoint",
    "Headline",
    "LabelMetrics",
    "Metrics",
    "MultiLabelMetrics",
    "headline_in",
    "measure",
]

# Classes are uneven if the largest has more than this many times the rows of the smallest.
EVEN_RATIO = 3.0


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Metrics of one class; all fractions are in 0..1."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics of a classifier on one labelled set.

    Attributes:
        rows: number of rows.
        accuracy: fraction of rows whose most probable class is the label.
        accuracy_interval: 95% Wilson score interval of the accuracy.
        macro_f1: mean F1 over the classes that any row has as its label or as an answer.
        nll: mean negative log-likelihood of the label, in nats.
        brier: mean squared distance between the probabilities and the one-hot label (0..2).
        ece: expected calibration error over equal-width confidence bins.
        classes: metrics of each class.
        confusion: row counts, `[label][predicted]`.
        reliability: the non-empty bins behind the calibration error.
        macro_f1_interval: 95% bootstrap interval of the macro-F1; None in older records.
        coverage: accuracy where only the rows with the highest confidence are answered, by rising
            coverage; empty in older records.
        aurc: area under the risk-coverage curve: the mean error rate over all coverages; None in
            older records.
    """

    rows: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    nll: float
    brier: float
    ece: float
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[Bin, ...] = ()
    macro_f1_interval: Interval | None = None
    coverage: tuple[CoveragePoint, ...] = ()
    aurc: float | None = None

    @property
    def has_uneven_classes(self) -> bool:
        """Whether the largest class has more than 3 times the rows of the smallest with any."""
        sizes = [entry.rows for entry in self.classes if entry.rows]
        return max(sizes) > EVEN_RATIO * min(sizes)

    @property
    def headline(self) -> Headline:
        """The figure to show first: accuracy, or macro-F1 where the classes are uneven.

        With uneven classes, a classifier that always answers the largest class has a high accuracy.
        """
        return headline_in(self, "macro_f1" if self.has_uneven_classes else "accuracy")

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


AnyMetrics = Metrics | MultiLabelMetrics


def headline_in(metrics: AnyMetrics, metric: str) -> Headline:
    """Return the value of a metric with its interval, to compare results in the same metric.

    Args:
        metrics: of a classifier on one set.
        metric: "accuracy" or "macro_f1".
    """
    if metric == "macro_f1":
        return Headline("macro_f1", metrics.macro_f1, metrics.macro_f1_interval)
    return Headline("accuracy", metrics.accuracy, metrics.accuracy_interval)


def measure(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    names: Sequence[str],
    bins: int = 15,
    thresholds: np.ndarray | None = None,
    resamples: int = RESAMPLES,
) -> AnyMetrics:
    """Compute all metrics of a classifier's logits against the labels.

    Args:
        logits: float `[rows, classes]`.
        labels: int `[rows]`, each in 0..classes-1, which gives `Metrics`; or `[rows, classes]` of
            0 and 1, which gives `MultiLabelMetrics`.
        names: class names, `[classes]`.
        bins: number of confidence bins of the calibration error.
        thresholds: of a multi-label task, float `[classes]`; None for 0.5 each.
        resamples: number of bootstrap resamples behind the intervals of F1; 0 for no intervals.

    Raises:
        ValueError: there are no rows, or a label is outside 0..classes-1, or not 0 or 1.
    """
    if labels.ndim == 2:
        return measure_multi_label(
            logits, labels, names=names, bins=bins, thresholds=thresholds, resamples=resamples
        )
    return _measure_single_label(logits, labels, names=names, bins=bins, resamples=resamples)


def _measure_single_label(
    logits: np.ndarray, labels: np.ndarray, *, names: Sequence[str], bins: int, resamples: int
) -> Metrics:
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
    is_known = (support > 0) | (np.bincount(predicted, minlength=len(classes)) > 0)
    diagram = reliability_diagram(probabilities, labels, bins=bins)
    confidence, correct = probabilities.max(axis=1), predicted == labels
    confusion = sk.confusion_matrix(labels, predicted, labels=classes)
    return Metrics(
        rows=len(labels),
        accuracy=float(sk.accuracy_score(labels, predicted)),
        accuracy_interval=wilson_interval(int(correct.sum()), len(labels)),
        macro_f1=float(f1[is_known].mean()),
        nll=float(sk.log_loss(labels, probabilities, labels=classes)),
        brier=float(brier),
        ece=calibration_error(diagram),
        classes=tuple(
            ClassMetrics(name, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
            for i, name in enumerate(names)
        ),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        reliability=diagram,
        macro_f1_interval=macro_f1_interval(confusion, resamples=resamples) if resamples else None,
        coverage=coverage_curve(confidence, correct),
        aurc=area_under_risk(confidence, correct),
    )

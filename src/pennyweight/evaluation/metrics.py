"""Classification metrics with a confidence interval and calibration.

Run records hold `Metrics` and are read by commands that must start quickly, so scipy and
scikit-learn are imported inside the functions that compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pennyweight.evaluation.bootstrap import (
    RESAMPLES,
    macro_f1_interval,
    multi_label_f1_intervals,
)
from pennyweight.evaluation.thresholds import DEFAULT_THRESHOLD, decide, sigmoid

__all__ = [
    "AnyMetrics",
    "Bin",
    "ClassMetrics",
    "Headline",
    "LabelMetrics",
    "Metrics",
    "MultiLabelMetrics",
    "expected_calibration_error",
    "measure",
    "wilson_interval",
]

# Classes are uneven if the largest has more than this many times the rows of the smallest.
_EVEN_RATIO = 3.0

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Metrics of one class; all fractions are in 0..1."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """Metrics of one class of a multi-label task; all fractions are in 0..1.

    Attributes:
        label: the class's name.
        precision: share of the rows given the class that have it.
        recall: share of the rows with the class that are given it.
        f1: harmonic mean of precision and recall.
        rows: number of rows that have the class.
        threshold: probability from which a row is given the class.
        average_precision: area under the precision-recall curve, which needs no threshold; None if
            no row has the class.
    """

    label: str
    precision: float
    recall: float
    f1: float
    rows: int
    threshold: float
    average_precision: float | None


@dataclass(frozen=True, slots=True)
class Headline:
    """The one figure that is shown first, with its 95% interval.

    Attributes:
        metric: "accuracy" or "macro_f1".
        value: of the metric, in 0..1.
        interval: None in records of versions that computed none.
    """

    metric: str
    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram: mean confidence and accuracy of its rows, in 0..1.

    For a multi-label task: the mean probability of the bin's decisions, the share of them whose row
    has the class, and their number.
    """

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
        macro_f1_interval: 95% bootstrap interval of the macro-F1; None in older records.
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

    @property
    def has_uneven_classes(self) -> bool:
        """Whether the largest class has more than 3 times the rows of the smallest.

        A class without rows makes the classes uneven.
        """
        sizes = [entry.rows for entry in self.classes]
        return max(sizes) > _EVEN_RATIO * min(sizes)

    @property
    def headline(self) -> Headline:
        """The figure to show first: accuracy, or macro-F1 where the classes are uneven.

        With uneven classes, a classifier that always answers the largest class has a high accuracy.
        """
        if self.has_uneven_classes:
            return Headline("macro_f1", self.macro_f1, self.macro_f1_interval)
        return Headline("accuracy", self.accuracy, self.accuracy_interval)

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


@dataclass(frozen=True, slots=True)
class MultiLabelMetrics:
    """Metrics of a multi-label classifier on one labelled set.

    A decision is the answer for one class of one row.

    Attributes:
        rows: number of rows.
        accuracy: subset accuracy, the fraction of rows whose set of labels is exactly right.
        accuracy_interval: 95% Wilson score interval of the accuracy.
        micro_f1: F1 over all decisions together.
        micro_f1_interval: 95% bootstrap interval over rows; None if none was computed.
        macro_f1: mean F1 over the classes.
        macro_f1_interval: 95% bootstrap interval over rows; None if none was computed.
        mean_average_precision: mean over the classes that have rows; needs no thresholds.
        nll: mean negative log-likelihood of a decision, in nats.
        brier: mean squared distance between the probability of a class and 0 or 1.
        ece: expected calibration error over equal-width bins of the probabilities of all decisions.
        classes: metrics of each class, with its threshold.
        reliability: the non-empty bins behind the calibration error.
    """

    rows: int
    accuracy: float
    accuracy_interval: Interval
    micro_f1: float
    micro_f1_interval: Interval | None
    macro_f1: float
    macro_f1_interval: Interval | None
    mean_average_precision: float
    nll: float
    brier: float
    ece: float
    classes: tuple[LabelMetrics, ...]
    reliability: tuple[Bin, ...] = ()

    @property
    def headline(self) -> Headline:
        """The figure to show first: macro-F1."""
        return Headline("macro_f1", self.macro_f1, self.macro_f1_interval)

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as plain values, for `--json` output."""
        return asdict(self)

    def scalars(self) -> dict[str, float]:
        """Return the metrics that can select a checkpoint or stop training."""
        return {
            "accuracy": self.accuracy,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "mean_average_precision": self.mean_average_precision,
            "nll": self.nll,
            "brier": self.brier,
            "ece": self.ece,
        }


AnyMetrics = Metrics | MultiLabelMetrics


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
        return _measure_multi_label(
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
    macro_f1 = sk.f1_score(labels, predicted, labels=classes, average="macro", zero_division=0.0)
    confusion = sk.confusion_matrix(labels, predicted, labels=classes)
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
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        reliability=_reliability(probabilities, labels, bins=bins),
        macro_f1_interval=macro_f1_interval(confusion, resamples=resamples) if resamples else None,
    )


def _measure_multi_label(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    names: Sequence[str],
    bins: int,
    thresholds: np.ndarray | None,
    resamples: int,
) -> MultiLabelMetrics:
    from sklearn import metrics as sk

    if len(labels) == 0 or not np.isin(labels, (0, 1)).all() or labels.shape[1] != len(names):
        raise ValueError(
            "metrics of a multi-label task need at least one row, and labels of 0 and 1 for each "
            f"of {len(names)} classes"
        )
    probabilities, true = sigmoid(logits), labels.astype(bool)
    if thresholds is None:
        thresholds = np.full(len(names), DEFAULT_THRESHOLD)
    predicted = decide(probabilities, thresholds)
    classes = _classes(probabilities, true, names=names, thresholds=thresholds)
    areas = [each.average_precision for each in classes if each.average_precision is not None]
    reliability = _bins(probabilities.ravel(), true.ravel(), bins=bins)
    exact = int((predicted == true).all(axis=1).sum())
    micro_interval, macro_interval = (
        multi_label_f1_intervals(predicted, true, resamples=resamples)
        if resamples
        else (None, None)
    )
    return MultiLabelMetrics(
        rows=len(labels),
        accuracy=exact / len(labels),
        accuracy_interval=wilson_interval(exact, len(labels)),
        micro_f1=float(sk.f1_score(true, predicted, average="micro", zero_division=0.0)),
        micro_f1_interval=micro_interval,
        macro_f1=float(np.mean([each.f1 for each in classes])),
        macro_f1_interval=macro_interval,
        mean_average_precision=float(np.mean(areas)) if areas else 0.0,
        # log(1 + exp(z)) - y z is the cross-entropy of a decision with the logit z.
        nll=float((np.logaddexp(0.0, logits.astype(np.float64)) - logits * true).mean()),
        brier=float(((probabilities - true) ** 2).mean()),
        ece=_calibration_error(reliability),
        classes=classes,
        reliability=reliability,
    )


def _classes(
    probabilities: np.ndarray, true: np.ndarray, *, names: Sequence[str], thresholds: np.ndarray
) -> tuple[LabelMetrics, ...]:
    """Return the metrics of each class of a multi-label task."""
    from sklearn import metrics as sk

    precision, recall, f1, support = sk.precision_recall_fscore_support(
        true, decide(probabilities, thresholds), average=None, zero_division=0.0
    )
    return tuple(
        LabelMetrics(
            label=name,
            precision=float(precision[index]),
            recall=float(recall[index]),
            f1=float(f1[index]),
            rows=int(support[index]),
            threshold=float(thresholds[index]),
            # The area is undefined for a class without rows.
            average_precision=float(
                sk.average_precision_score(true[:, index], probabilities[:, index])
            )
            if support[index]
            else None,
        )
        for index, name in enumerate(names)
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
    return _calibration_error(_reliability(probabilities, labels, bins=bins))


def _calibration_error(diagram: Sequence[Bin]) -> float:
    gaps = sum(abs(each.confidence - each.accuracy) * each.rows for each in diagram)
    return gaps / sum(each.rows for each in diagram)


def _reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int) -> tuple[Bin, ...]:
    """Return the non-empty bins of the reliability diagram, by rising confidence."""
    return _bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins=bins)


def _bins(confidence: np.ndarray, correct: np.ndarray, *, bins: int) -> tuple[Bin, ...]:
    """Return the non-empty bins of equal width of some confidences, both `[values]`."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    diagram = []
    for index in np.unique(bin_of):
        inside = bin_of == index
        mean, accuracy = float(confidence[inside].mean()), float(correct[inside].mean())
        diagram.append(Bin(mean, accuracy, int(inside.sum())))
    return tuple(diagram)

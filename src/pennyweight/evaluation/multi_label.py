"""Metrics of a classifier that gives a text any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pennyweight.evaluation.calibration import Bin, bins_of, calibration_error
from pennyweight.evaluation.intervals import (
    Headline,
    Interval,
    multi_label_f1_intervals,
    wilson_interval,
)
from pennyweight.evaluation.thresholds import DEFAULT_THRESHOLD, decide, sigmoid

__all__ = ["LabelMetrics", "MultiLabelMetrics", "measure_multi_label"]


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
class MultiLabelMetrics:
    """Metrics of a multi-label classifier on one labelled set.

    A decision is the answer for one class of one row.

    Attributes:
        rows: number of rows.
        accuracy: subset accuracy, the fraction of rows whose set of labels is exactly right.
        accuracy_interval: 95% Wilson score interval of the accuracy.
        micro_f1: F1 over all decisions together.
        micro_f1_interval: 95% bootstrap interval over rows; None if none was computed.
        macro_f1: mean F1 over the classes that any row has as a label or as an answer.
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


def measure_multi_label(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    names: Sequence[str],
    bins: int,
    thresholds: np.ndarray | None,
    resamples: int,
) -> MultiLabelMetrics:
    """Compute all metrics of a multi-label classifier; see `pennyweight.evaluation.measure`."""
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
    reliability = bins_of(probabilities.ravel(), true.ravel(), bins=bins)
    f1, is_known = np.array([each.f1 for each in classes]), (predicted | true).any(axis=0)
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
        macro_f1=float(f1[is_known].mean()) if is_known.any() else 0.0,
        macro_f1_interval=macro_interval,
        mean_average_precision=float(np.mean(areas)) if areas else 0.0,
        # log(1 + exp(z)) - y z is the cross-entropy of a decision with the logit z.
        nll=float((np.logaddexp(0.0, logits.astype(np.float64)) - logits * true).mean()),
        brier=float(((probabilities - true) ** 2).mean()),
        ece=calibration_error(reliability),
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

"""Intervals of metrics: Wilson's for proportions such as accuracy, and the bootstrap for F1.

F1 has no interval in closed form. Rows are drawn with replacement, as often as there are rows
(Efron 1979, doi:10.1214/aos/1176344552); the interval lies between the 2.5% and 97.5% quantiles of
the resampled F1. Instead of repeating the measurement for each resample, the number of times that
each row is drawn is taken from a multinomial distribution, which is the same draw, and F1 is
computed from the weighted counts of all resamples at once. A class that a resample happens to leave
out is left out of that resample's mean as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pennyweight.evaluation.f1 import f1_of_counts, macro_f1_of

__all__ = [
    "RESAMPLES",
    "Headline",
    "Interval",
    "macro_f1_interval",
    "multi_label_f1_intervals",
    "wilson_interval",
]

RESAMPLES = 400
_SEED = 0
# Resamples are drawn in blocks of at most this many numbers, so that memory stays small.
_NUMBERS_PER_BLOCK = 4_000_000

Interval = tuple[float, float]


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


def macro_f1_interval(confusion: np.ndarray, *, resamples: int = RESAMPLES) -> Interval:
    """Return the 95% bootstrap interval of macro-F1, the same for the same counts.

    Macro-F1 depends on the confusion matrix alone, so its cells are resampled instead of the rows.

    Args:
        confusion: int `[label, predicted]`, counts with at least one row.
        resamples: number of resamples.
    """
    generator = np.random.default_rng(_SEED)
    labels, predicted = np.nonzero(confusion)
    rows = confusion[labels, predicted]
    total, classes = int(rows.sum()), len(confusion)
    counts = generator.multinomial(total, rows / total, size=resamples)
    hits = np.where(labels == predicted, counts, 0)
    f1 = f1_of_counts(
        _summed(hits, labels, classes),
        _summed(counts, predicted, classes),
        _summed(counts, labels, classes),
    )
    return _interval(macro_f1_of(f1))


def multi_label_f1_intervals(
    predicted: np.ndarray, labels: np.ndarray, *, resamples: int = RESAMPLES
) -> tuple[Interval, Interval]:
    """Return the 95% bootstrap intervals of micro-F1 and macro-F1 over rows.

    Args:
        predicted: bool `[rows, classes]`, with at least one row.
        labels: bool `[rows, classes]`.
        resamples: number of resamples.
    """
    generator = np.random.default_rng(_SEED)
    rows, (given, true) = len(labels), (predicted.astype(float), labels.astype(float))
    block = max(1, _NUMBERS_PER_BLOCK // rows)
    micro, macro = [], []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        weights = generator.multinomial(rows, np.full(rows, 1.0 / rows), size=size).astype(float)
        hits, answers, support = (weights @ counts for counts in (given * true, given, true))
        micro.append(f1_of_counts(*(counts.sum(axis=1) for counts in (hits, answers, support))))
        macro.append(macro_f1_of(f1_of_counts(hits, answers, support)))
    return _interval(np.nan_to_num(np.concatenate(micro))), _interval(np.concatenate(macro))


def _summed(counts: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """Return the counts `[resamples, cells]` summed by class, `[resamples, classes]`."""
    sums = np.zeros((classes, len(counts)))
    np.add.at(sums, groups, counts.T)
    return sums.T


def _interval(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)

"""How far new rows are from known ones, and the accuracy to expect on them, without labels.

Every estimate assumes that confidence still means what it meant on the known rows. Under a strong
shift classifiers are too confident, and the accuracy is then lower than estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pennyweight.evaluation.intervals import Interval, wilson_interval
from pennyweight.evaluation.metrics import Metrics

__all__ = [
    "ExpectedAccuracy",
    "FeatureDistance",
    "KnownRows",
    "expected_accuracy",
    "feature_distance",
    "rows_behind",
]

_RESAMPLES = 1000
_PERMUTATIONS = 500
# More rows of either kind are sampled; the kernel matrix has the square of twice this number.
_MOST_ROWS = 1000


@dataclass(frozen=True, slots=True)
class KnownRows:
    """Confidence and correctness of labelled rows that were not trained on.

    Attributes:
        confidence: float `[rows]`, the probability of the predicted class.
        correct: bool `[rows]`.
    """

    confidence: np.ndarray
    correct: np.ndarray


@dataclass(frozen=True, slots=True)
class ExpectedAccuracy:
    """An estimate of the accuracy on unlabelled rows.

    Attributes:
        method: "atc" (average thresholded confidence) or "doc" (difference of confidences).
        accuracy: the estimate, in 0..1.
        interval: 95% interval; it covers the sampling of rows, and not the error of the method's
            assumption.
    """

    method: str
    accuracy: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class FeatureDistance:
    """The squared maximum mean discrepancy of hidden features.

    Attributes:
        distance: between known and new rows.
        chance: 95% quantile of the distance between random halves of both together.
        p: probability of such a distance if known and new rows were of the same kind.
    """

    distance: float
    chance: float
    p: float


def feature_distance(known: np.ndarray, new: np.ndarray, *, seed: int) -> FeatureDistance:
    """Return the squared maximum mean discrepancy with a Gaussian kernel and a permutation test.

    Gretton et al. 2012, "A Kernel Two-Sample Test". The width of the kernel is the median distance
    of two rows. Of more than 1,000 rows of either kind, 1,000 are sampled.

    Args:
        known: float `[rows, hidden]`.
        new: float `[rows, hidden]`.
        seed: of the samples and the permutations.
    """
    from scipy.spatial.distance import pdist, squareform

    generator = np.random.default_rng((seed, 11))
    sides = [
        side[np.sort(generator.permutation(len(side))[:_MOST_ROWS])].astype(np.float64)
        for side in (known, new)
    ]
    squared = pdist(np.concatenate(sides), "sqeuclidean")
    kernel = squareform(np.exp(-squared / max(float(np.median(squared)), 1e-12)))
    np.fill_diagonal(kernel, 1.0)
    weights = np.r_[np.full(len(sides[0]), 1 / len(sides[0])), np.full(len(sides[1]), -1.0)]
    weights[len(sides[0]) :] /= len(sides[1])
    order = np.tile(weights, (_PERMUTATIONS, 1))
    permuted = np.vstack([weights, generator.permuted(order, axis=1)])
    distance, *chances = ((permuted @ kernel) * permuted).sum(axis=1).tolist()
    at_least = sum(chance >= distance for chance in chances)
    return FeatureDistance(
        distance=float(distance),
        chance=float(np.quantile(chances, 0.95)),
        p=(1 + at_least) / (1 + _PERMUTATIONS),
    )


def expected_accuracy(
    known: KnownRows, confidence: np.ndarray, *, seed: int
) -> tuple[ExpectedAccuracy, ...]:
    """Estimate the accuracy on unlabelled rows from their confidence, in two ways.

    Average thresholded confidence (Garg et al. 2022, arXiv:2201.04234) is the share of new rows
    above the confidence that as many known rows exceed as are right. The difference of confidences
    (Guillory et al. 2021, arXiv:2107.03315) lowers the accuracy on the known rows by as much as the
    mean confidence is lower.

    The interval is that of a bootstrap, widened to Wilson's for the smaller number of rows: where
    few rows are wrong, resamples hardly differ.

    Args:
        known: rows with labels, at least one.
        confidence: of the new rows, float `[rows]`, at least one.
        seed: of the bootstrap, which resamples known and new rows.
    """
    generator = np.random.default_rng((seed, 12))
    estimates = {
        "atc": (_thresholded, np.empty(_RESAMPLES)),
        "doc": (_difference, np.empty(_RESAMPLES)),
    }
    for resample in range(_RESAMPLES):
        rows = generator.integers(len(known.correct), size=len(known.correct))
        drawn = KnownRows(known.confidence[rows], known.correct[rows])
        new = confidence[generator.integers(len(confidence), size=len(confidence))]
        for estimate, values in estimates.values():
            values[resample] = estimate(drawn, new)
    fewest = min(len(confidence), len(known.correct))
    return tuple(
        _with_interval(method, estimate(known, confidence), values, rows=fewest)
        for method, (estimate, values) in estimates.items()
    )


def _with_interval(
    method: str, accuracy: float, resampled: np.ndarray, *, rows: int
) -> ExpectedAccuracy:
    low, high = np.quantile(resampled, (0.025, 0.975)).tolist()
    lowest, highest = wilson_interval(round(accuracy * rows), rows)
    return ExpectedAccuracy(method, accuracy, (min(low, lowest), max(high, highest)))


def _thresholded(known: KnownRows, confidence: np.ndarray) -> float:
    ranked = np.sort(known.confidence)
    wrong = int((~known.correct).sum())
    # As many known rows lie below the threshold as are wrong.
    threshold = ranked[wrong] if wrong < len(ranked) else np.inf
    return float((confidence >= threshold).mean())


def _difference(known: KnownRows, confidence: np.ndarray) -> float:
    accuracy = known.correct.mean() - known.confidence.mean() + confidence.mean()
    return float(np.clip(accuracy, 0.0, 1.0))


def rows_behind(metrics: Metrics) -> KnownRows:
    """Return rows that have the coverage-accuracy curve of some metrics, up to rounding.

    Older records have no curve; the bins of the reliability diagram take its place.
    """
    confidence: list[float] = []
    right: list[int] = []
    answered, correct, above = 0, 0, 1.0
    for point in metrics.coverage:
        rows = round(point.coverage * metrics.rows) - answered
        hits = round(point.accuracy * point.coverage * metrics.rows) - correct
        confidence += [(point.confidence + above) / 2] * rows
        right += [1] * hits + [0] * (rows - hits)
        answered, correct, above = answered + rows, correct + hits, point.confidence
    for each in () if metrics.coverage else metrics.reliability:
        hits = round(each.accuracy * each.rows)
        confidence += [each.confidence] * each.rows
        right += [1] * hits + [0] * (each.rows - hits)
    return KnownRows(np.array(confidence), np.array(right, dtype=bool))

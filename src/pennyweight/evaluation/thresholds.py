"""Decisions of a multi-label classifier: a threshold for each class, fitted on validation rows.

The threshold that maximizes F1 is seldom 0.5: for a rare class it is lower (Lipton et al. 2014,
arXiv:1402.1892). Thresholds are fitted on few numbers and have to be read as such: metrics on the
rows that they were fitted on are somewhat too high.
"""

from __future__ import annotations

import numpy as np

from pennyweight.data.label import Task

__all__ = [
    "DEFAULT_THRESHOLD",
    "FEWEST_POSITIVES",
    "decide",
    "fit_thresholds",
    "probabilities_of",
    "sigmoid",
]

DEFAULT_THRESHOLD = 0.5
# A class with fewer positive rows gets the threshold that is fitted for all classes together.
FEWEST_POSITIVES = 10
_TOLERANCE = 1e-12


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probability of each class, float64, without overflow for extreme logits."""
    from scipy.special import expit

    return np.asarray(expit(logits.astype(np.float64)))


def probabilities_of(logits: np.ndarray, *, task: Task) -> np.ndarray:
    """Return the class probabilities of logits `[rows, classes]`, float64 of the same shape.

    They add up to 1 for each row; those of a multi-label task are independent of each other.
    """
    from scipy.special import softmax

    if task == "multi-label":
        return sigmoid(logits)
    return np.asarray(softmax(logits.astype(np.float64), axis=1))


def decide(probabilities: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """Return which classes each row is given, bool `[rows, classes]`.

    Args:
        probabilities: float `[rows, classes]`.
        thresholds: float `[classes]`; a class is given from its threshold on. None for 0.5.
    """
    return np.asarray(probabilities >= (DEFAULT_THRESHOLD if thresholds is None else thresholds))


def fit_thresholds(
    probabilities: np.ndarray, labels: np.ndarray, *, fewest: int = FEWEST_POSITIVES
) -> np.ndarray:
    """Return the threshold of each class that maximizes its F1, float64 `[classes]`.

    A class with fewer than `fewest` positive rows has too few for a threshold of its own; it gets
    the one that maximizes F1 over the decisions of all classes together. Of equally good
    thresholds, the one closest to 0.5 is chosen. Without any positive row, all are 0.5.

    Args:
        probabilities: float `[rows, classes]` on validation rows.
        labels: int or bool `[rows, classes]`, 1 for the classes that a row has.
        fewest: positive rows that a class needs for a threshold of its own.
    """
    positives = labels.astype(bool)
    shared = _best_threshold(probabilities.ravel(), positives.ravel())
    return np.array(
        [
            _best_threshold(probabilities[:, index], positives[:, index])
            if positives[:, index].sum() >= fewest
            else shared
            for index in range(labels.shape[1])
        ]
    )


def _best_threshold(probabilities: np.ndarray, positives: np.ndarray) -> float:
    """Return the threshold that maximizes F1, halfway between two neighbouring probabilities."""
    if not positives.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(positives[order])
    f1 = 2.0 * hits / (np.arange(1, len(ranked) + 1) + positives.sum())
    following = np.append(ranked[1:], 0.0)
    is_cut = ranked > following
    # With equal probabilities below all cuts there is no place for a threshold between them.
    f1[~is_cut] = -1.0
    best = np.flatnonzero(f1 >= f1.max() - _TOLERANCE)
    middle = (ranked[best] + following[best]) / 2.0
    candidates = np.where(middle > following[best], middle, ranked[best])
    return float(candidates[np.argmin(np.abs(candidates - DEFAULT_THRESHOLD))])

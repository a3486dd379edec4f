"""Weights and offsets of classes that training rows hold in different numbers."""

from __future__ import annotations

import numpy as np

__all__ = [
    "LARGEST_WEIGHT",
    "class_weights",
    "learned_shares",
    "log_shares",
    "positive_weights",
]

# A class with few rows would otherwise dominate every batch that it is in.
LARGEST_WEIGHT = 10.0


def class_weights(labels: np.ndarray, *, classes: int) -> np.ndarray:
    """Return the weight of each class in a single-label loss, float32 `[classes]`.

    A weight is the inverse of the class's number of rows, limited to 10 times that of a class of
    average size, and scaled so that the mean weight over the labelled rows is 1.

    Args:
        labels: int `[rows]`; -1 for unlabelled rows.
        classes: number of classes.
    """
    counts = _counts(labels, classes)
    average = counts.sum() / max(np.count_nonzero(counts), 1)
    weights = np.minimum(average / np.maximum(counts, 1.0), LARGEST_WEIGHT)
    mean = (weights * counts).sum() / max(counts.sum(), 1.0)
    return np.asarray(weights / (mean or 1.0), dtype=np.float32)


def positive_weights(labels: np.ndarray) -> np.ndarray:
    """Return the weight of each class's positive rows in a multi-label loss, float32 `[classes]`.

    It is the number of rows without the class for each row with it, which makes both weigh the
    same, but at most 10.

    Args:
        labels: int `[rows, classes]`; -1 everywhere in an unlabelled row.
    """
    labelled = labels[labels[:, 0] >= 0]
    positives = labelled.sum(axis=0)
    ratio = (len(labelled) - positives) / np.maximum(positives, 1)
    return np.asarray(np.clip(ratio, 1.0 / LARGEST_WEIGHT, LARGEST_WEIGHT), dtype=np.float32)


def log_shares(labels: np.ndarray, *, classes: int) -> np.ndarray:
    """Return the logarithm of each class's share of the labelled rows, float32 `[classes]`.

    A class without rows is treated as one with a single row.

    Args:
        labels: int `[rows]`; -1 for unlabelled rows.
        classes: number of classes.
    """
    counts = np.maximum(_counts(labels, classes), 1.0)
    return np.asarray(np.log(counts / counts.sum()), dtype=np.float32)


def learned_shares(
    labels: np.ndarray,
    *,
    classes: int,
    is_balanced: bool = False,
    is_weighted: bool = False,
    tau: float = 0.0,
) -> np.ndarray:
    """Return the class shares that a classifier's probabilities reflect, float64 `[classes]`.

    They are those of the rows, unless its training corrected for them: it has then learned from
    other shares, and a correction for those of a target has to start from these.

    Args:
        labels: int `[rows]`, of the training rows; -1 for unlabelled rows.
        classes: number of classes.
        is_balanced: whether each class was drawn as often as every other.
        is_weighted: whether the loss had `class_weights`.
        tau: the factor of the log shares in a logit-adjusted loss (arXiv:2007.07314); 0 without.
    """
    counts = _counts(labels, classes)
    if is_balanced:
        counts = np.minimum(counts, 1.0)
    elif is_weighted:
        counts = counts * class_weights(labels, classes=classes)
    elif tau:
        counts = np.where(counts > 0.0, np.maximum(counts, 1.0) ** (1.0 - tau), 0.0)
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def _counts(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(labels[labels >= 0], minlength=classes).astype(np.float64)

"""From logits or probabilities to the classes that rows are given, for one label or several.

A task with several labels per row has a threshold for each class; one with a single label has none,
and a row is given its most probable class.
"""

from __future__ import annotations

import numpy as np

from pennyweight.evaluation.thresholds import decide, sigmoid

__all__ = ["answers_of", "class_shares", "given_classes", "ranked"]


def answers_of(logits: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """Return the class of each row, int64 `[rows]`, or 0 and 1 as int8 `[rows, classes]`.

    Args:
        logits: float `[rows, classes]`.
        thresholds: of a multi-label task, float64 `[classes]`; None for a single-label task.
    """
    if thresholds is None:
        return logits.argmax(axis=1)
    return decide(sigmoid(logits), thresholds).astype(np.int8)


def class_shares(answers: np.ndarray, classes: int) -> np.ndarray:
    """Return the share of the rows that have each class, float64 `[classes]`.

    Args:
        answers: answers or labels, int `[rows]`, or 0 and 1 `[rows, classes]`.
        classes: number of classes.
    """
    if answers.ndim == 2:
        return np.asarray(answers.mean(axis=0))
    return np.bincount(answers, minlength=classes) / len(answers)


def ranked(probabilities: np.ndarray) -> np.ndarray:
    """Return the indices of the classes of each row, the most probable first.

    Args:
        probabilities: float `[rows, classes]`, or `[classes]` of one row.
    """
    return np.argsort(-probabilities, axis=-1, kind="stable")


def given_classes(probabilities: np.ndarray, thresholds: np.ndarray | None) -> list[list[int]]:
    """Return the classes that each row is given, the most probable first.

    Args:
        probabilities: float `[rows, classes]`.
        thresholds: of a multi-label task, float64 `[classes]`; None for a single-label task, in
            which each row is given one class.
    """
    if thresholds is None:
        first: list[list[int]] = probabilities.argmax(axis=1)[:, None].tolist()
        return first
    given = decide(probabilities, thresholds).tolist()
    return [
        [index for index in order if row[index]]
        for row, order in zip(given, ranked(probabilities).tolist(), strict=True)
    ]

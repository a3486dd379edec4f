"""The largest confusions of a classifier, for outputs in which a whole matrix does not fit."""

from __future__ import annotations

from dataclasses import dataclass

from pennyweight.evaluation.metrics import Metrics

__all__ = ["MATRIX_CLASSES", "Confusion", "largest_confusions"]

# With more classes, figures and pages list the largest confusions instead of drawing the matrix.
MATRIX_CLASSES = 12


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows of one class that were given another.

    Attributes:
        label: the class of the rows.
        predicted: the class that they were given.
        rows: their number.
        share: their share of the rows of the class, in 0..1.
    """

    label: str
    predicted: str
    rows: int
    share: float


def largest_confusions(metrics: Metrics, *, limit: int) -> tuple[Confusion, ...]:
    """Return the pairs of classes that are confused most often, the most frequent first.

    Equally frequent ones are sorted by their share of the class, then in the order of the classes.

    Args:
        metrics: of a classifier on one set.
        limit: the largest number of pairs to return.
    """
    classes = metrics.classes
    confusions = [
        Confusion(classes[row].label, classes[column].label, count, count / sum(counts))
        for row, counts in enumerate(metrics.confusion)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    confusions.sort(key=lambda each: (-each.rows, -each.share))
    return tuple(confusions[:limit])

"""Which teachers label rows like the training texts."""

from __future__ import annotations

import numpy as np
import pytest

from pennyweight.evaluation.metrics import Metrics, measure
from pennyweight.training.target_answers import best_on_validation


def _metrics(right: int, rows: int) -> Metrics:
    labels = np.zeros(rows, dtype=np.int64)
    logits = np.zeros((rows, 2))
    logits[:right, 0], logits[right:, 1] = 2.0, 2.0
    metrics = measure(logits, labels, names=("a", "b"), bins=10, resamples=0)
    assert isinstance(metrics, Metrics)
    return metrics


@pytest.mark.parametrize(
    ("rights", "best"),
    [
        # The standard error of the difference is 0.76 points.
        ((1876, 1862, 1860), [True, True, False]),
        ((1700, 1876), [False, True]),
        ((1876,), [True]),
    ],
)
def test_the_best_teachers_are_within_the_standard_error_of_the_difference(
    rights: tuple[int, ...], best: list[bool]
) -> None:
    assert best_on_validation([_metrics(right, 2000) for right in rights]) == best


def test_few_validation_rows_tell_less_apart() -> None:
    assert best_on_validation([_metrics(1876, 2000), _metrics(45, 50)]) == [True, True]


def test_without_validation_rows_a_teacher_is_a_helper_and_the_first_one_decides() -> None:
    assert best_on_validation([None, _metrics(9, 10)]) == [False, True]
    assert best_on_validation([None, None]) == [True, False]

"""Intervals of F1 by the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from pennyweight.evaluation import intervals as module
from pennyweight.evaluation.intervals import macro_f1_interval, multi_label_f1_intervals


def test_the_interval_of_macro_f1_is_that_of_resampled_rows() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(3, size=300, p=(0.6, 0.3, 0.1))
    predicted = np.where(generator.random(300) < 0.8, labels, generator.integers(0, 3, size=300))
    drawn = [generator.integers(300, size=300) for _ in range(1000)]
    resampled = [f1_score(labels[rows], predicted[rows], average="macro") for rows in drawn]
    interval = macro_f1_interval(confusion_matrix(labels, predicted), resamples=4000)
    assert interval == pytest.approx(np.quantile(resampled, (0.025, 0.975)), abs=0.01)


def test_the_intervals_of_a_multi_label_task_are_those_of_resampled_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Several blocks.
    monkeypatch.setattr(module, "_NUMBERS_PER_BLOCK", 200 * 1500)
    generator = np.random.default_rng(0)
    labels = generator.random((200, 3)) < (0.5, 0.3, 0.2)
    predicted = labels ^ (generator.random((200, 3)) < 0.15)
    drawn = [generator.integers(200, size=200) for _ in range(600)]
    intervals = multi_label_f1_intervals(predicted, labels, resamples=4000)
    for average, interval in zip(("micro", "macro"), intervals, strict=True):
        resampled = [f1_score(labels[rows], predicted[rows], average=average) for rows in drawn]
        assert interval == pytest.approx(np.quantile(resampled, (0.025, 0.975)), abs=0.012)


def test_the_same_counts_give_the_same_interval() -> None:
    confusion = np.array([[50, 3], [2, 5]])
    assert macro_f1_interval(confusion) == macro_f1_interval(confusion)


def test_a_class_that_no_row_has_does_not_count() -> None:
    assert macro_f1_interval(np.array([[30, 0], [0, 0]])) == (1.0, 1.0)
    labels = np.tile([[True, False]], (30, 1))
    assert multi_label_f1_intervals(labels, labels) == ((1.0, 1.0), (1.0, 1.0))


def test_a_class_of_one_row_leaves_resamples_without_it_undisturbed() -> None:
    # A third of the resamples lack the row; the others have it, and everything is right.
    assert macro_f1_interval(np.array([[99, 0], [0, 1]])) == (1.0, 1.0)

"""Thresholds of a multi-label classifier."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from pennyweight.evaluation.thresholds import decide, fit_thresholds, sigmoid


def test_each_threshold_gives_the_highest_f1_that_any_cut_gives() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random((200, 3)) < (0.5, 0.2, 0.1)
    probabilities = np.clip(0.3 * labels + 0.6 * generator.random((200, 3)), 0.0, 1.0)
    thresholds = fit_thresholds(probabilities, labels)
    for column, threshold in enumerate(thresholds):
        best = max(
            f1_score(labels[:, column], probabilities[:, column] >= cut)
            for cut in probabilities[:, column]
        )
        reached = f1_score(labels[:, column], probabilities[:, column] >= threshold)
        assert reached == pytest.approx(best)


def test_a_class_with_few_positive_rows_gets_the_threshold_of_all_classes_together() -> None:
    labels = np.zeros((40, 2), dtype=np.int64)
    labels[:20, 0], labels[:9, 1] = 1, 1
    probabilities = np.where(labels == 1, (0.8, 0.3), (0.6, 0.1))
    own, shared = fit_thresholds(probabilities, labels)
    assert own == pytest.approx(0.7)
    # Over all decisions, cuts below 0.8, 0.6 and 0.3 give F1 of 0.82, 0.58 and 0.74.
    assert shared == pytest.approx(0.7)
    assert fit_thresholds(probabilities, labels, fewest=9)[1] == pytest.approx(0.2)


def test_of_equally_good_thresholds_the_one_closest_to_a_half_is_chosen() -> None:
    # One right answer of one, and both of four, have an F1 of 2/3.
    labels = np.array([[1], [0], [0], [1]])
    for probabilities, expected in (
        ([0.9, 0.45, 0.3, 0.2], (0.9 + 0.45) / 2),
        ([0.99, 0.97, 0.5, 0.4], 0.4 / 2),
    ):
        thresholds = fit_thresholds(np.array(probabilities)[:, None], labels, fewest=1)
        assert thresholds == pytest.approx([expected])


def test_equal_probabilities_are_never_separated() -> None:
    probabilities = np.full((30, 1), 0.2)
    labels = np.r_[np.ones(15, dtype=int), np.zeros(15, dtype=int)][:, None]
    (threshold,) = fit_thresholds(probabilities, labels)
    assert threshold <= 0.2
    assert decide(probabilities, np.array([threshold])).all()


def test_without_a_positive_row_all_thresholds_are_a_half() -> None:
    probabilities = np.random.default_rng(0).random((5, 3))
    thresholds = fit_thresholds(probabilities, np.zeros((5, 3), dtype=int))
    assert thresholds.tolist() == [0.5, 0.5, 0.5]
    assert np.array_equal(decide(probabilities, None), decide(probabilities, thresholds))


def test_probabilities_of_extreme_logits_are_zero_and_one_without_a_warning() -> None:
    assert sigmoid(np.array([[-1e4, 0.0, 1e4]], dtype=np.float32)).tolist() == [[0.0, 0.5, 1.0]]

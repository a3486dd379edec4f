"""Decisions: from logits and probabilities to the classes of a row."""

from __future__ import annotations

import numpy as np
import pytest

from pennyweight.evaluation.decisions import answers_of, class_shares, given_classes
from pennyweight.evaluation.thresholds import sigmoid

LOGITS = np.array([[2.0, -1.0, 3.0], [-1.0, 0.5, -2.0], [-9.0, -9.0, -9.0]])
THRESHOLDS = np.array([0.5, 0.5, 0.96])


def test_a_row_of_a_single_label_task_is_given_its_most_probable_class() -> None:
    assert answers_of(LOGITS, None).tolist() == [2, 1, 0]
    assert given_classes(LOGITS, None) == [[2], [1], [0]]


def test_a_row_of_a_multi_label_task_is_given_the_classes_that_reach_their_thresholds() -> None:
    assert answers_of(LOGITS, THRESHOLDS).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert given_classes(sigmoid(LOGITS), THRESHOLDS) == [[0], [1], []]
    assert given_classes(sigmoid(LOGITS), np.full(3, 0.5)) == [[2, 0], [1], []]


def test_shares_are_those_of_the_rows() -> None:
    assert class_shares(np.array([2, 1, 2, 0]), 4).tolist() == [0.25, 0.25, 0.5, 0.0]
    several = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=np.int8)
    assert class_shares(several, 3).tolist() == pytest.approx([1 / 3, 0.0, 1.0])

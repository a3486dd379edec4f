"""Weights and offsets of classes with different numbers of rows, and the losses that use them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from pennyweight.engine.batches.rows import Targets
from pennyweight.engine.train.balance import class_weights, log_shares, positive_weights
from pennyweight.engine.train.objective import ClassBalance, Objective, ObjectiveOptions

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.2]])
LABELS = torch.tensor([0, 2])


def test_weights_are_inverse_to_the_rows_of_a_class_and_1_on_average_over_rows() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2] * 1 + [-1] * 5)
    weights = class_weights(labels, classes=3)
    assert weights * (6, 3, 1) == pytest.approx([10 / 3] * 3)
    assert weights[labels[labels >= 0]].mean() == pytest.approx(1.0)
    assert weights.dtype == np.float32


def test_no_class_weighs_over_ten_times_one_of_average_size() -> None:
    labels = np.array([0] * 9_999 + [1])
    weights = class_weights(labels, classes=2)
    assert weights[1] / weights[0] == pytest.approx(10.0 / (5_000 / 9_999), rel=1e-4)
    assert weights[labels].mean() == pytest.approx(1.0)


def test_weights_are_finite_where_classes_or_all_rows_lack_labels() -> None:
    assert np.isfinite(class_weights(np.array([0, 0, 2]), classes=4)).all()
    assert np.isfinite(class_weights(np.array([-1, -1]), classes=2)).all()
    assert np.isfinite(log_shares(np.array([0, 0]), classes=3)).all()


def test_positive_rows_of_a_class_weigh_as_much_as_the_others_up_to_ten_times() -> None:
    labels = np.zeros((100, 3), dtype=np.int64)
    labels[:25, 0], labels[:1, 1], labels[:, 2] = 1, 1, 1
    labels = np.concatenate([labels, np.full((7, 3), -1)])
    assert positive_weights(labels) == pytest.approx([3.0, 10.0, 0.1])


def test_rows_of_a_weighted_class_count_more() -> None:
    objective = Objective(balance=ClassBalance(weights=torch.tensor([0.5, 1.0, 3.0])))
    log = LOGITS.log_softmax(1)
    expected = -0.5 * log[0, 0] - 3.0 * log[1, 2]
    torch.testing.assert_close(objective.of_rows([LOGITS], Targets(LABELS)), expected)
    weighted = Targets(torch.tensor([0, -1]), weights=torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(objective.of_rows([LOGITS], weighted), -log[0, 0])


def test_the_focal_loss_multiplies_the_cross_entropy_by_a_power_of_the_error() -> None:
    loss = Objective(ObjectiveOptions(focal_gamma=2.0)).of_rows([LOGITS], Targets(LABELS))
    share = LOGITS.softmax(1)[torch.arange(2), LABELS]
    torch.testing.assert_close(loss, (-share.log() * (1 - share) ** 2).sum())


def test_logit_adjustment_adds_the_classes_log_shares_in_the_loss_of_the_labels_alone() -> None:
    offsets = torch.from_numpy(0.5 * log_shares(np.array([0, 0, 0, 1, 2, 2]), classes=3))
    torch.testing.assert_close(offsets.exp() ** 2, torch.tensor([1 / 2, 1 / 6, 1 / 3]))
    balance = ClassBalance(offsets=offsets)
    loss = Objective(balance=balance).of_rows([LOGITS], Targets(LABELS))
    expected = functional.cross_entropy(LOGITS + offsets, LABELS, reduction="sum")
    torch.testing.assert_close(loss, expected)
    options = ObjectiveOptions(r_drop=1.0)
    labels = torch.tensor([-1, -1])
    adjusted, plain = (
        Objective(options, balance=each).of_rows([LOGITS, LOGITS + 1.0], Targets(labels))
        for each in (balance, ClassBalance())
    )
    torch.testing.assert_close(adjusted, plain)

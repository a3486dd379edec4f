"""Warnings about a training that went wrong or ended too early."""

from __future__ import annotations

import numpy as np
import pytest

from pennyweight.training.diagnosis import describe_collapse, describe_falling_loss

NAMES = ("World", "Sports", "Business")


def test_a_model_that_predicts_one_class_only_has_collapsed() -> None:
    labels = np.arange(60) % 3
    predicted = np.zeros(60, dtype=int)
    predicted[0] = 1
    warning = describe_collapse(predicted, labels, names=NAMES)
    assert warning is not None
    assert warning.startswith(
        'warning: the model predicts "World" for 98.3% of the validation rows, but only 33.3% of '
        "them have this label; try a lower optimizer.learning_rate"
    )
    assert "train.class_weights=balanced" in warning
    assert "\n" not in warning


@pytest.mark.parametrize("rest", [0, 1, 2])
def test_predictions_as_one_sided_as_the_labels_are_no_collapse(rest: int) -> None:
    labels = np.r_[np.zeros(98, dtype=int), [1] * rest]
    assert describe_collapse(np.zeros_like(labels), labels, names=NAMES) is None


def test_a_good_model_and_a_handful_of_rows_give_no_warning() -> None:
    labels = np.arange(60) % 3
    assert describe_collapse(labels, labels, names=NAMES) is None
    assert describe_collapse(np.zeros(19, dtype=int), labels[:19], names=NAMES) is None


def test_a_multi_label_model_that_gives_every_row_the_same_labels_has_collapsed() -> None:
    labels = np.eye(3, dtype=int)[np.arange(60) % 3]
    nothing = describe_collapse(np.zeros_like(labels), labels, names=NAMES)
    assert nothing is not None
    assert "predicts no label for 100.0%" in nothing
    both = describe_collapse(np.tile([1, 0, 1], (60, 1)), labels, names=NAMES)
    assert both is not None
    assert 'predicts "World" and "Business" for' in both
    assert describe_collapse(labels, labels, names=NAMES) is None


def test_a_loss_that_still_falls_fast_is_reported_with_its_means() -> None:
    losses = [*np.linspace(2.0, 1.0, 100)]
    losses[80:90], losses[90:] = [1.0] * 10, [0.5] * 10
    assert describe_falling_loss(losses, epochs=3) == (
        "warning: the training loss was still falling at the end, from 1 to 0.5 within the last "
        "tenth of the training; train longer, for example with --set train.epochs=6"
    )


def test_a_flat_noisy_or_short_curve_gives_no_warning() -> None:
    noise = np.random.default_rng(0)
    assert describe_falling_loss([0.5] * 100, epochs=3) is None
    assert describe_falling_loss([*np.geomspace(2.0, 0.5, 100)][::-1], epochs=3) is None
    assert describe_falling_loss([*noise.uniform(0.1, 2.0, size=30)], epochs=3) is None
    assert describe_falling_loss([9.0, 8.0, 7.0, 1.0], epochs=3) is None
    assert describe_falling_loss([0.0] * 100, epochs=3) is None
    assert describe_falling_loss([*[1.0] * 80, *[1e-3] * 10, *[1e-4] * 10], epochs=3) is None

"""Label shift: planted shares are recovered, and impossible estimates are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from pennyweight.evaluation.shift import (
    confusion_of,
    correct_logits,
    estimate_prior,
    match_shares,
    prior_by_confusion,
    prior_by_em,
)

SOURCE = np.full(4, 0.25)
SHIFTED = np.array([0.1, 0.2, 0.3, 0.4])


def _rows(prior: np.ndarray, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are exactly calibrated under equal shares, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(4, size=count, p=prior)
    means = 1.6 * np.eye(4)
    x = means[labels] + generator.normal(size=(count, 4))
    return x @ means.T - 0.5 * (means**2).sum(axis=1), labels


@pytest.mark.parametrize("method", ["em", "confusion"])
def test_planted_shares_are_recovered_within_the_interval(method: str) -> None:
    validation, labels = _rows(SOURCE, 2000, seed=1)
    target, truth = _rows(SHIFTED, 4000, seed=2)
    estimate = estimate_prior(
        method, validation=validation, labels=labels, target=target, source=SOURCE, seed=0
    )
    assert estimate.refused is None
    np.testing.assert_allclose(estimate.prior, SHIFTED, atol=0.04)
    # With four 95% intervals, one may miss by a little.
    margin = 0.25 * (estimate.high - estimate.low)
    assert (estimate.low - margin <= SHIFTED).all()
    assert (estimate.high + margin >= SHIFTED).all()
    assert estimate.prior.sum() == pytest.approx(1.0)
    before = (target.argmax(1) == truth).mean()
    after = (correct_logits(target, source=SOURCE, prior=estimate.prior).argmax(1) == truth).mean()
    assert after > before


@pytest.mark.parametrize("method", ["em", "confusion"])
def test_a_class_without_training_rows_is_estimated_to_be_absent(method: str) -> None:
    validation, labels = _rows(np.array([0.3, 0.3, 0.4, 0.0]), 2000, seed=1)
    target, _ = _rows(np.array([0.2, 0.5, 0.3, 0.0]), 2000, seed=2)
    source = np.array([0.3, 0.3, 0.4, 0.0])
    learned = np.log(np.maximum(source, 1e-3) / 0.25)
    estimate = estimate_prior(
        method,
        validation=validation + learned,
        labels=labels,
        target=target + learned,
        source=source,
        seed=0,
    )
    assert estimate.refused is None
    np.testing.assert_allclose(estimate.prior, [0.2, 0.5, 0.3, 0.0], atol=0.04)
    assert estimate.prior[3] == estimate.high[3] == 0.0


def test_shares_of_classes_that_the_classifier_does_not_separate_are_refused() -> None:
    validation, labels = _rows(SOURCE, 500, seed=1)
    target, _ = _rows(SHIFTED, 500, seed=2)
    for logits in (validation, target):
        logits[:, 1] = logits[:, 0] - 0.1
    estimate = estimate_prior(
        "em", validation=validation, labels=labels, target=target, source=SOURCE, seed=0
    )
    assert estimate.refused is not None
    assert "does not separate some of the classes" in estimate.refused
    assert np.array_equal(estimate.prior, SOURCE)


def test_the_corrected_probabilities_are_those_of_bayes() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.05, 0.05]]))
    corrected = softmax(correct_logits(logits, source=SOURCE, prior=SHIFTED), axis=1)
    expected = np.array([0.7, 0.2, 0.05, 0.05]) * SHIFTED
    np.testing.assert_allclose(corrected[0], expected / expected.sum())


def test_stated_shares_are_met_by_the_mean_probabilities() -> None:
    logits, _ = _rows(SHIFTED, 2000, seed=5)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    offset = match_shares(logits, shares)
    np.testing.assert_allclose(softmax(logits + offset, axis=1).mean(axis=0), shares, atol=1e-5)
    unchanged = softmax(logits, axis=1).mean(axis=0)
    np.testing.assert_allclose(match_shares(logits, unchanged), 0.0, atol=1e-4)


@pytest.mark.parametrize("entropy", [0.0, 0.1, 1.0])
def test_offsets_give_the_stated_shares_at_every_entropy(entropy: float) -> None:
    logits = np.random.default_rng(0).normal(size=(2000, 4)) * 3.0
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    shifted = logits + match_shares(logits, shares, entropy=entropy)
    predicted = np.bincount(shifted.argmax(1), minlength=4) / len(shifted)
    if entropy == 0.0:
        np.testing.assert_allclose(predicted, shares, atol=2e-3)
    else:
        np.testing.assert_allclose(softmax(shifted / entropy, axis=1).mean(0), shares, atol=1e-4)


def test_with_slack_the_shares_are_between_those_stated_and_those_predicted() -> None:
    logits = np.random.default_rng(0).normal(size=(2000, 3)) * 2.0 + np.array([1.0, 0.0, 0.0])
    shares = np.array([0.1, 0.45, 0.45])
    first = [
        float(softmax(logits + match_shares(logits, shares, slack=slack), axis=1).mean(0)[0])
        for slack in (0.0, 0.5, 5.0)
    ]
    unmatched = float(softmax(logits, axis=1).mean(0)[0])
    assert first[0] == pytest.approx(0.1, abs=1e-4)
    assert first[0] < first[1] < first[2] < unmatched


def test_a_class_with_a_share_of_zero_is_hardly_predicted() -> None:
    logits = np.random.default_rng(0).normal(size=(500, 3))
    offset = match_shares(logits, np.array([0.5, 0.5, 0.0]))
    assert np.isfinite(offset).all()
    assert softmax(logits + offset, axis=1).mean(0)[2] < 1e-4


def test_confusion_columns_are_distributions() -> None:
    confusion = confusion_of(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    np.testing.assert_allclose(confusion, [[1.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]])


@given(st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4))
def test_estimated_shares_are_never_negative_and_sum_to_one(values: list[float]) -> None:
    predicted = np.array(values) / sum(values)
    confusion = 0.7 * np.eye(4) + 0.075
    by_confusion = prior_by_confusion(confusion / confusion.sum(axis=0), predicted)
    assert by_confusion.sum() == pytest.approx(1.0)
    assert (by_confusion >= 0.0).all()
    probabilities = np.eye(4)[np.random.default_rng(0).choice(4, size=50, p=predicted)]
    by_em = prior_by_em(probabilities * 0.9 + 0.025, SOURCE)
    assert by_em.sum() == pytest.approx(1.0)
    assert (by_em >= 0.0).all()

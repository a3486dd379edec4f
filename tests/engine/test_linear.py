"""Logistic regression on features and on TF-IDF weights."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from pennyweight.engine.linear import LinearOptions, fit_logistic, fit_tfidf


def make(classes: int, rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    features, labels = make_classification(
        rows, 20, n_informative=10, n_classes=classes, n_clusters_per_class=1, random_state=0
    )
    return (3.0 * features + 1.0).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("classes", [2, 5])
def test_probabilities_equal_scikit_learn_s_on_standardized_features(classes: int) -> None:
    features, labels = make(classes)
    fitted = fit_logistic(features, labels, LinearOptions(classes, seed=0))
    centred = features - features.mean(axis=0)
    standardized = centred / centred.std()
    model = LogisticRegression(C=fitted.strength, max_iter=1000).fit(standardized, labels)
    np.testing.assert_allclose(
        softmax(fitted.logits(features), axis=1), model.predict_proba(standardized), atol=2e-3
    )


def test_noise_is_regularized_more_than_signal() -> None:
    features, labels = make(3)
    noise = np.random.default_rng(0).permutation(labels)
    options = LinearOptions(3, seed=0)
    strengths = [fit_logistic(features, y, options).strength for y in (labels, noise)]
    assert strengths[1] < strengths[0]


def test_what_all_rows_have_in_common_does_not_weaken_the_fit() -> None:
    features, labels = make(3)
    # As in the outlier dimensions of RoBERTa's hidden states.
    common = np.zeros(20, dtype=np.float32)
    common[:2] = 300.0
    plain, moved = (
        fit_logistic(each, labels, LinearOptions(3, seed=0))
        for each in (features, features + common)
    )
    assert moved.strength == plain.strength
    np.testing.assert_allclose(
        softmax(moved.logits(features + common), axis=1),
        softmax(plain.logits(features), axis=1),
        atol=5e-3,
    )


def test_a_class_without_rows_is_improbable() -> None:
    features, labels = make(3)
    fitted = fit_logistic(features, labels, LinearOptions(5, seed=0))
    assert fitted.weight.shape == (5, 20)
    assert softmax(fitted.logits(features), axis=1)[:, 3:].max() < 0.01


def test_a_class_with_one_row_is_learned() -> None:
    features, labels = make(2)
    labels[0] = 2
    fitted = fit_logistic(features, labels, LinearOptions(3, seed=0))
    assert np.isfinite(fitted.logits(features)).all()


def test_the_only_class_is_predicted_for_every_row() -> None:
    features, _ = make(2)
    fitted = fit_logistic(features, np.ones(300, dtype=np.int64), LinearOptions(2, seed=0))
    assert (fitted.logits(features).argmax(axis=1) == 1).all()


def test_with_many_rows_newton_s_method_finds_the_same_regression() -> None:
    features, labels = make(3, rows=900)
    several = np.eye(3, dtype=np.int64)[labels]
    fitted = fit_logistic(features, several, LinearOptions(3, seed=0, strength=0.1))
    centred = features - features.mean(axis=0)
    standardized = centred / centred.std()
    for number in range(3):
        model = LogisticRegression(C=0.1, max_iter=1000, tol=1e-6)
        model.fit(standardized, several[:, number])
        np.testing.assert_allclose(
            expit(fitted.logits(features)[:, number]),
            model.predict_proba(standardized)[:, 1],
            atol=1e-3,
        )


def test_several_labels_are_independent_regressions() -> None:
    features, labels = make(4)
    both = np.stack([labels == 0, labels < 2, labels == 9], axis=1).astype(np.int64)
    logits = fit_logistic(features, both, LinearOptions(3, seed=0)).logits(features)
    assert ((logits > 0) == both).mean() > 0.85
    assert (logits[:, 2] < -5).all()


def test_many_rows_choose_the_strength_on_a_held_out_part() -> None:
    features, labels = make(3, rows=2500)
    fitted = fit_logistic(features, labels, LinearOptions(3, seed=0))
    assert (fitted.logits(features).argmax(axis=1) == labels).mean() > 0.7


def test_the_same_seed_gives_the_same_classifier() -> None:
    features, labels = make(3)
    first, second = (fit_logistic(features, labels, LinearOptions(3, seed=4)) for _ in range(2))
    np.testing.assert_array_equal(first.weight, second.weight)


def test_words_tell_classes_apart() -> None:
    texts = ["a good film", "a bad film", "good", "bad", "...", "good good", "bad!"]
    labels = np.array([1, 0, 1, 0, 0, 1, 0])
    fitted = fit_tfidf(texts, labels, LinearOptions(2, seed=0))
    assert fitted.logits(["what a good day", "bad luck"]).argmax(axis=1).tolist() == [1, 0]
    assert fitted.logits(["", "unknown"]).shape == (2, 2)

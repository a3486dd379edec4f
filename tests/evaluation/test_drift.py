"""Drift: distances and estimated accuracies are those of planted rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pennyweight.evaluation.drift import (
    KnownRows,
    expected_accuracy,
    feature_distance,
    rows_behind,
)
from pennyweight.evaluation.metrics import Metrics, measure


def _calibrated(rows: int, low: float, *, seed: int) -> KnownRows:
    """Return rows whose confidence is right, uniform from `low` to 1."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(low, 1.0, size=rows)
    return KnownRows(confidence, generator.random(rows) < confidence)


def test_features_of_one_population_are_as_far_apart_as_chance_makes_them() -> None:
    generator = np.random.default_rng(0)
    known, same = generator.normal(size=(300, 8)), generator.normal(size=(200, 8))
    distance = feature_distance(known, same, seed=1)
    assert distance.distance < 1.2 * distance.chance
    assert distance.p > 0.05
    moved = feature_distance(known, same + 0.5, seed=1)
    assert moved.distance > 2 * moved.chance
    assert moved.p == pytest.approx(1 / 501)
    farther = feature_distance(known, same + 2.0, seed=1)
    assert farther.distance > moved.distance


def test_the_distance_is_the_mean_difference_of_kernel_values() -> None:
    known, new = np.array([[0.0], [1.0]]), np.array([[3.0], [3.0], [4.0]])
    width = np.median([1, 9, 9, 16, 4, 4, 9, 0, 1, 1])

    def mean(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.exp(-((one - other.T) ** 2) / width).mean())

    expected = mean(known, known) + mean(new, new) - 2 * mean(known, new)
    assert feature_distance(known, new, seed=0).distance == pytest.approx(expected)


def test_equal_features_are_no_error() -> None:
    assert feature_distance(np.ones((3, 2)), np.ones((2, 2)), seed=0).distance == pytest.approx(0)


def test_accuracy_is_recovered_where_confidence_keeps_its_meaning() -> None:
    known, new = _calibrated(3000, 0.5, seed=0), _calibrated(2000, 0.3, seed=1)
    for estimate in expected_accuracy(known, new.confidence, seed=0):
        low, high = estimate.interval
        assert low < estimate.accuracy < high < low + 0.08
        if estimate.method == "doc":
            assert low < new.correct.mean() < high
        # With a threshold, the estimate is biased, but in the right direction.
        assert estimate.accuracy < known.correct.mean() - 0.05


def test_the_known_rows_themselves_get_their_own_accuracy() -> None:
    known = _calibrated(1000, 0.4, seed=2)
    for estimate in expected_accuracy(known, known.confidence, seed=0):
        assert estimate.accuracy == pytest.approx(known.correct.mean(), abs=1e-9)


def test_a_classifier_without_mistakes_is_expected_to_make_none() -> None:
    known = KnownRows(np.array([0.8, 0.9]), np.array([True, True]))
    atc, _ = expected_accuracy(known, np.array([0.85, 0.95]), seed=0)
    assert atc.accuracy == 1.0
    # Two rows say little, although all resamples are right.
    assert atc.interval[0] < 0.343
    many = KnownRows(np.full(200, 0.9), np.ones(200, dtype=bool))
    assert expected_accuracy(many, np.full(100, 0.9), seed=0)[0].interval == pytest.approx(
        (0.963, 1.0), abs=1e-3
    )
    never = KnownRows(known.confidence, ~known.correct)
    assert expected_accuracy(never, np.array([0.85]), seed=0)[0].accuracy == 0.0


def test_rows_behind_a_curve_give_nearly_the_same_estimates() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(3, size=900)
    logits = generator.normal(size=(900, 3)) + 1.5 * np.eye(3)[labels]
    metrics = measure(logits, labels, names=("a", "b", "c"))
    assert isinstance(metrics, Metrics)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = (exponentials / exponentials.sum(axis=1, keepdims=True)).max(axis=1)
    known = KnownRows(confidence, logits.argmax(axis=1) == labels)
    new = confidence[:300] ** 1.2
    for recorded in (metrics, replace(metrics, coverage=())):
        rows = rows_behind(recorded)
        assert len(rows.correct) == 900
        assert rows.correct.mean() == pytest.approx(metrics.accuracy)
        for one, other in zip(
            expected_accuracy(known, new, seed=0),
            expected_accuracy(rows, new, seed=0),
            strict=True,
        ):
            assert other.accuracy == pytest.approx(one.accuracy, abs=0.05)

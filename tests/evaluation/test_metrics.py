"""Metrics agree with numbers worked out by hand and with scikit-learn."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy.special import softmax
from sklearn import metrics as sk

from pennyweight.evaluation import Metrics, measure
from pennyweight.evaluation.calibration import calibration_error, reliability_diagram
from pennyweight.evaluation.intervals import wilson_interval

NAMES = ("a", "b")


def _logits(probabilities: list[list[float]]) -> np.ndarray:
    return np.log(np.asarray(probabilities))


def test_every_metric_of_four_rows_equals_the_value_worked_out_by_hand() -> None:
    logits = _logits([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    metrics = measure(logits, np.array([0, 1, 1, 1]), names=NAMES)

    assert metrics.rows == 4
    assert metrics.accuracy == 0.75
    assert metrics.confusion == ((1, 0), (1, 2))
    # Class a: 1 of 2 predictions right, 1 of 1 rows recalled; class b: 2 of 2, and 2 of 3.
    assert [(c.precision, c.recall, c.rows) for c in metrics.classes] == [
        (0.5, 1.0, 1),
        (1.0, pytest.approx(2 / 3), 3),
    ]
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 0.8) / 2)
    assert metrics.nll == pytest.approx(-sum(map(math.log, (0.9, 0.4, 0.7, 0.8))) / 4)
    assert metrics.brier == pytest.approx(2 * (0.1**2 + 0.6**2 + 0.3**2 + 0.2**2) / 4)
    # Four bins of one row each: gaps 0.1, 0.6 (confident and wrong), 0.3 and 0.2.
    assert metrics.ece == pytest.approx((0.1 + 0.6 + 0.3 + 0.2) / 4)


def test_every_metric_agrees_with_scikit_learn_on_random_rows() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(200, 4)).astype(np.float32) * 3
    labels = generator.integers(0, 4, size=200)
    metrics = measure(logits, labels, names=("a", "b", "c", "d"))
    probabilities, predicted = softmax(logits.astype(np.float64), axis=1), logits.argmax(axis=1)

    assert metrics.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert metrics.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert metrics.nll == pytest.approx(sk.log_loss(labels, probabilities))
    assert np.array_equal(metrics.confusion, sk.confusion_matrix(labels, predicted))
    one_hot = np.eye(4)[labels]
    assert metrics.brier == pytest.approx(((probabilities - one_hot) ** 2).sum(axis=1).mean())


def test_the_wilson_interval_of_8_in_10_is_the_published_one() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)


@pytest.mark.parametrize(("hits", "end"), [(0, 0), (10, 1)])
def test_the_interval_of_none_or_all_right_touches_the_end_and_is_not_empty(
    hits: int, end: int
) -> None:
    interval = wilson_interval(hits, 10)
    assert interval[end] == pytest.approx(end)
    assert interval[1] - interval[0] > 0.2


@settings(max_examples=60)
@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_contains_the_accuracy_and_stays_within_0_and_1(case: tuple[int, int]) -> None:
    hits, rows = case
    low, high = wilson_interval(hits, rows)
    assert 0 <= low <= hits / rows + 1e-12
    assert hits / rows - 1e-12 <= high <= 1


def test_calibration_error_pools_the_rows_of_a_bin() -> None:
    # Bin 0.5 to 1: confidences 0.6, 0.8, 1.0, of which two are right: |2.4 - 2| / 3.
    probabilities = np.array([[0.6, 0.4], [0.2, 0.8], [1.0, 0.0]])
    diagram = reliability_diagram(probabilities, np.array([0, 1, 1]), bins=2)
    assert calibration_error(diagram) == pytest.approx(0.4 / 3)


def test_a_class_without_rows_or_predictions_does_not_count_and_is_not_warned_of() -> None:
    metrics = measure(_logits([[0.5, 0.4, 0.1]] * 2), np.array([0, 0]), names=("a", "b", "c"))
    assert (metrics.accuracy, metrics.macro_f1) == (1.0, 1.0)
    assert metrics.classes[2].rows == 0


def test_every_metric_of_extreme_logits_is_finite() -> None:
    metrics = measure(np.array([[1e4, -1e4], [1e4, -1e4]]), np.array([0, 1]), names=NAMES)
    assert all(map(math.isfinite, metrics.scalars().values()))


@pytest.mark.parametrize("labels", [[], [-1, 0], [0, 2]])
def test_rows_without_a_usable_label_are_refused(labels: list[int]) -> None:
    logits = np.zeros((len(labels), 2))
    with pytest.raises(ValueError, match="labels from 0 to 1 only"):
        measure(logits, np.array(labels, dtype=int), names=NAMES)


def test_metrics_survive_a_round_trip_through_json() -> None:
    metrics = measure(
        _logits([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]), np.array([0, 1, 1]), names=NAMES
    )
    adapter = TypeAdapter(Metrics)
    assert adapter.validate_json(adapter.dump_json(metrics)) == metrics
    assert adapter.validate_json(json.dumps(metrics.to_json())) == metrics


def test_importing_the_metrics_loads_neither_torch_nor_scikit_learn_nor_scipy() -> None:
    code = (
        "import sys, pennyweight.evaluation.metrics; "
        "sys.exit(', '.join({'torch', 'sklearn', 'scipy', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")

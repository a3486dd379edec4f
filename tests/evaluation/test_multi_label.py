"""Metrics of multi-label classifiers, and the figure that is shown first."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.special import expit, logit
from sklearn import metrics as sk

from pennyweight.evaluation import AnyMetrics, Metrics, MultiLabelMetrics, measure

NAMES = ("a", "b", "c")


def _example() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = (generator.random((120, 3)) < (0.5, 0.3, 0.1)).astype(np.int64)
    return (2.0 * labels - 1.0 + generator.normal(size=(120, 3))).astype(np.float32), labels


def test_every_metric_agrees_with_scikit_learn_on_random_rows() -> None:
    logits, labels = _example()
    thresholds = np.array([0.5, 0.4, 0.3])
    metrics = measure(logits, labels, names=NAMES, thresholds=thresholds)
    probabilities = expit(logits.astype(np.float64))
    predicted = probabilities >= thresholds
    assert isinstance(metrics, MultiLabelMetrics)
    assert metrics.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert metrics.accuracy_interval[0] < metrics.accuracy < metrics.accuracy_interval[1]
    for name in ("micro", "macro"):
        value = getattr(metrics, f"{name}_f1")
        assert value == pytest.approx(sk.f1_score(labels, predicted, average=name))
        low, high = getattr(metrics, f"{name}_f1_interval")
        assert low < value < high
    areas = sk.average_precision_score(labels, probabilities, average=None)
    assert metrics.mean_average_precision == pytest.approx(areas.mean())
    assert metrics.nll == pytest.approx(sk.log_loss(labels.ravel(), probabilities.ravel()))
    assert metrics.brier == pytest.approx(((probabilities - labels) ** 2).mean())
    for index, entry in enumerate(metrics.classes):
        column = (labels[:, index], predicted[:, index])
        assert entry.precision == pytest.approx(sk.precision_score(*column))
        assert entry.recall == pytest.approx(sk.recall_score(*column))
        assert (entry.rows, entry.threshold) == (labels[:, index].sum(), thresholds[index])
        assert entry.average_precision == pytest.approx(areas[index])


def test_the_calibration_error_is_over_the_decisions_of_all_classes() -> None:
    probabilities = np.array([[0.9, 0.2], [0.8, 0.4]])
    metrics = measure(logit(probabilities), np.array([[1, 0], [1, 1]]), names=("a", "b"), bins=2)
    # The upper bin has 0.9 and 0.8, both right; the lower one 0.2 and 0.4, of which one is.
    assert metrics.ece == pytest.approx((2 * 0.15 + 2 * 0.2) / 4)
    assert [each.rows for each in metrics.reliability] == [2, 2]


def test_without_thresholds_a_class_is_given_from_a_half_on() -> None:
    metrics = measure(np.array([[0.0, -0.1]]), np.array([[1, 0]]), names=("a", "b"))
    assert metrics.accuracy == 1.0
    assert [entry.threshold for entry in metrics.classes] == [0.5, 0.5]


def test_classes_without_rows_have_no_average_precision_and_give_no_warning() -> None:
    metrics = measure(np.zeros((4, 2)), np.array([[1, 0]] * 4), names=("a", "b"))
    assert metrics.classes[1].average_precision is None
    assert metrics.mean_average_precision == 1.0
    nothing = measure(np.zeros((4, 2)) - 1.0, np.zeros((4, 2), dtype=int), names=("a", "b"))
    assert (nothing.mean_average_precision, nothing.macro_f1, nothing.accuracy) == (0.0, 0.0, 1.0)
    assert all(map(math.isfinite, nothing.scalars().values()))


@pytest.mark.parametrize("labels", [np.zeros((0, 2), int), np.full((2, 2), -1), np.ones((2, 3))])
def test_rows_without_usable_labels_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels of 0 and 1 for each of 2 classes"):
        measure(np.zeros((len(labels), 2)), labels, names=("a", "b"))


def test_both_kinds_of_metrics_survive_a_round_trip_through_json() -> None:
    logits, labels = _example()
    adapter = TypeAdapter(AnyMetrics)
    for kind, given in ((Metrics, labels.argmax(axis=1)), (MultiLabelMetrics, labels)):
        metrics = measure(logits, given, names=NAMES)
        assert isinstance(metrics, kind)
        assert adapter.validate_json(adapter.dump_json(metrics)) == metrics
        assert adapter.validate_json(json.dumps(metrics.to_json())) == metrics


def test_the_headline_is_macro_f1_where_the_largest_class_has_over_three_times_the_smallest() -> (
    None
):
    even = measure(np.zeros((4, 2)), np.array([0, 0, 0, 1]), names=("a", "b"))
    assert not even.has_uneven_classes
    assert even.headline.metric == "accuracy"
    assert even.headline.value == 0.75
    assert even.headline.interval == even.accuracy_interval
    uneven = measure(np.zeros((5, 2)), np.array([0, 0, 0, 0, 1]), names=("a", "b"))
    assert uneven.has_uneven_classes
    assert uneven.headline.metric == "macro_f1"
    assert uneven.headline.value == uneven.macro_f1
    assert uneven.headline.interval == uneven.macro_f1_interval


def test_classes_that_a_set_lacks_do_not_count() -> None:
    logits = 4.0 * np.eye(5)[[0, 2, 3]]
    right = measure(logits, np.array([0, 2, 3]), names=tuple("abcde"))
    assert not right.has_uneven_classes
    assert right.macro_f1 == 1.0
    assert right.macro_f1_interval == (1.0, 1.0)
    # A class that is only answered counts as 0.
    wrong = measure(logits, np.array([0, 2, 2]), names=tuple("abcde"))
    assert wrong.macro_f1 == pytest.approx((1.0 + 2 / 3 + 0.0) / 3)


def test_the_headline_of_a_multi_label_task_is_macro_f1() -> None:
    logits, labels = _example()
    headline = measure(logits, labels, names=NAMES).headline
    assert headline.metric == "macro_f1"
    assert headline.interval is not None


def test_no_resamples_give_no_intervals_of_f1() -> None:
    logits, labels = _example()
    assert measure(logits, labels, names=NAMES, resamples=0).macro_f1_interval is None
    single = measure(logits, labels.argmax(axis=1), names=NAMES, resamples=0)
    assert single.macro_f1_interval is None

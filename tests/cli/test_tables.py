"""What the terminal shows of metrics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pennyweight.cli.tables import headline, show_metrics
from pennyweight.evaluation import Metrics, measure

NAMES = ("a", "b")


def test_the_headline_is_the_accuracy_where_classes_are_even() -> None:
    metrics = measure(np.array([[1.0, 0.0]] * 4), np.array([0, 0, 1, 1]), names=NAMES)
    line = headline("test", metrics)
    assert line.startswith("test accuracy 50.00% (95% interval 15.")
    assert line.endswith("%, 4 rows)")


def test_the_headline_is_macro_f1_before_the_accuracy_where_classes_are_uneven() -> None:
    metrics = measure(np.array([[1.0, 0.0]] * 8), np.array([0] * 7 + [1]), names=NAMES)
    line = headline("test", metrics)
    assert line.startswith("test macro F1 46.67% (95% interval ")
    assert line.endswith("%, 8 rows), accuracy 87.50%")
    assert isinstance(metrics, Metrics)
    older = headline("test", replace(metrics, macro_f1_interval=None))
    assert older == "test macro F1 46.67% (8 rows), accuracy 87.50%"


def test_a_multi_label_task_shows_the_threshold_and_average_precision_of_each_class(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logits, labels = np.array([[1.0, -2.0], [-1.0, -2.0]]), np.array([[1, 0], [0, 0]])
    show_metrics(measure(logits, labels, names=NAMES, thresholds=np.array([0.25, 0.5])))
    shown = capsys.readouterr().out
    assert "threshold" in shown
    row = next(line for line in shown.splitlines() if line.split()[:1] == ["a"])
    assert row.split() == ["a", "0.500", "1.000", "0.667", "1.000", "0.250", "1"]
    assert "micro F1 0.6667, mean average precision 1.0000" in shown
    assert "macro F1" in headline("test", measure(logits, labels, names=NAMES))

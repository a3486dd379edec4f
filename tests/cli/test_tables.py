"""Tables fit the terminal, and cut nothing off."""

from __future__ import annotations

import numpy as np
import pytest

from pennyweight.cli.tables import show_metrics
from pennyweight.evaluation.metrics import Metrics, measure


def _metrics(number: int) -> Metrics:
    draw = np.random.default_rng(0)
    labels = draw.integers(number, size=20 * number)
    logits = np.eye(number)[labels] + draw.normal(0, 0.5, (len(labels), number))
    return measure(logits, labels, names=[f"the class {index:02d}" for index in range(number)])


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_few_classes_come_with_their_confusion_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = _metrics(2)
    show_metrics(metrics)
    header, first, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == [
        *("class", "precision", "recall", "F1", "rows"),
        *("the", "class", "00", "the", "class", "01"),
    ]
    assert first.split()[-2:] == [str(count) for count in metrics.confusion[0]]


@pytest.mark.parametrize("number", [9, 77])
def test_scores_of_many_classes_are_complete(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = _metrics(number)
    show_metrics(metrics, all_classes=True)
    output = capsys.readouterr().out
    for entry in metrics.classes:
        scores = f"{entry.precision:.3f}", f"{entry.recall:.3f}", f"{entry.f1:.3f}"
        assert [entry.label, *scores, str(entry.rows)] in [
            [line[:13].strip(), *line[13:].split()] for line in output.splitlines()
        ]
    assert "Largest confusions" in output
    assert "\N{HORIZONTAL ELLIPSIS}" not in output
    assert all(line.strip() for line in output.splitlines())


def test_of_many_classes_the_hardest_are_shown_and_the_others_can_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = _metrics(77)
    show_metrics(metrics)
    output = capsys.readouterr().out
    hardest = sorted(metrics.classes, key=lambda entry: entry.f1)[:20]
    lines = output.splitlines()
    assert [line[:13].strip() for line in lines[1:21]] == [entry.label for entry in hardest]
    assert "(77 classes; these are the 20 with the lowest F1; --all-classes shows" in output

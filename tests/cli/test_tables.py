"""Tables fit the terminal, and cut nothing off."""

from __future__ import annotations

import numpy as np
import pytest

from pennyweight.cli.tables import show_metrics, show_study
from pennyweight.evaluation.metrics import Metrics, measure
from pennyweight.evaluation.statistics import mean_interval
from pennyweight.search.studies import StudyRow


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


def _study_row(accuracies: list[float]) -> StudyRow:
    return StudyRow(
        name="one",
        seeds=list(range(len(accuracies))),
        accuracies={"test": accuracies},
        mean={"test": float(np.mean(accuracies))},
        deviation={"test": None},
        interval={"test": mean_interval(accuracies)},
        p={"test": None},
        predicted_shares={},
        parameters=10,
        seconds=1.0,
        peak_memory_bytes=1,
        leaks=[],
        transductive=[],
        failures={},
    )


def test_two_seeds_have_a_range_and_three_an_interval(capsys: pytest.CaptureFixture[str]) -> None:
    show_study([_study_row([0.6, 0.75])])
    assert "67.50 (2 seeds: range 60.0 to 75.0)" in capsys.readouterr().out
    show_study([_study_row([0.6, 0.61, 0.62])])
    assert "61.00 (58.5 to 63.5)" in capsys.readouterr().out
    show_study([_study_row([0.6])])
    assert "60.00 " in capsys.readouterr().out

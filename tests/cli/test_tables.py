"""Tables fit the terminal, and cut nothing off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pennyweight.cli.study_tables import show_study
from pennyweight.cli.tables import baseline_line, headline, print_line, show_metrics, show_table
from pennyweight.evaluation.metrics import Metrics, measure
from pennyweight.evaluation.statistics import mean_interval
from pennyweight.runs.record import BaselineRecord
from pennyweight.search.choosing import Choice, Tried
from pennyweight.search.studies import StudyRow
from runs.records import example_record

NAMES = ("a", "b")


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
        metric="accuracy",
        values={"test": accuracies},
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


def test_a_study_shows_the_adjusted_p_value(capsys: pytest.CaptureFixture[str]) -> None:
    row = replace(_study_row([0.6, 0.7]), p={"test": 0.02}, adjusted_p={"test": 0.06})
    show_study([row])
    output = capsys.readouterr().out
    assert "0.060" in output
    assert "0.020" not in output


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


def test_of_many_labels_the_hardest_are_shown_and_the_others_can_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = np.random.default_rng(0)
    labels = (draw.random((60, 25)) < 0.3).astype(np.int64)
    logits = 2.0 * labels - 1.0 + draw.normal(0, 1, labels.shape)
    metrics = measure(logits, labels, names=[f"label-{index}" for index in range(25)])
    show_metrics(metrics)
    output = capsys.readouterr().out
    hardest = sorted(metrics.classes, key=lambda entry: entry.f1)[:20]
    assert [line.split()[0] for line in output.splitlines()[1:21]] == [e.label for e in hardest]
    assert "(25 classes; these are the 20 with the lowest F1; --all-classes shows" in output
    show_metrics(metrics, all_classes=True)
    assert all(entry.label in capsys.readouterr().out for entry in metrics.classes[:1])


def test_baselines_are_one_line_in_the_metric_of_the_run() -> None:
    record = example_record()
    accuracy = record.baselines["tf-idf"].metrics["test"].accuracy
    assert baseline_line("test", record) == f"baselines on test: TF-IDF {accuracy:.1%}"
    even = measure(np.array([[1.0, 0.0]] * 4), np.array([0, 0, 1, 1]), names=NAMES)
    uneven = measure(np.array([[1.0, 0.0]] * 8), np.array([0] * 7 + [1]), names=NAMES)
    both = {
        name: BaselineRecord(seconds=1.0, metrics={"test": even})
        for name in ("tf-idf", "embedding")
    }
    record = example_record(metrics={"test": uneven, "shifted": even}, baselines=both)
    expected = f"baselines on test: embeddings {even.macro_f1:.1%}, TF-IDF {even.macro_f1:.1%}"
    assert baseline_line("test", record) == expected
    assert baseline_line("shifted", record) is None


def test_a_study_shows_its_baselines_once_where_they_are_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = replace(_study_row([0.6, 0.7]), baselines={"test": {"tf-idf": 0.5}})
    show_study([one, replace(one, name="two")])
    assert capsys.readouterr().out.count("baselines on test: TF-IDF 50.0%") == 1
    show_study([one, replace(one, name="two", baselines={"test": {"tf-idf": 0.4}})])
    assert "two: baselines on test: TF-IDF 40.0%" in capsys.readouterr().out


def test_a_study_over_data_sets_has_a_table_for_each_and_ranks_with_chosen_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    tried = [Tried({"optimizer.learning_rate": 0.1}, 0.5)]
    edge = Choice({"optimizer.learning_rate": 0.1}, "accuracy", tried, ["optimizer.learning_rate"])
    rows = [
        replace(_study_row([value]), name=name, dataset=dataset, budget=1000, choice=choice)
        for dataset in ("news", "mood")
        for name, value, choice in (("a", 0.6, edge), ("b", 0.7, replace(edge, at_edge=[])))
    ]
    show_study([*rows[:-1], replace(rows[-1], failures={"1": "no luck"})])
    output = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert lines.index("Data set news") < lines.index("Data set mood")
    assert lines.count("a 1 test 60.00 10 1 0.1*") == 2
    assert lines.count("b 1 test 70.00 10 1 0.1") == 2
    assert "b, mood, seed 1: failed: no luck" in lines
    assert any("edge of its list in 2 of 4 choices" in line for line in lines)
    assert "b 1.00 1 1 70.00 10" in lines
    assert any(line.startswith("critical difference 1.39") for line in lines)


def test_square_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("before", "after"), [("see [link]http://x[/link]", "[/url] [b]x[/b] :smile:")])
    print_line("[spam] and [/spam]")
    out = capsys.readouterr().out
    assert "see [link]http://x[/link]" in out
    assert "[/url] [b]x[/b] :smile:" in out
    assert "[spam] and [/spam]" in out

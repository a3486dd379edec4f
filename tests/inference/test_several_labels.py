"""Using a run whose rows may have several labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pennyweight.cli.main import app
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.evaluate import evaluate
from pennyweight.inference.predict import OutputOptions, best_labels, predict
from pennyweight.report.write import write_report
from pennyweight.runs.record import load_record
from pennyweight.training.train import train
from tiny import LABELS, news, tiny_recipe, write_several_labels

TEXTS = [text for _, text in news(20, seed=11)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_several_labels(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def several_run(bert: Path, folder: Path) -> Path:
    data = {"task": "multi-label", "label_separator": "|"}
    train(tiny_recipe(bert, folder, data=data, train={"epochs": 4}), out=folder / "run")
    return folder / "run"


def test_csv_holds_the_labels_in_one_cell_and_every_probability(
    several_run: Path, folder: Path, tmp_path: Path
) -> None:
    predict(several_run, str(folder / "test.csv"), out=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # The input has a column "label", which is no column of the answer.
    probabilities = [f"probability of {label}" for label in LABELS]
    assert list(rows[0]) == ["row", "label", "text", "labels", *probabilities]
    classifier = Classifier.load(several_run)
    given = classifier.predict([row["text"] for row in rows])
    assert [row["labels"] for row in rows] == list(map("|".join, given))
    expected = classifier.predict_probabilities([row["text"] for row in rows])
    shown = [[float(row[name]) for name in probabilities] for row in rows]
    np.testing.assert_allclose(shown, expected, atol=1e-5)


def test_json_lines_hold_a_list_of_labels(several_run: Path, tmp_path: Path) -> None:
    out, classifier = tmp_path / "out.jsonl", Classifier.load(several_run)
    predict(several_run, TEXTS, out=out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert list(rows[0]) == ["row", "text", "labels", "probabilities"]
    assert [row["labels"] for row in rows] == classifier.predict(TEXTS)
    assert list(rows[0]["probabilities"]) == list(LABELS)


def test_the_best_labels_stand_beside_those_that_are_given(
    several_run: Path, tmp_path: Path
) -> None:
    options = OutputOptions(columns=(), top_k=2)
    predict(several_run, TEXTS, out=tmp_path / "out.csv", output=options)
    predict(several_run, TEXTS, out=tmp_path / "out.jsonl", output=options)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["label", "confidence", "label 2", "confidence 2"]
    assert list(rows[0]) == ["row", "labels", *columns]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert list(lines[0]) == ["row", "labels", "top"]
    for row, line in zip(rows, lines, strict=True):
        assert [row["label"], row["label 2"]] == [entry["label"] for entry in line["top"]]
        assert row["labels"] == "|".join(line["labels"])


def test_input_columns_with_the_names_of_an_answer_are_renamed_in_json_lines(
    several_run: Path, tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "the goal", "labels": "mine", "probabilities": 1, "top": 2}\n')
    renamed = predict(several_run, str(data), out=tmp_path / "out.jsonl").renamed
    assert renamed == {"labels": "input labels", "probabilities": "input probabilities"}
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (row["input labels"], row["input probabilities"], row["top"]) == ("mine", 1, 2)


def test_the_labels_of_a_text_are_those_that_reach_their_threshold(several_run: Path) -> None:
    classifier = Classifier.load(several_run)
    best = best_labels(classifier, TEXTS)
    assert [[label for label, _ in one] for one in best] == classifier.predict(TEXTS)
    top = best_labels(classifier, TEXTS, number=3)
    assert all(len(one) == 3 for one in top)
    probabilities = classifier.predict_probabilities(TEXTS)
    assert [one[0][1] for one in top] == pytest.approx(probabilities.max(axis=1).tolist())


def test_the_command_line_prints_every_label_of_a_text(several_run: Path) -> None:
    result = CliRunner().invoke(app, ["predict", str(several_run), *TEXTS])
    assert result.exit_code == 0, result.output
    given = Classifier.load(several_run).predict(TEXTS)
    expected = [(label, text) for text, some in zip(TEXTS, given, strict=True) for label in
                (some or ["(no label)"])]  # fmt: skip
    lines = result.stdout.splitlines()
    assert len(lines) == len(expected)
    for line, (label, text) in zip(lines, expected, strict=True):
        assert line.startswith(label)
        assert line.endswith(text)


def test_evaluate_leads_with_macro_f1(several_run: Path, folder: Path) -> None:
    arguments = ["evaluate", str(several_run), "--data", str(folder / "test.csv")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    macro_f1 = load_record(several_run).metrics["test"].macro_f1
    assert f"macro F1 {macro_f1:.2%}" in result.stdout.splitlines()[-1]
    assert "threshold" in result.stdout.splitlines()[0]


def test_onnx_runtime_gives_the_same_labels(several_run: Path, folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch, onnx = Classifier.load(several_run), Classifier.load(several_run, backend="onnx")
    probabilities = torch.predict_probabilities(TEXTS)
    np.testing.assert_allclose(onnx.predict_probabilities(TEXTS), probabilities, atol=1e-5)
    assert onnx.predict(TEXTS) == torch.predict(TEXTS)
    test = str(folder / "test.csv")
    assert evaluate(several_run, test, backend="onnx").accuracy == (
        evaluate(several_run, test).accuracy
    )


def test_the_card_and_the_report_say_that_a_text_has_any_number_of_labels(
    several_run: Path, tmp_path: Path
) -> None:
    card = (several_run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "any number of 4 labels for each text" in card
    assert "| macro F1 (95% interval) |" in card
    pytest.importorskip("typst")
    write_report([several_run], out=tmp_path / "report")
    tex = (tmp_path / "report" / "paper.tex").read_text()
    assert "to give a text any number of four labels" in tex
    assert "validation macro F1" in tex

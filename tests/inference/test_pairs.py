"""Using a run whose rows are pairs of texts."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from typer.testing import CliRunner

from pennyweight.cli.main import app
from pennyweight.errors import DataError
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.evaluate import evaluate
from pennyweight.inference.merge import merge
from pennyweight.inference.predict import best_labels, predict
from pennyweight.report.write import write_report
from pennyweight.runs.record import load_record, save_record
from pennyweight.training.train import train
from tiny import tiny_recipe, write_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def pair_run(bert: Path, folder: Path) -> Path:
    train(tiny_recipe(bert, folder, train={"epochs": 2}), out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def pairs(folder: Path) -> list[tuple[str, str]]:
    with (folder / "test.csv").open(encoding="utf-8", newline="") as file:
        return [(row["premise"], row["hypothesis"]) for row in csv.DictReader(file)]


def test_pairs_in_memory_get_the_probabilities_of_those_in_a_file(
    pair_run: Path, folder: Path, pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    classifier = Classifier.load(pair_run)
    predict(pair_run, str(folder / "test.csv"), out=tmp_path / "out.csv")
    predict(pair_run, pairs, out=tmp_path / "memory.jsonl")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "memory.jsonl").read_text().splitlines()]
    labels = classifier.predict(pairs)
    assert [row["label"] for row in rows] == [line["label"] for line in lines] == labels
    assert [(row["premise"], row["hypothesis"]) for row in rows] == pairs
    probabilities = classifier.predict_probabilities(pairs)
    assert [float(row["confidence"]) for row in rows] == pytest.approx(
        probabilities.max(axis=1).tolist(), abs=1e-5
    )
    swapped = classifier.predict_probabilities([(other, one) for one, other in pairs])
    assert not np.allclose(swapped, probabilities, atol=1e-5)
    assert classifier.predict([]) == []


def test_evaluating_the_test_again_gives_the_recorded_metrics(pair_run: Path, folder: Path) -> None:
    recorded = load_record(pair_run).metrics["test"]
    again = evaluate(pair_run, str(folder / "test.csv"))
    assert again.accuracy == recorded.accuracy
    assert again.nll == pytest.approx(recorded.nll, rel=1e-5)


@pytest.mark.parametrize("texts", ["a goal", ["a goal"], ("a goal", "a bank"), [("a goal",)]])
def test_what_is_no_pair_is_refused_and_the_two_columns_are_named(
    pair_run: Path, texts: Any
) -> None:
    expected = r'texts: element 0 is .* classifies pairs of texts; .*"premise" and its "hypothesis"'
    with pytest.raises(DataError, match=expected):
        Classifier.load(pair_run).predict(texts)


def test_a_part_of_a_pair_that_is_no_text_is_refused(pair_run: Path) -> None:
    pair: Any = ("a goal", float("nan"))
    with pytest.raises(DataError, match="element 0 is nan of type float, not a text"):
        Classifier.load(pair_run).predict([pair])


def test_a_pair_is_refused_by_a_run_on_single_texts(run: Path) -> None:
    with pytest.raises(DataError, match="element 0 is a tuple, but this run classifies single te"):
        Classifier.load(run).predict([("a goal", "a bank")])
    table = datasets.Dataset.from_dict({"text": ["a goal"], "text_pair": ["a bank"]})
    with pytest.raises(DataError, match="classifies single texts, and these rows are pairs of t"):
        Classifier.load(run).outputs(table)


def test_texts_on_the_command_line_are_refused(pair_run: Path) -> None:
    expected = (
        "this run classifies pairs of texts, and these are single texts; use a CSV or JSON Lines "
        'file with the columns "premise" and "hypothesis"'
    )
    for arguments in ([], ["--format-out", "jsonl"]):
        result = CliRunner().invoke(app, ["predict", str(pair_run), "a goal", "a bank", *arguments])
        assert isinstance(result.exception, DataError)
        assert expected in str(result.exception)
    with pytest.raises(DataError, match=expected):
        best_labels(Classifier.load(pair_run), ["a goal"])


def test_lines_of_standard_input_are_refused_and_json_objects_are_read(
    pair_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pipe(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    pipe("a goal\na bank\n")
    with pytest.raises(DataError, match=r'^standard input: this run classifies pairs .*"premise"'):
        predict(pair_run, "-")
    pipe('{"premise": "the goal", "hypothesis": "a bank"}\n')
    predict(pair_run, "-")
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["label"] == Classifier.load(pair_run).predict([("the goal", "a bank")])[0]


def test_a_recipe_that_names_no_columns_is_known_to_be_on_pairs_by_its_record(
    pair_run: Path, pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    copy = shutil.copytree(pair_run, tmp_path / "run")
    record = load_record(copy)
    values = record.recipe.model_dump()
    values["data"]["train"] = str(values["data"]["train"]["location"])
    save_record(copy, record.with_changes(recipe=type(record.recipe).model_validate(values)))
    classifier = Classifier.load(copy)
    assert classifier.pair_columns == ("text", "text_pair")
    assert classifier.predict(pairs) == Classifier.load(pair_run).predict(pairs)


def test_plain_transformers_gets_the_same_labels_from_the_merged_model(
    pair_run: Path, pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    notes = merge(pair_run, out=tmp_path / "merged").notes
    assert any('"premise" as the text and "hypothesis" as the text pair' in note for note in notes)
    card = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    assert "one of 4 classes for each pair of texts (`premise`, `hypothesis`)" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace('model="DIRECTORY"', f"model={str(tmp_path / 'merged')!r}"), names)
    inputs = [{"text": one, "text_pair": other} for one, other in pairs]
    options = {"truncation": True, "max_length": 24}
    labels = [answer["label"] for answer in names["classify"](inputs, **options)]
    assert labels == Classifier.load(pair_run).predict(pairs)


def test_a_report_says_that_a_row_is_a_pair_and_its_notebook_classifies_pairs(
    pair_run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("typst")
    write_report([pair_run], out=tmp_path / "report")
    assert "to assign a pair of texts to one of four" in (tmp_path / "report/paper.tex").read_text()
    notebook = json.loads((tmp_path / "report/notebook.ipynb").read_text())
    cell = next(c for c in notebook["cells"] if "Classifier.load" in "".join(c["source"]))
    assert cell["outputs"][0]["text"]


def test_onnx_runtime_gives_the_same_probabilities(
    pair_run: Path, pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run = shutil.copytree(pair_run, tmp_path / "run")
    expected = Classifier.load(run).predict_probabilities(pairs)
    onnx = Classifier.load(run, backend="onnx").predict_probabilities(pairs)
    assert onnx == pytest.approx(expected, abs=1e-5)
    swapped = Classifier.load(run, backend="onnx").predict_probabilities(
        [(other, one) for one, other in pairs]
    )
    assert not np.allclose(swapped, expected, atol=1e-5)

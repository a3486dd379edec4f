"""Evaluate, predict and submit with a finished run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pennyweight.engine import onnx_backend
from pennyweight.errors import DataError, RunError
from pennyweight.runs import using
from pennyweight.runs.classifier import Classifier
from pennyweight.runs.record import load_record, save_record
from pennyweight.runs.training import train
from pennyweight.runs.using import evaluate, predict, submit
from runs.tiny import LABELS, news, tiny_recipe, write_news


@pytest.fixture(scope="module")
def run(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("using") / "run"
    train(tiny_recipe(bert, sets), out=out)
    return out


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """What stands in the unlabelled `unlabelled.csv`; one text comes twice."""
    found = [text for _, text in news(20, seed=11)]
    found.append(found[0])
    with (tmp_path / "unlabelled.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in found)])
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_stand_in_the_order_of_the_rows_with_their_probabilities(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "predictions.csv"
    assert predict(run, str(tmp_path / "unlabelled.csv"), out=out) == 21
    rows, classifier = _rows(out), Classifier.load(run)
    assert [row["label"] for row in rows] == classifier.predict(texts)
    numbers = [int(row["row"]) for row in rows]
    assert numbers == list(range(numbers[0], numbers[0] + 21))
    expected = classifier.predict_probabilities(texts)
    for row, probabilities in zip(rows, expected, strict=True):
        values = [float(row[f"probability of {label}"]) for label in LABELS]
        assert values == pytest.approx(probabilities.tolist(), abs=1e-5)
        assert float(row["confidence"]) == max(values)


def test_a_submission_has_id_and_label_as_whole_numbers_for_every_row(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "submission.csv"
    assert submit(run, str(tmp_path / "unlabelled.csv"), out=out) == 21
    labels = [LABELS.index(label) for label in Classifier.load(run).predict(texts)]
    lines = [f"{number},{label}" for number, label in enumerate(labels)]
    assert out.read_text(encoding="utf-8") == "\n".join(["ID,Label", *lines]) + "\n"


def test_a_submission_with_a_bad_row_is_not_written_and_leaves_the_old_one(
    run: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "bad.jsonl", tmp_path / "submission.csv"
    data.write_text('{"text": "the goal"}\n{"text": 7}\n{"text": "a bank"}\n')
    out.write_text("old")
    with pytest.raises(DataError, match="row 2"):
        submit(run, str(data), out=out)
    assert out.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.jsonl", "submission.csv"]


def test_a_failure_while_writing_leaves_no_file_behind(
    run: Path, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match="cannot be written: No space left"):
        submit(run, str(tmp_path / "unlabelled.csv"), out=tmp_path / "submission.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["unlabelled.csv"]


def test_a_missing_folder_is_named_and_not_made(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"there is no directory .*/away; make it first"):
        predict(run, str(tmp_path / "unlabelled.csv"), out=tmp_path / "away" / "out.csv")
    assert not (tmp_path / "away").exists()


def test_bad_rows_are_set_aside_in_the_run_when_asked(run: Path, tmp_path: Path) -> None:
    rows = [*news(8, seed=12), (7, "no such label")]
    data = str(write_news(tmp_path / "some_bad.csv", rows))
    with pytest.raises(DataError, match="row 9"):
        evaluate(run, data)
    assert evaluate(run, data, on_bad_row="set-aside").rows == 8
    aside = (run / "bad_rows" / "evaluate.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["row"] for line in aside] == [9]


def test_only_a_complete_run_can_be_used(run: Path, tmp_path: Path) -> None:
    record = load_record(run)
    save_record(tmp_path, record.with_changes(status="interrupted"))
    with pytest.raises(RunError, match=r"status is interrupted; .*--resume"):
        Classifier.load(tmp_path)
    save_record(tmp_path, record.with_changes(status="failed"))
    with pytest.raises(RunError, match=r"status is failed; only a complete run can be used$"):
        using.merge(tmp_path, out=tmp_path / "merged")
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(RunError, match=r"record\.json: cannot be read"):
        Classifier.load(tmp_path)


def test_no_texts_give_no_predictions(run: Path) -> None:
    classifier = Classifier.load(run)
    assert classifier.predict([]) == []
    assert classifier.predict_probabilities([]).shape == (0, 4)


def test_onnx_runtime_gives_the_same_probabilities_from_a_file_that_is_exported_once(
    run: Path, texts: list[str]
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    expected = Classifier.load(run).predict_probabilities(texts)
    found = Classifier.load(run, backend="onnx").predict_probabilities(texts)
    assert found == pytest.approx(expected, abs=1e-5)
    (exported,) = (run / "onnx").iterdir()
    written = (exported / "model.onnx").stat().st_mtime_ns
    test = str(run.parent / "test.csv")
    write_news(Path(test), news(20, seed=12))
    assert evaluate(run, test, backend="onnx").accuracy == evaluate(run, test).accuracy
    assert (exported / "model.onnx").stat().st_mtime_ns == written


def test_without_onnx_runtime_the_extra_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_backend.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RunError, match=r"pip install 'pennyweight\[onnx\]'"):
        Classifier.load(run, backend="onnx")

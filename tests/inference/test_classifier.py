"""The classifier of a finished run: what it predicts, and which runs it refuses."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
from scipy.special import softmax

from inference.damage import downgrade, flip_a_byte, make_weights_nan
from pennyweight.data.clean import cleaner
from pennyweight.engine import onnx_backend
from pennyweight.errors import DataError, NonFiniteLogitsError, RunError
from pennyweight.inference import texts as texts_module
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.evaluate import evaluate
from pennyweight.inference.merge import merge
from pennyweight.runs.record import load_record, save_record
from pennyweight.training.train import train
from tiny import LABELS, news, tiny_recipe, write_news


def _table(texts: list[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": texts})


def test_labels_are_those_with_the_highest_probability(run: Path, texts: list[str]) -> None:
    classifier = Classifier.load(run)
    probabilities = classifier.predict_probabilities(texts)
    assert probabilities.shape == (21, 4)
    assert probabilities.dtype == np.float64
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(21))
    assert classifier.labels == LABELS
    assert classifier.predict(texts) == [LABELS[i] for i in probabilities.argmax(axis=1)]


def test_a_column_of_a_data_frame_can_be_classified(run: Path, texts: list[str]) -> None:
    classifier = Classifier.load(run)
    frame = pandas.DataFrame({"text": texts}, index=range(5, 26))
    frame["label"] = classifier.predict(frame["text"])
    frame[list(classifier.labels)] = classifier.predict_probabilities(frame["text"])
    assert frame["label"].tolist() == classifier.predict(texts)
    assert frame[list(classifier.labels)].idxmax(axis=1).tolist() == frame["label"].tolist()


def test_what_is_not_a_text_is_refused_by_its_place(run: Path) -> None:
    classifier = Classifier.load(run)
    missing: Any = ["a goal", float("nan")]
    with pytest.raises(DataError, match="element 1 is nan of type float, not a text"):
        classifier.predict(missing)
    with pytest.raises(DataError, match="put it in a list"):
        classifier.predict_probabilities("a goal")


def test_no_texts_give_no_predictions(run: Path) -> None:
    classifier = Classifier.load(run)
    assert classifier.predict([]) == []
    assert classifier.predict_probabilities([]).shape == (0, 4)


def test_raw_texts_are_cleaned_as_in_training(bert: Path, sets: Path, tmp_path: Path) -> None:
    steps = ("html-entities", "whitespace")
    recipe = tiny_recipe(bert, sets, data={"clean": list(steps)}, train={"max_steps": 1})
    train(recipe, out=tmp_path / "run")
    classifier = Classifier.load(tmp_path / "run")
    raw = "the  bank&#32;says  a merger"
    clean = cleaner(steps)(raw)
    assert clean != raw
    probabilities = classifier.predict_probabilities([raw])
    rows = classifier.outputs(_table([clean])).logits.astype(np.float64)
    expected = np.exp(rows) / np.exp(rows).sum()
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_predicting_texts_needs_no_file_and_no_cache(
    run: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Classifier.load(run).predict(texts)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("predicting writes to the disk")

    for name in ("TemporaryDirectory", "NamedTemporaryFile", "mkdtemp", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    for name in ("map", "from_dict", "from_generator", "save_to_disk", "to_parquet"):
        monkeypatch.setattr(datasets.Dataset, name, refuse)
    classifier = Classifier.load(run)
    assert classifier.predict(texts) == expected


def test_rows_are_streamed_in_chunks_with_the_same_result(
    run: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier.load(run)
    whole = classifier.outputs(_table(texts), features=True)
    monkeypatch.setattr(texts_module, "_ROWS_PER_CHUNK", 8)
    chunks = list(classifier.stream(_table(texts), features=True))
    assert [len(chunk) for chunk in chunks] == [8, 8, 5]
    logits = np.concatenate([chunk.logits for chunk in chunks])
    np.testing.assert_allclose(logits, whole.logits, atol=1e-6)
    assert whole.features is not None
    assert whole.features.shape == (21, 32)
    assert classifier.outputs(_table(texts)).features is None
    again = classifier.outputs(_table(texts), features=True)
    np.testing.assert_allclose(again.logits, whole.logits, atol=1e-6)
    assert again.features is not None
    np.testing.assert_allclose(again.features, whole.features, atol=1e-6)


def test_no_rows_give_no_outputs(run: Path) -> None:
    outputs = Classifier.load(run).outputs(_table([]), features=True)
    assert outputs.logits.shape == (0, 4)
    assert outputs.features is not None
    assert outputs.features.shape == (0, 32)


def test_only_a_complete_run_can_be_used(run: Path, tmp_path: Path) -> None:
    record = load_record(run)
    save_record(tmp_path, record.with_changes(status="interrupted"))
    with pytest.raises(RunError, match=r"status is interrupted; .*--resume"):
        Classifier.load(tmp_path)
    save_record(tmp_path, record.with_changes(status="failed"))
    with pytest.raises(RunError, match=r"status is failed; only a complete run can be used$"):
        merge(tmp_path, out=tmp_path / "merged")
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(RunError, match=r"record\.json: cannot be read"):
        Classifier.load(tmp_path)


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json"]
)
def test_a_flipped_byte_in_the_artifact_is_refused_by_the_name_of_its_file(
    name: str, copied_run: Path
) -> None:
    flip_a_byte(copied_run / "adapter" / name)
    with pytest.raises(RunError) as caught:
        Classifier.load(copied_run)
    message = str(caught.value)
    assert message.startswith(f"{copied_run / 'adapter' / name}: its SHA-256 differs")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "pennyweight.json"])
def test_a_missing_file_of_the_artifact_is_refused_by_its_name(name: str, copied_run: Path) -> None:
    (copied_run / "adapter" / name).unlink()
    with pytest.raises(RunError) as caught:
        Classifier.load(copied_run)
    message = str(caught.value)
    assert message.startswith(f"{copied_run / 'adapter' / name}: missing, though ")
    assert "\n" not in message


def test_a_missing_artifact_is_refused(copied_run: Path) -> None:
    shutil.rmtree(copied_run / "adapter")
    with pytest.raises(RunError, match=r"adapter/.*: missing, though "):
        Classifier.load(copied_run)


def test_weights_that_are_nan_fail_in_one_line(copied_run: Path, texts: list[str]) -> None:
    make_weights_nan(copied_run)
    classifier = Classifier.load(copied_run)
    with pytest.raises(NonFiniteLogitsError) as caught:
        classifier.predict(texts)
    assert str(caught.value) == "texts: the model's logits are NaN or infinite for 21 of 21 rows"


def test_a_run_in_the_format_of_version_1_predicts_the_same_labels(
    run: Path, copied_run: Path, texts: list[str]
) -> None:
    downgrade(copied_run)
    assert json.loads((copied_run / "record.json").read_text())["schema_version"] == 1
    old, new = Classifier.load(copied_run), Classifier.load(run)
    assert old.record.metrics == new.record.metrics
    assert old.predict(texts) == new.predict(texts)
    assert old.temperature == 1.0
    logits = np.log(new.predict_probabilities(texts)) * new.temperature
    np.testing.assert_allclose(old.predict_probabilities(texts), softmax(logits, axis=1), rtol=1e-5)


def test_a_damaged_adapter_without_recorded_hashes_is_an_error_in_one_line(
    copied_run: Path,
) -> None:
    downgrade(copied_run)
    (copied_run / "adapter" / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunError, match=r"adapter: cannot be loaded: ") as caught:
        Classifier.load(copied_run)
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_run_is_refused_by_its_classes(copied_run: Path) -> None:
    record = load_record(copied_run)
    path = copied_run / "adapter" / "pennyweight.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "labels": ["A", "B", "C", "D"]}))
    save_record(copied_run, record.with_changes(artifact=None))
    with pytest.raises(RunError, match="its classes are A, B, C, D, and the run's record names Wo"):
        Classifier.load(copied_run)


def test_onnx_runtime_gives_the_same_probabilities_from_a_file_that_is_exported_once(
    copied_run: Path, texts: list[str]
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run = copied_run
    expected = Classifier.load(run).predict_probabilities(texts)
    onnx = Classifier.load(run, backend="onnx").predict_probabilities(texts)
    assert onnx == pytest.approx(expected, abs=1e-5)
    (exported,) = (path for path in (run / "onnx").iterdir() if path.is_dir())
    written = (exported / "model.onnx").stat().st_mtime_ns
    test = str(write_news(run.parent / "test.csv", news(20, seed=12)))
    assert evaluate(run, test, backend="onnx").accuracy == evaluate(run, test).accuracy
    assert (exported / "model.onnx").stat().st_mtime_ns == written


def test_without_onnx_runtime_the_extra_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_backend.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RunError, match=r"pip install 'pennyweight\[onnx\]'"):
        Classifier.load(run, backend="onnx")


def test_scikit_learns_names_give_labels_and_probabilities(run: Path, texts: list[str]) -> None:
    classifier = Classifier.load(run)
    assert list(classifier.classes_) == list(LABELS)
    probabilities = classifier.predict_proba(texts)
    assert np.array_equal(probabilities, classifier.predict_probabilities(texts))
    assert list(classifier.classes_[probabilities.argmax(axis=1)]) == classifier.predict(texts)


def test_a_classifier_abstains_below_a_confidence(run: Path, texts: list[str]) -> None:
    classifier = Classifier.load(run)
    confidence = classifier.predict_proba(texts).max(axis=1)
    threshold = float(np.median(confidence))
    labels = classifier.predict(texts)
    expected = [
        label if one >= threshold else None for label, one in zip(labels, confidence, strict=True)
    ]
    assert 0 < expected.count(None) < len(expected)
    assert classifier.predict(texts, abstain_below=threshold) == expected
    assert classifier.predict(texts[0], abstain_below=threshold) == expected[0]
    with pytest.raises(RunError, match="expected a confidence from 0 to 1"):
        classifier.predict(texts, abstain_below=70)


def test_the_confidence_for_a_coverage_answers_that_share_of_validation(
    run: Path, sets: Path
) -> None:
    classifier = Classifier.load(run)
    rows = pandas.read_csv(sets / "validation.csv")
    threshold = classifier.confidence_for(0.5)
    answers = classifier.predict(rows["text"], abstain_below=threshold)
    assert sum(answer is not None for answer in answers) == len(rows) / 2
    assert classifier.confidence_for(1.0) == 0.0
    with pytest.raises(RunError, match=r"\(--coverage\): given 1\.5; expected a share above 0"):
        classifier.confidence_for(1.5)


def test_a_temperature_calibrates_probabilities_and_changes_no_label(
    copied_run: Path, texts: list[str], tmp_path: Path
) -> None:
    fitted = Classifier.load(copied_run)
    record, facts = fitted.record, copied_run / "adapter" / "pennyweight.json"
    assert record.calibration is not None
    assert fitted.temperature == record.calibration.temperature != 1.0
    validation = record.metrics["validation"].to_json()
    assert validation["nll"] < record.calibration.nll_without["validation"]
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "temperature": None}))
    save_record(copied_run, record.with_changes(artifact=None, calibration=None))
    plain = Classifier.load(copied_run)
    assert plain.temperature == 1.0
    assert plain.predict(texts) == fitted.predict(texts)
    scaled = np.log(plain.predict_proba(texts)) / fitted.temperature
    np.testing.assert_allclose(softmax(scaled, axis=1), fitted.predict_proba(texts), rtol=1e-4)

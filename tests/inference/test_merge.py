"""Merging a finished run into one plain model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pennyweight.data.source import Source
from pennyweight.errors import DataError, RunError
from pennyweight.inference.agreement import rows_to_check
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.merge import MergeCheck, merge


def test_the_merged_model_gives_the_same_probabilities_in_plain_transformers(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    report = merge(run, out=tmp_path / "merged")
    (note,) = report.notes
    # The test of the run, 12 rows, is compared in float32.
    assert (report.rows, report.agreement.same_answers) == (12, 1.0)
    assert 0.0 <= report.agreement.mean_difference <= report.agreement.largest_difference < 1e-4
    assert "same labels on 100.00% of 12 rows of " in report.describe()
    assert "max_length=24" in note
    assert note in (tmp_path / "merged" / "README.md").read_text()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "merged")(
        texts, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        probabilities = torch.softmax(model(**batch).logits, dim=1).numpy()
    expected = Classifier.load(run).predict_probabilities(texts)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert model.config.id2label[3] == "Sci/Tech"


def test_a_merged_model_that_differs_from_the_run_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Classifier.merge

    def save_damaged(self: Classifier, directory: Path) -> None:
        save(self, directory)
        file = directory / "model.safetensors"
        weights = load_file(file)
        weights["classifier.weight"] *= 1.1
        save_file(weights, file, metadata={"format": "pt"})

    monkeypatch.setattr(Classifier, "merge", save_damaged)
    out = tmp_path / "merged"
    with pytest.raises(RunError, match="not written: logits of the run and the merged model"):
        merge(run, out=out)
    assert list(tmp_path.iterdir()) == []
    report = merge(run, out=out, check=MergeCheck(tolerance=0.5))
    assert report.agreement.largest_difference > 1e-3 * report.agreement.scale
    assert out.is_dir()


def test_models_are_compared_on_the_run_s_own_rows_or_on_the_sample(
    copied_run: Path, sets: Path
) -> None:
    classifier = Classifier.load(copied_run)
    own = rows_to_check(classifier, limit=5)
    assert (len(own), own.source) == (5, str(sets / "test.csv"))
    assert own.labels is not None
    np.testing.assert_array_equal(own.labels, own.table["label"])
    assert own.accuracy(own.labels) == 1.0
    assert own.table["row"][0] == 1
    assert own.table["row"][4] == 12
    sources = classifier.settings.data.sources
    missing = replace(sources, held_out={"test": Source("gone.csv")}, validation=None)
    data = replace(classifier.settings.data, sources=missing)
    classifier.settings = replace(classifier.settings, data=data)
    sample = rows_to_check(classifier, limit=5)
    assert sample.source == "sample:test"
    # The sample has the same classes, so its labels count.
    assert sample.labels is not None
    with pytest.raises(DataError, match=r"gone\.csv"):
        rows_to_check(classifier, "gone.csv", limit=5)


def test_a_directory_in_use_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty; name a new directory"):
        merge(run, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_rows_without_labels_are_compared_and_a_warning_says_so(
    run: Path, texts: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = rows_to_check(Classifier.load(run), str(tmp_path / "unlabelled.csv"), limit=10)
    assert len(rows.table) == 10
    assert rows.labels is None
    assert "no accuracy is measured" in caplog.text
    assert "no label column" in caplog.text

"""Train, evaluate and use a run whose rows may have several labels."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pennyweight.budget.facts import read_artifact_facts
from pennyweight.errors import RecipeError, RunError
from pennyweight.evaluation import MultiLabelMetrics
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.evaluate import evaluate
from pennyweight.inference.merge import merge
from pennyweight.inference.predict import predict
from pennyweight.inference.submit import submit
from pennyweight.recipe import Recipe
from pennyweight.runs.predictions import mcnemar_of_runs
from pennyweight.runs.record import load_record, save_record
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import LABELS, news, tiny_recipe, write_several_labels


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like `sets`, whose rows have several labels; two of them have none."""
    return write_several_labels(tmp_path_factory.mktemp("several"))


def _recipe(bert: Path, folder: Path, **sections: Any) -> Recipe:
    data = {"task": "multi-label", "label_separator": "|"}
    return tiny_recipe(bert, folder, data=data, **sections)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def run(
    bert: Path, several: Path, lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("multi") / "run"
    recipe = _recipe(bert, several, train={"epochs": 4, "class_weights": "balanced"})
    train(recipe, out=out, watcher=Watcher(log=lines.append))
    return out


TEXTS = [text for _, text in news(20, seed=11)]


def test_the_record_holds_multi_label_metrics_of_every_set(run: Path) -> None:
    record = load_record(run)
    assert set(record.metrics) == {"validation", "test"}
    assert all(isinstance(each, MultiLabelMetrics) for each in record.metrics.values())
    assert record.best is not None
    assert record.best.metric == "mean_average_precision"
    assert record.metrics["validation"].headline.metric == "macro_f1"
    names = {"accuracy", "micro_f1", "macro_f1", "mean_average_precision", "nll", "brier", "ece"}
    assert all(set(step.evaluation) == names for step in record.history if step.evaluation)
    for mistake in record.mistakes["test"]:
        assert mistake.label != mistake.predicted
        assert 0.0 <= mistake.confidence <= 1.0


def test_thresholds_are_fitted_on_validation_and_saved_with_the_weights(
    run: Path, lines: list[str]
) -> None:
    facts, record = read_artifact_facts(run / "adapter"), load_record(run)
    assert facts is not None
    assert facts.task == "multi-label"
    assert facts.thresholds is not None
    recorded = tuple(entry.threshold for entry in record.metrics["test"].classes)
    assert recorded == facts.thresholds
    # The classes but the first have four validation rows each.
    assert len(set(facts.thresholds[1:])) == 1
    expected = "Sports, Business, Sci/Tech: fewer than 10 validation rows, so the threshold"
    assert any(expected in line for line in lines)


def test_a_row_gets_each_class_whose_probability_reaches_its_threshold(run: Path) -> None:
    classifier = Classifier.load(run)
    probabilities = classifier.predict_probabilities(TEXTS)
    facts = read_artifact_facts(run / "adapter")
    assert facts is not None
    assert classifier.task == "multi-label"
    assert classifier.thresholds is not None
    assert classifier.thresholds.tolist() == list(facts.thresholds or ())
    predicted = classifier.predict(TEXTS)
    for given, row in zip(predicted, probabilities, strict=True):
        chosen = [index for index in np.argsort(-row) if row[index] >= classifier.thresholds[index]]
        assert given == [LABELS[index] for index in chosen]
    assert classifier.predict(TEXTS[0]) == predicted[0]
    assert classifier.predict([]) == []
    table = datasets.Dataset.from_dict({"text": TEXTS})
    logits = classifier.outputs(table).logits
    np.testing.assert_allclose(probabilities, expit(logits.astype(np.float64)), atol=1e-6)


def test_evaluating_the_test_set_again_gives_the_recorded_metrics(run: Path, several: Path) -> None:
    again, recorded = evaluate(run, str(several / "test.csv")), load_record(run).metrics["test"]
    assert isinstance(again, MultiLabelMetrics)
    assert again.macro_f1 == recorded.macro_f1
    assert again.nll == pytest.approx(recorded.nll)


def test_predictions_of_every_row_are_zeros_and_ones_by_class(run: Path) -> None:
    with np.load(run / "predictions.npz") as file:
        predicted, labels = file["test"], file["test.labels"]
    assert predicted.shape == labels.shape == (12, 4)
    macro = f1_score(labels, predicted, average="macro", zero_division=0.0)
    assert load_record(run).metrics["test"].macro_f1 == pytest.approx(macro)
    comparison = mcnemar_of_runs(run, run, "test")
    assert (comparison.rows, comparison.only_one, comparison.p) == (12, 0, 1.0)


def test_predictions_in_a_file_are_the_labels_that_the_classifier_gives(
    run: Path, several: Path, tmp_path: Path
) -> None:
    predict(run, str(several / "test.csv"), out=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = Classifier.load(run).predict([row["text"] for row in rows])
    assert [row["labels"] for row in rows] == list(map("|".join, expected))


def test_plain_transformers_understands_the_merged_model(run: Path, tmp_path: Path) -> None:
    merge(run, out=tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert model.config.problem_type == "multi_label_classification"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS[:1], return_tensors="pt")).logits.numpy()
    expected = Classifier.load(run).predict_probabilities(TEXTS[:1])
    np.testing.assert_allclose(expit(logits), expected, atol=1e-5)
    assert read_artifact_facts(tmp_path / "merged") == read_artifact_facts(run / "adapter")


def test_a_submission_of_several_labels_is_refused(
    run: Path, several: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="several labels, and a submission has one per row"):
        submit(run, str(several / "test.csv"), out=tmp_path / "submission.csv")


def test_a_multi_label_run_teaches_its_probabilities(
    run: Path, bert: Path, several: Path, tmp_path: Path
) -> None:
    recipe = _recipe(
        bert, several, train={"max_steps": 2}, distillation={"teachers": [str(run)], "soft": 1.0}
    )
    assert train(recipe, out=tmp_path / "student").status == "complete"


def test_a_teacher_of_another_task_is_refused(
    run: Path, bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(bert, sets, distillation={"teachers": [str(run)]})
    with pytest.raises(RecipeError, match=r"distillation.teachers: .*: its task is multi-label"):
        train(recipe, out=tmp_path / "student")


def test_an_adapter_of_another_task_is_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    path = copy / "adapter" / "pennyweight.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task": "single-label"}))
    save_record(copy, load_record(copy).with_changes(artifact=None))
    with pytest.raises(RunError, match="its task is single-label, and that of the run's record is"):
        Classifier.load(copy)


def test_thresholds_are_covered_by_the_hash_of_the_artifact(run: Path, several: Path) -> None:
    path = run / "adapter" / "pennyweight.json"
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), "thresholds": [0.1] * 4}))
    try:
        with pytest.raises(RunError, match=r"pennyweight\.json: its SHA-256 differs"):
            evaluate(run, str(several / "test.csv"))
    finally:
        path.write_text(text)

"""The baselines of a run, a head that starts from one, and what is kept if training fails."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pennyweight.budget.inspect import inspect_adapter
from pennyweight.errors import RecipeError
from pennyweight.inference.classifier import Classifier
from pennyweight.recipe import resolve_recipe
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.training import baselines, pace
from pennyweight.training.train import train, train_together
from pennyweight.training.watcher import Watcher
from tiny import BASELINES, LABELS, tiny_recipe
from training.outcomes import interrupt_at, weights_are_equal

POOLED = {"base": {"pooling": "mean"}}
START = {
    **POOLED,
    "train": {"head_start": "logistic", "max_steps": 2},
    "evaluate": BASELINES,
}


def run(bert: Path, sets: Path, out: Path, **sections: Any) -> tuple[RunRecord, list[str]]:
    lines: list[str] = []
    recipe = tiny_recipe(bert, sets, **{"evaluate": BASELINES, **sections})
    return train(recipe, out=out, watcher=Watcher(log=lines.append)), lines


def test_every_run_records_both_baselines_on_every_set(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    record, lines = run(bert, sets, tmp_path / "run", train={"max_steps": 1})
    assert set(record.baselines) == {"embedding", "tf-idf"}
    for baseline in record.baselines.values():
        assert set(baseline.metrics) == {"validation", "test"}
        assert baseline.metrics["test"].rows == record.metrics["test"].rows
        assert baseline.seconds > 0
    # Single words tell the classes of these rows apart.
    assert record.baselines["tf-idf"].metrics["test"].accuracy > 0.9
    assert sum(line.startswith("baseline: logistic regression on") for line in lines) == 2
    assert load_record(tmp_path / "run").baselines == record.baselines


def test_a_run_below_a_baseline_says_so(bert: Path, sets: Path, tmp_path: Path) -> None:
    _, lines = run(
        bert, sets, tmp_path / "run", train={"max_steps": 1}, optimizer={"learning_rate": 1e-9}
    )
    (line,) = (line for line in lines if "logistic regression on TF-IDF is better" in line)
    assert line.startswith("warning: on validation")


def test_baselines_can_be_left_out(bert: Path, sets: Path, tmp_path: Path) -> None:
    record, lines = run(bert, sets, tmp_path / "run", evaluate={"baselines": []})
    assert record.baselines == {}
    assert not any(line.startswith("baseline") for line in lines)


def test_a_head_that_starts_from_the_baseline_equals_it_before_the_first_step(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    sections = {**START, "optimizer": {"learning_rate": 1e-12}}
    record, lines = run(bert, sets, tmp_path / "run", **sections)
    baseline = record.baselines["embedding"].metrics["test"]
    assert record.metrics["test"].accuracy == baseline.accuracy
    # The record's own metrics are of calibrated probabilities.
    assert record.calibration is not None
    assert record.calibration.nll_without["test"] == pytest.approx(baseline.nll, rel=1e-3)
    assert any(line.startswith("head: starts from the logistic regression") for line in lines)


def test_the_head_alone_is_kept_if_training_is_worse(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    ruinous = {"learning_rate": 1.0}
    record, _ = run(bert, sets, tmp_path / "run", **START, optimizer=ruinous)
    assert record.best is not None
    trained = max(s.evaluation["accuracy"] for s in record.history if s.evaluation)
    start = record.baselines["embedding"].metrics["validation"].accuracy
    assert trained < start
    assert record.best.step == 0
    assert record.metrics["validation"].accuracy == start
    assert record.metrics["test"].accuracy == record.baselines["embedding"].metrics["test"].accuracy


def test_an_interrupted_run_resumes_to_the_same_weights(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    sections = {**POOLED, "train": {"head_start": "logistic", "epochs": 2, "evaluate_every": 4}}
    recipe = tiny_recipe(bert, sets, **sections)
    whole = train(recipe, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path / "run", watcher=interrupt_at(6))
    resumed = train(recipe, out=tmp_path / "run", resume=True)
    assert resumed.best == whole.best
    assert weights_are_equal(tmp_path / "whole" / "adapter", tmp_path / "run" / "adapter")


def test_runs_trained_together_start_from_the_same_head(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipes = [
        tiny_recipe(bert, sets, **START, adapter={"rank": rank}, optimizer={"learning_rate": 1e-12})
        for rank in (1, 2)
    ]
    records = train_together(recipes, outs=[tmp_path / "one", tmp_path / "two"])
    accuracies = {record.metrics["test"].accuracy for record in records}
    assert accuracies == {records[0].baselines["embedding"].metrics["test"].accuracy}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"base": {"pooling": "native"}}, "needs a linear head on pooled hidden states"),
        ({**POOLED, "adapter": {"head": "frozen"}}, 'adapter.head = "frozen" keeps as it is'),
    ],
)
def test_a_head_that_cannot_start_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve_recipe({**sections, "train": {"head_start": "logistic"}})


def test_a_head_cannot_be_averaged_and_fitted_again() -> None:
    with pytest.raises(RecipeError, match=r"leave one of them out"):
        resolve_recipe({**POOLED, "train": {"head_end": "logistic", "average": 0.9}})


def test_the_head_is_fitted_again_after_training(bert: Path, sets: Path, tmp_path: Path) -> None:
    sections = {**POOLED, "train": {"max_steps": 3, "head_end": "logistic"}}
    record, lines = run(bert, sets, tmp_path / "run", **sections)
    plain, _ = run(bert, sets, tmp_path / "plain", **POOLED, train={"max_steps": 3})
    (line,) = (line for line in lines if line.startswith("head fitted again on the trained"))
    assert "kept instead" not in line
    assert record.metrics["validation"].accuracy >= plain.metrics["validation"].accuracy
    assert record.metrics["validation"].nll < plain.metrics["validation"].nll


def test_of_many_rows_a_sample_is_embedded(
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "_MOST_EMBEDDED_ROWS", 30)
    monkeypatch.setattr(baselines, "_MOST_TFIDF_ROWS", 35)
    keys = {"max_steps": 2, "head_start": "logistic", "head_end": "logistic"}
    record, lines = run(bert, sets, tmp_path / "run", **POOLED, train=keys)
    assert record.baselines["embedding"].rows == 30
    assert record.baselines["tf-idf"].rows == 35
    assert record.data is not None
    assert record.data.training is not None
    rows = record.data.training.rows
    assert rows > 35
    assert any(f"embeddings of 30 of the {rows} training rows, " in line for line in lines)
    assert any(f"TF-IDF of 35 of the {rows} training rows, " in line for line in lines)
    assert any(line.startswith("head fitted again") for line in lines)


def test_a_time_limit_shortens_the_run_and_its_schedule(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    record, lines = run(bert, sets, tmp_path / "run", train={"epochs": 50, "minutes": 1e-4})
    assert record.planned_steps == 1
    assert record.history[-1].step == 1
    assert any(line.startswith("time limit: 1 of ") for line in lines)
    short = {"epochs": 50, "minutes": 1e-4, "head_end": "logistic"}
    _, lines = run(bert, sets, tmp_path / "short", **POOLED, train=short)
    assert "time limit: there is no time to fit the head again after training" in lines
    assert not any(line.startswith("head fitted again") for line in lines)
    generous, _ = run(bert, sets, tmp_path / "other", train={"max_steps": 3, "minutes": 60})
    assert generous.planned_steps == 3


def test_a_resumed_run_leaves_out_the_second_fit_of_the_head_too(
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_REFIT_SHARE", 0.0)
    keys = {"max_steps": 4, "minutes": 60, "head_end": "logistic", "evaluate_every": 2}
    recipe = tiny_recipe(bert, sets, **POOLED, train=keys)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path / "run", watcher=interrupt_at(3))
    assert load_record(tmp_path / "run").skips_refit
    lines: list[str] = []
    watcher = Watcher(log=lines.append)
    record = train(recipe, out=tmp_path / "run", resume=True, watcher=watcher)
    assert "resumed after step 2" in lines
    assert record.skips_refit
    assert not any(line.startswith("head fitted again") for line in lines)


def test_the_time_is_predicted_after_20_steps(bert: Path, sets: Path, tmp_path: Path) -> None:
    record, lines = run(bert, sets, tmp_path / "run", train={"epochs": 5})
    assert record.predicted_seconds is not None
    assert record.predicted_seconds > 0.0
    assert any(line.startswith("the run will take about ") for line in lines)


def test_a_pooled_run_predicts_what_it_was_evaluated_on(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    record, _ = run(bert, sets, tmp_path / "run", **START)
    classifier = Classifier.load(tmp_path / "run")
    texts, labels = zip(*news_of(sets / "test.csv"), strict=True)
    accuracy = np.mean([a == b for a, b in zip(classifier.predict(texts), labels, strict=True)])
    assert accuracy == pytest.approx(record.metrics["test"].accuracy)


def news_of(path: Path) -> list[tuple[str, str]]:
    """Return the texts and label names of a file of tiny news."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["text"], LABELS[int(row["label"])]) for row in csv.DictReader(file)]


def test_a_low_rank_head_starts_from_the_baseline_and_keeps_the_budget(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    train_section = {"head_start": "logistic", "head_end": "logistic", "max_steps": 2}
    record, _ = run(
        bert,
        sets,
        tmp_path / "run",
        **POOLED,
        train=train_section,
        adapter={"head": "low-rank", "head_rank": 3},
        optimizer={"learning_rate": 1e-12},
    )
    # Three dimensions separate four classes as well as all of them do.
    baseline = record.baselines["embedding"].metrics["test"]
    assert record.metrics["test"].accuracy == pytest.approx(baseline.accuracy, abs=0.1)
    facts = inspect_adapter(tmp_path / "run" / "adapter")
    assert record.parameters is not None
    assert facts["trainable_parameters"] == record.parameters.file == record.parameters.model
    texts = ["the match", "the bank"]
    probabilities = Classifier.load(tmp_path / "run").predict_probabilities(texts)
    assert probabilities.shape == (2, len(LABELS))


def test_a_low_rank_head_that_saves_nothing_is_refused(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"adapter.head_rank: given 4; with 4 classes"):
        run(
            bert,
            sets,
            tmp_path / "run",
            **POOLED,
            adapter={"head": "low-rank", "head_rank": 4},
        )

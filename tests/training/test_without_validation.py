"""Training without validation rows keeps the last step, and refuses what would need such rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pennyweight.errors import DataError, RunError
from pennyweight.inference.classifier import Classifier
from pennyweight.report.facts import load_facts
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.training import active_run
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import tiny_recipe
from training.outcomes import interrupt_at, weights_are_equal

Train = Callable[..., RunRecord]


@pytest.fixture
def train_all(bert: Path, sets: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Return a function that trains a tiny recipe without validation rows."""
    make_splits = active_run.make_splits

    def without_validation(*arguments: Any, **options: Any) -> Any:
        splits = make_splits(*arguments, **options)
        return replace(splits, validation=splits.validation.select([]))

    monkeypatch.setattr(active_run, "make_splits", without_validation)

    def run(out: Path, *, resume: bool = False, watcher: Watcher | None = None, **sections: Any):
        recipe = tiny_recipe(bert, sets, **sections)
        return train(recipe, out=out, resume=resume, watcher=watcher)

    return run


def test_the_weights_of_the_last_step_are_kept(train_all: Train, tmp_path: Path) -> None:
    lines: list[str] = []
    options = {"epochs": 2, "evaluate_every": 5}
    record = train_all(tmp_path / "run", train=options, watcher=Watcher(log=lines.append))
    assert record.status == "complete"
    assert record.best is None
    assert list(record.metrics) == ["test"]
    assert [step.step for step in record.history if step.is_best] == [5, 10, 12]
    assert any(line.startswith("no validation rows: the weights of the last") for line in lines)
    adapter, last = (tmp_path / "run" / name for name in ("adapter", "checkpoints/last"))
    assert weights_are_equal(adapter, last)
    assert load_facts([tmp_path / "run"]).main.evaluations("accuracy") == []


def test_a_run_without_any_labelled_set_is_complete_but_cannot_be_reported(
    train_all: Train, tmp_path: Path
) -> None:
    record = train_all(tmp_path / "run", train={"max_steps": 2}, evaluate={"test": None})
    assert record.metrics == {}
    assert load_record(tmp_path / "run").status == "complete"
    assert len(Classifier.load(tmp_path / "run").predict(["the goal"])) == 1
    with pytest.raises(RunError, match="no labelled set was evaluated"):
        load_facts([tmp_path / "run"])


def test_an_interrupted_run_is_resumed(train_all: Train, tmp_path: Path) -> None:
    options = {"epochs": 2}
    whole = train_all(tmp_path / "whole", train=options)
    with pytest.raises(KeyboardInterrupt):
        train_all(tmp_path / "run", train=options, watcher=interrupt_at(8))
    resumed = train_all(tmp_path / "run", train=options, resume=True)
    assert [step.loss for step in resumed.history] == [step.loss for step in whole.history]
    assert weights_are_equal(tmp_path / "whole" / "adapter", tmp_path / "run" / "adapter")


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ("train.early_stopping", {"train": {"early_stopping": {"patience": 1}}}),
        (
            "transduction.prior",
            {"data": {"target": "test.csv"}, "transduction": {"prior": {"method": "em"}}},
        ),
    ],
)
def test_what_needs_validation_rows_is_refused_before_anything_is_written(
    key: str, sections: dict[str, Any], sets: Path, train_all: Train, tmp_path: Path
) -> None:
    if "data" in sections:
        sections = {**sections, "data": {"target": str(sets / "test.csv")}}
    with pytest.raises(DataError, match=f"{key}: needs validation rows, and there are none"):
        train_all(tmp_path / "run", **sections)
    assert not (tmp_path / "run").exists()

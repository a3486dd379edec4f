"""A watcher that ends a run early: what is recorded, and how the run can go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pennyweight.engine.train.progress import Step
from pennyweight.errors import PrunedError, RunError
from pennyweight.inference.classifier import Classifier
from pennyweight.runs.record import load_record
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import tiny_recipe


def _second(step: Step) -> str | None:
    return "weaker than others" if step.epoch >= 2 else None


def test_a_pruned_run_says_so_and_can_be_resumed(roberta: Path, sets: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(roberta, sets, train={"epochs": 3})
    asked: list[Step] = []

    def prune(step: Step) -> str | None:
        asked.append(step)
        return _second(step)

    with pytest.raises(PrunedError, match=r"^weaker than others$"):
        train(recipe, out=tmp_path / "run", watcher=Watcher(prune=prune))
    record = load_record(tmp_path / "run")
    assert (record.status, record.failure) == ("pruned", "weaker than others")
    # Only steps that end with an evaluation are judged, and they have been saved before.
    assert [step.epoch for step in asked] == [1.0, 2.0]
    assert record.history[-1] == asked[-1]
    assert (tmp_path / "run" / "checkpoints" / "last").is_dir()
    with pytest.raises(RunError, match="the run's status is pruned; only a complete run"):
        Classifier.load(tmp_path / "run")
    resumed = train(recipe, out=tmp_path / "run", resume=True)
    whole = train(recipe, out=tmp_path / "whole")
    assert resumed.status == "complete"
    assert resumed.best == whole.best
    assert resumed.failure is None

"""What the training of a trial tells Optuna."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pennyweight.runs.record import load_record
from pennyweight.search.worker import _Reporter
from pennyweight.training.train import train
from search.simulated_job import make_job
from tiny import tiny_recipe
from training.outcomes import interrupt_at


class _Trial:
    """A trial that keeps what is reported, by the percentage of the training."""

    def __init__(self) -> None:
        self.user_attrs: dict[str, Any] = {"run": "run"}
        self.reports: dict[int, float] = {}

    def report(self, value: float, step: int) -> None:
        self.reports[step] = value

    def should_prune(self) -> bool:
        return False


def test_a_trial_that_continues_reports_earlier_evaluations_as_those_of_its_whole_training(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    # 12 steps, without a time limit.
    recipe = tiny_recipe(roberta, sets, train={"epochs": 2, "evaluate_every": 3})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path / "run", watcher=interrupt_at(7))
    record = load_record(tmp_path / "run")
    trial = _Trial()
    _Reporter(make_job(tmp_path), trial, print).repeat(record)
    measured = [step.evaluation["accuracy"] for step in record.history if step.evaluation]
    assert trial.reports == dict(zip((25, 50), measured, strict=True))


def test_nothing_is_reported_of_a_trial_that_had_not_reached_its_first_step(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(roberta, sets)
    train(recipe, out=tmp_path / "run")
    record = load_record(tmp_path / "run").with_changes(planned_steps=None, history=())
    trial = _Trial()
    _Reporter(make_job(tmp_path), trial, print).repeat(record)
    assert trial.reports == {}

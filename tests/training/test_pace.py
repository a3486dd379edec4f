"""The time of a run: predicted from its first steps, and planned to keep a limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pennyweight.engine.train.progress import TrainOptions, total_steps
from pennyweight.engine.train.speed import Speed, measure_speed
from pennyweight.training import pace, stages
from pennyweight.training.pace import Work, limit_steps
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import tiny_recipe

OPTIONS = TrainOptions(
    epochs=4,
    max_steps=None,
    batch_rows=10,
    accumulation_steps=1,
    batch_order="random",
    max_gradient_norm=None,
    evaluate_every=25,
    keep_best="accuracy",
    patience=None,
    threshold=0.0,
    seed=0,
)
# 100 steps of 200 tokens, and 4 evaluations.
WORK = Work(np.full(250, 20), validation_tokens=1_000, final_tokens=3_000)
SPEED = Speed(training=200.0, prediction=1_000.0)


def test_the_time_of_a_run_is_that_of_its_steps_evaluations_and_final_evaluation() -> None:
    closing = Work(np.full(250, 20), 0, 0).seconds(replace(OPTIONS, max_steps=1), SPEED) - 1.0
    assert WORK.seconds(OPTIONS, SPEED) == pytest.approx(100.0 + 4 * 1.0 + 3.0 + closing)
    assert WORK.seconds(OPTIONS, SPEED, after=90) == pytest.approx(10.0 + 1.0 + 3.0 + closing)


def test_the_final_evaluation_runs_through_every_layer_although_training_does_not() -> None:
    cached = replace(SPEED, whole_prediction=500.0)
    assert WORK.seconds(OPTIONS, cached) == pytest.approx(WORK.seconds(OPTIONS, SPEED) + 3.0)


def test_a_step_has_no_more_tokens_than_there_are_rows() -> None:
    # 16 rows in batches of 64: each of the 60 epochs is one step of 320 tokens.
    few = Work(np.full(16, 20), 0, 0)
    options = replace(OPTIONS, epochs=60, batch_rows=64, evaluate_every=60)
    closing = few.seconds(replace(options, max_steps=1), SPEED) - 320 / 200.0
    assert few.seconds(options, SPEED) == pytest.approx(60 * 320 / 200.0 + closing)


def test_a_generous_limit_changes_nothing() -> None:
    assert limit_steps(WORK, OPTIONS, SPEED, seconds=1_000.0) == OPTIONS


@pytest.mark.parametrize("seconds", [20.0, 50.0, 90.0])
def test_a_limit_is_used_and_not_exceeded(seconds: float) -> None:
    limited = limit_steps(WORK, OPTIONS, SPEED, seconds=seconds)
    assert 0.85 * seconds < WORK.seconds(limited, SPEED) <= seconds
    assert limited.max_steps is not None
    assert limited.max_steps < total_steps(250, OPTIONS)


def test_a_shorter_run_still_has_as_many_evaluations() -> None:
    limited = limit_steps(WORK, OPTIONS, SPEED, seconds=50.0)
    assert limited.evaluate_every is not None
    assert limited.max_steps is not None
    assert round(limited.max_steps / limited.evaluate_every) == 4


def test_one_evaluation_after_each_epoch_becomes_several_in_a_shorter_run() -> None:
    options = replace(OPTIONS, evaluate_every=None)
    limited = limit_steps(WORK, options, SPEED, seconds=20.0)
    assert limited.evaluate_every is not None
    assert limited.max_steps is not None
    assert limited.max_steps < 25  # less than an epoch
    assert round(limited.max_steps / limited.evaluate_every) == 4


def test_one_step_is_always_taken() -> None:
    assert limit_steps(WORK, OPTIONS, SPEED, seconds=0.1).max_steps == 1


def test_fitting_the_head_again_takes_predictions_and_the_fit() -> None:
    work = replace(WORK, refit_tokens=5_000, refit_seconds=2.0)
    assert work.refit(SPEED) == pytest.approx(7.0)
    assert work.seconds(OPTIONS, SPEED) == pytest.approx(WORK.seconds(OPTIONS, SPEED) + 7.0)
    limited = limit_steps(work, OPTIONS, SPEED, seconds=50.0)
    assert work.seconds(limited, SPEED) <= 50.0


def test_a_process_keeps_to_the_plan_of_the_main_one(
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: list[tuple[TrainOptions, bool]] = []

    def other_plan(plan: tuple[TrainOptions, bool]) -> tuple[TrainOptions, bool]:
        own.append(plan)
        return replace(plan[0], max_steps=4, evaluate_every=2), False

    monkeypatch.setattr(pace, "of_main_process", other_plan)
    keys = {"epochs": 2, "minutes": 60, "head_end": "logistic"}
    recipe = tiny_recipe(bert, sets, base={"pooling": "mean"}, train=keys)
    record = train(recipe, out=tmp_path / "run")
    # This process would have had the time for everything.
    ((options, refits_head),) = own
    assert (options.max_steps, refits_head) == (None, True)
    assert (record.planned_steps, record.skips_refit) == (4, True)
    assert [step.step for step in record.history if step.evaluation] == [2, 4]
    assert record.history[-1].learning_rate == pytest.approx(0.01 / 4)


def test_a_time_limit_is_planned_with_the_step_of_the_run(
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def measure(model: Any, optimizer: Any, objective: Any, rows: Any, **options: Any) -> Speed:
        seen.extend([type(optimizer).__name__, objective.passes, options["context"].accelerator])
        return measure_speed(model, optimizer, objective, rows, **options)

    monkeypatch.setattr(stages, "measure_speed", measure)
    sections: dict[str, Any] = {"optimizer": {"method": "sgd"}}
    plain, limited = (
        tiny_recipe(bert, sets, **sections, train={"epochs": 1, "r_drop": 1.0, **keys})
        for keys in ({}, {"minutes": 60})
    )
    one = train(plain, out=tmp_path / "plain")
    assert seen == []
    other = train(limited, out=tmp_path / "limited")
    assert seen[:2] == ["SGD", 2]
    assert seen[2] is not None
    # The weights, and the random numbers of each step, are as if nothing had been measured.
    assert [step.loss for step in other.history] == [step.loss for step in one.history]


def test_a_limit_that_leaves_few_steps_is_warned_of_and_blamed(
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 48 rows in batches of 8 take 6 steps an epoch; there is time for one or two of 300.
    monkeypatch.setattr(stages, "measure_speed", lambda *_, **__: Speed(10.0, 1e6))
    recipe = tiny_recipe(
        bert,
        sets,
        train={"epochs": 50, "minutes": 0.5, "head_start": "random"},
        optimizer={"learning_rate": 1e-9},
        evaluate={"baselines": ["tf-idf"]},
    )
    lines: list[str] = []
    train(recipe, out=tmp_path / "run", watcher=Watcher(log=lines.append))
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert any("raise train.minutes, or train fewer rows" in line for line in warnings)
    assert any("TF-IDF is better" in line for line in warnings)
    assert any(line.endswith("; raise train.minutes") for line in warnings)

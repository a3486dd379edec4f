"""Options, progress and steps as plain values."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from engine.families import TRAIN_OPTIONS as OPTIONS
from pennyweight.engine.train.progress import Progress, Step, Timetable, is_as_good, judge

STEP = Step(
    step=3,
    epoch=0.6,
    loss=1.25,
    learning_rate=0.01,
    gradient_norm=2.5,
    rows_per_second=100.0,
    seconds=0.24,
    evaluation={"accuracy": 0.5, "nll": 1.5},
    is_best=True,
    stop="all steps done",
)


@pytest.mark.parametrize(
    "step",
    [
        STEP,
        dataclasses.replace(STEP, evaluation=None, is_best=False, stop=None),
        dataclasses.replace(STEP, gradient_norm=math.inf),
    ],
    ids=["evaluated", "not evaluated", "infinite gradient norm"],
)
def test_a_step_is_the_same_after_a_round_trip_through_json(step: Step) -> None:
    adapter = TypeAdapter(Step)
    assert adapter.validate_json(adapter.dump_json(step)) == step


def test_importing_progress_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, pennyweight.engine.train.progress; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_timetable_counts_the_last_incomplete_batch_and_ends_with_an_evaluation() -> None:
    options = dataclasses.replace(OPTIONS, epochs=2, batch_rows=8)
    timetable = Timetable.of(41, options)
    assert timetable == Timetable(steps_per_epoch=6, last=12, evaluate_every=6)
    assert [step for step in range(1, 13) if timetable.evaluates_after(step)] == [6, 12]
    limited = Timetable.of(41, dataclasses.replace(options, max_steps=7, evaluate_every=3))
    assert [step for step in range(1, 8) if limited.evaluates_after(step)] == [3, 6, 7]


def test_a_gain_below_the_threshold_is_kept_but_does_not_restore_patience() -> None:
    options = dataclasses.replace(OPTIONS, patience=2, threshold=0.1)
    progress = Progress(step=1)
    assert judge(progress, {"accuracy": 0.5}, options) == (True, None)
    progress.step = 2
    assert judge(progress, {"accuracy": 0.55}, options) == (True, None)
    assert (progress.best, progress.best_step, progress.without_improvement) == (0.55, 2, 1)
    reason = "accuracy has not improved for 2 evaluations"
    assert judge(progress, {"accuracy": 0.4}, options) == (False, reason)
    assert judge(progress, None, options) == (False, None)


def test_of_checkpoints_that_hardly_differ_the_latest_is_kept() -> None:
    options = dataclasses.replace(OPTIONS, patience=2, keep_within=0.02)
    progress = Progress(step=10)
    for step, accuracy, is_kept, kept in (
        (10, 0.80, True, 0.80),
        (20, 0.79, True, 0.79),
        # Measured from the best so far, so that many small losses do not add up.
        (30, 0.775, False, 0.79),
        (40, 0.81, True, 0.81),
    ):
        progress.step = step
        assert judge(progress, {"accuracy": accuracy}, options) == (is_kept, None)
        assert progress.kept == kept
    assert (progress.best, progress.best_step) == (0.81, 40)
    assert not is_as_good(progress, {"accuracy": 0.80}, options)
    assert is_as_good(progress, {"accuracy": 0.81}, options)


def test_a_checkpoint_has_to_be_as_good_as_what_training_started_from() -> None:
    options = dataclasses.replace(OPTIONS, keep_within=0.1)
    progress = Progress()
    assert judge(progress, {"accuracy": 0.8}, options) == (True, None)
    for step, accuracy, kept in (
        (5, 0.79, 0.8),
        (10, 0.85, 0.85),
        (15, 0.79, 0.85),
        (20, 0.8, 0.8),
    ):
        progress.step = step
        judge(progress, {"accuracy": accuracy}, options)
        assert progress.kept == kept


def test_where_it_may_be_worse_than_the_start_the_latest_within_the_noise_is_kept() -> None:
    options = dataclasses.replace(OPTIONS, keep_within=0.02, below_start=0.02)
    progress = Progress()
    for step, accuracy, kept in ((0, 0.8, 0.8), (5, 0.77, 0.8), (10, 0.785, 0.785)):
        progress.step = step
        judge(progress, {"accuracy": accuracy}, options)
        assert progress.kept == kept


def test_a_lower_log_loss_is_better_within_the_tolerance_too() -> None:
    options = dataclasses.replace(OPTIONS, keep_best="nll", keep_within=0.1)
    progress = Progress(step=1)
    for step, nll, is_kept in ((1, 0.5, True), (2, 0.59, True), (3, 0.61, False)):
        progress.step = step
        assert judge(progress, {"nll": nll}, options) == (is_kept, None)

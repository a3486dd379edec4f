"""Options, progress and steps as plain values."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from engine.families import TRAIN_OPTIONS as OPTIONS
from pennyweight.engine.train.progress import Progress, Step, Timetable, judge

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

"""Options, progress and steps of a training run, as plain values.

This module imports neither torch nor transformers: the run record is typed with `Step`, and
reading a record must stay cheap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

__all__ = [
    "ALL_STEPS_DONE",
    "LOWER_IS_BETTER",
    "Progress",
    "Step",
    "StepOutcome",
    "Timetable",
    "TrainOptions",
    "finish_step",
    "is_as_good",
    "is_patience_exhausted",
    "judge",
    "total_steps",
]

# `Step.stop` of the last of all planned steps.
ALL_STEPS_DONE = "all steps done"

# Metrics for which lower values are better.
LOWER_IS_BETTER = frozenset({"nll", "brier", "ece"})


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Options of the training loop.

    Attributes:
        epochs: passes over the training rows.
        max_steps: optimizer steps after which training ends early; None for no limit.
        batch_rows: rows per optimizer step, over all processes.
        accumulation_steps: parts that a batch is processed in, per process.
        batch_order: "grouped" batches rows of similar length, "classes" several rows of the same
            class, and "random" neither.
        max_gradient_norm: norm to which gradients are clipped; None for no clipping.
        evaluate_every: optimizer steps between evaluations; None for once per epoch.
        keep_best: metric that decides which checkpoint is the best.
        keep_within: a later checkpoint is kept although its metric is worse, by at most this much,
            than the best so far; such a checkpoint also counts as an improvement for `patience`.
        below_start: how much worse than what training started from a kept checkpoint may be.
        patience: evaluations without improvement after which training stops; None for never.
        threshold: smallest change of the metric that counts as an improvement for `patience`.
        seed: seed of the batch order, dropout and mixup.
        sampling: "natural" for every row once per epoch; "balanced" for as many rows of each class.
    """

    epochs: int
    max_steps: int | None
    batch_rows: int
    accumulation_steps: int
    batch_order: Literal["grouped", "random", "classes"]
    max_gradient_norm: float | None
    evaluate_every: int | None
    keep_best: str
    patience: int | None
    threshold: float
    seed: int
    sampling: Literal["natural", "balanced"] = "natural"
    keep_within: float = 0.0
    below_start: float = 0.0


@dataclass(slots=True)
class Progress:
    """State of a training run, updated in place and saved in checkpoints.

    Attributes:
        step: optimizer steps taken.
        best: best value of `TrainOptions.keep_best` so far; None before the first evaluation.
        start: value before the first step; None where the start was not evaluated.
        kept: value of the checkpoint that is kept; None before the first evaluation.
        best_step: step of the checkpoint that is kept.
        without_improvement: evaluations since the last improvement.
        seconds: training time, without evaluations.
        rows: rows trained on, counted once per epoch.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    without_improvement: int = 0
    seconds: float = 0.0
    rows: int = 0
    kept: float | None = None
    start: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step.

    Attributes:
        step: number of the step, from 1.
        epoch: passes over the training rows so far, as a fraction.
        loss: mean loss over the rows of the step, without penalties.
        learning_rate: learning rate of the first parameter group.
        gradient_norm: norm of the gradients before clipping.
        rows_per_second: training throughput so far, without evaluations.
        seconds: training time so far, without evaluations.
        evaluation: validation metrics, if this step ends with an evaluation; no metrics if there
            are no validation rows.
        is_best: whether that evaluation is the best so far.
        stop: why training ends with this step; None if it continues.
    """

    # A gradient norm may be infinite (fp16 skips such a step), which JSON cannot hold by default.
    __pydantic_config__: ClassVar[dict[str, str]] = {"ser_json_inf_nan": "constants"}

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    rows_per_second: float
    seconds: float
    evaluation: Mapping[str, float] | None = None
    is_best: bool = False
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Timetable:
    """When a training run ends and when it is evaluated.

    Attributes:
        steps_per_epoch: optimizer steps per pass over the training rows.
        last: number of the last optimizer step.
        evaluate_every: optimizer steps between evaluations.
    """

    steps_per_epoch: int
    last: int
    evaluate_every: int

    @classmethod
    def of(cls, rows: int, options: TrainOptions) -> Timetable:
        """Return the timetable of a run over `rows` training rows."""
        steps_per_epoch = math.ceil(rows / options.batch_rows)
        every = options.evaluate_every or steps_per_epoch
        return cls(steps_per_epoch, total_steps(rows, options), every)

    def evaluates_after(self, step: int) -> bool:
        """Return whether an evaluation follows the step."""
        return step == self.last or step % self.evaluate_every == 0


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """Result of one optimizer step for one model; see `Step` for the fields."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float


def total_steps(rows: int, options: TrainOptions) -> int:
    """Return the number of optimizer steps of a complete run over `rows` training rows."""
    steps = options.epochs * math.ceil(rows / options.batch_rows)
    return min(steps, options.max_steps) if options.max_steps else steps


def finish_step(
    outcome: StepOutcome,
    evaluation: Mapping[str, float] | None,
    progress: Progress,
    *,
    timetable: Timetable,
    options: TrainOptions,
) -> Step:
    """Return the step that an outcome and its evaluation make up; `progress` records the best.

    Args:
        outcome: result of the optimizer step.
        evaluation: validation metrics after the step, none if there are no validation rows; None
            if the step is not followed by an evaluation.
        progress: state of the run, whose `seconds` and `rows` include this step already.
        timetable: when the run ends.
        options: the metric to keep the best of, and the patience.
    """
    is_best, stop = judge(progress, evaluation, options)
    return Step(
        step=outcome.step,
        epoch=outcome.step / timetable.steps_per_epoch,
        loss=outcome.loss,
        learning_rate=outcome.learning_rate,
        gradient_norm=outcome.gradient_norm,
        rows_per_second=progress.rows / progress.seconds,
        seconds=progress.seconds,
        evaluation=evaluation,
        is_best=is_best,
        stop=ALL_STEPS_DONE if outcome.step == timetable.last else stop,
    )


def judge(
    progress: Progress, evaluation: Mapping[str, float] | None, options: TrainOptions
) -> tuple[bool, str | None]:
    """Record an evaluation in `progress`.

    Of equally good evaluations, and of those that `keep_within` takes for equally good, the later
    one is kept, because its weights have been trained longer. A checkpoint that is worse than what
    training started from, by more than `below_start`, is never kept. An evaluation without metrics,
    as there are no validation rows, is always kept, so that the weights of the last step are.

    Returns:
        Whether the evaluated weights are to be kept, and why training stops, or None.
    """
    if evaluation is None:
        return False, None
    if not evaluation:
        progress.best_step = progress.step
        return True, None
    value = evaluation[options.keep_best]
    gain = _gain(value, progress.best, options)
    if progress.step == 0:
        progress.start = value
    gain_over_start = _gain(value, progress.start, options)
    is_kept = gain >= -options.keep_within and gain_over_start >= -options.below_start
    is_improvement = gain > options.threshold or (options.keep_within > 0.0 and is_kept)
    progress.without_improvement = 0 if is_improvement else progress.without_improvement + 1
    if gain >= 0:
        progress.best = value
    if is_kept:
        progress.kept, progress.best_step = value, progress.step
    if is_patience_exhausted(progress, options):
        return is_kept, f"{options.keep_best} has not improved for {options.patience} evaluations"
    return is_kept, None


def is_as_good(progress: Progress, evaluation: Mapping[str, float], options: TrainOptions) -> bool:
    """Return whether an evaluation is at least as good as that of the checkpoint that is kept."""
    return not evaluation or _gain(evaluation[options.keep_best], progress.kept, options) >= 0


def _gain(value: float, other: float | None, options: TrainOptions) -> float:
    """Return how much better a value of the metric is than another one, if there is one."""
    if other is None:
        return math.inf
    return other - value if options.keep_best in LOWER_IS_BETTER else value - other


def is_patience_exhausted(progress: Progress, options: TrainOptions) -> bool:
    """Return whether early stopping ends the run."""
    return options.patience is not None and progress.without_improvement >= options.patience

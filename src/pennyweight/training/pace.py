"""How long a run takes: predicted from its first steps, and planned to keep a time limit.

The time of a step is taken to be proportional to its tokens, which are known for all steps
beforehand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.train.loop import batches_of
from pennyweight.engine.train.progress import Step, Timetable, TrainOptions, total_steps
from pennyweight.engine.train.speed import Speed
from pennyweight.training.active_run import ActiveRun
from pennyweight.training.processes import of_main_process
from pennyweight.wording import duration

__all__ = [
    "STEPS_BEFORE_PREDICTION",
    "Measured",
    "Work",
    "keep_time_limit",
    "limit_steps",
    "predict_seconds",
    "predict_time",
    "work_of",
]

STEPS_BEFORE_PREDICTION = 20

# Loading the saved classifier, and writing the record.
_CLOSING_SECONDS = 3.0
# Within a limit, this share of it is planned for, because steps vary.
_PLANNED_SHARE = 0.96
# The most of the time that is left that fitting the head again may take.
_REFIT_SHARE = 0.25
# How many times faster than a training step a prediction is, where it was not measured.
_PREDICTIONS_PER_STEP = 3.0
# With less than this share of a recipe's steps, an adapter has hardly begun to learn.
_FEW_STEPS = 0.25


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of the baseline on embeddings, from which the time of later stages follows.

    Attributes:
        prediction_speed: tokens per second of the frozen encoder; None if it was not measured.
        head_seconds: how long a logistic regression on the training rows' embeddings took.
        head_tokens: tokens of the training rows that were embedded for it; None if none were.
    """

    prediction_speed: float | None = None
    head_seconds: float = 0.0
    head_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a run.

    Attributes:
        tokens: int64 `[training rows]`, tokens of each.
        validation_tokens: tokens of all validation rows, which each evaluation predicts.
        final_tokens: tokens of all rows that are predicted after the last step.
        refit_tokens: tokens of the rows that are predicted to fit the head again.
        refit_seconds: how long that fit takes, without predictions.
        prediction_speed: tokens per second of a prediction, as measured before training; None if
            it was not.
    """

    tokens: np.ndarray
    validation_tokens: int
    final_tokens: int
    refit_tokens: int = 0
    refit_seconds: float = 0.0
    prediction_speed: float | None = None

    def seconds(self, options: TrainOptions, speed: Speed, *, after: int = 0) -> float:
        """Return how long the steps after step `after` take, evaluations included."""
        timetable = Timetable.of(len(self.tokens), options)
        steps = range(after + 1, timetable.last + 1)
        evaluations = sum(timetable.evaluates_after(step) for step in steps)
        # Fewer than in a full batch where an epoch is shorter than one.
        tokens = float(self.tokens.sum()) / timetable.steps_per_epoch
        training = len(steps) * tokens / speed.training
        evaluating = evaluations * self.validation_tokens / speed.prediction
        # The final evaluation loads the saved classifier, which has no cached states.
        final = self.final_tokens / (speed.whole_prediction or speed.prediction) + _CLOSING_SECONDS
        return training + evaluating + self.refit(speed) + final

    def without_refit(self) -> Work:
        """Return the work of a run whose head is not fitted again."""
        return replace(self, refit_tokens=0, refit_seconds=0.0)

    def refit(self, speed: Speed) -> float:
        """Return how many seconds it takes to fit the head again; 0 if it is not."""
        return self.refit_tokens / speed.prediction + self.refit_seconds


def keep_time_limit(
    run: ActiveRun, work: Work, rows: TokenizedRows, *, measure: Callable[[], Speed]
) -> tuple[ActiveRun, Work]:
    """Return the run with as many steps as its time limit allows, and what it has to do then.

    Both are unchanged without a limit. The head is not fitted again if that would take too much of
    the time. A resumed run keeps what was planned when it began: its schedule depends on the number
    of steps. Of several processes, all keep to the main one's plan.

    Args:
        run: the run under way.
        work: what it has to do without a limit.
        rows: its training rows.
        measure: returns the speed; called in all processes or in none.
    """
    job, record = run.job, run.record
    options, limit = job.settings.fit.options, job.settings.fit.seconds
    if limit is None:
        return run, work
    planned = total_steps(len(rows), options)
    refits_head = job.settings.fit.refits_head
    if record.planned_steps is not None:
        options = _shortened(options, record.planned_steps, len(rows))
        refits_head = refits_head and not record.skips_refit
    else:
        speed = measure()
        left = limit - (time.perf_counter() - job.began)
        if work.refit(speed) > _REFIT_SHARE * left:
            run.log("time limit: there is no time to fit the head again after training")
            refits_head, work = False, work.without_refit()
        options = limit_steps(work, options, speed, seconds=left)
        # Each process has measured other times.
        options, refits_head = of_main_process((options, refits_head))
        run.log(
            f"time limit: {options.max_steps or planned:,} of {planned:,} steps fit into "
            f"{limit / 60:g} minutes at {speed.training:,.0f} tokens/s"
        )
        if options.max_steps is not None and options.max_steps < _FEW_STEPS * planned:
            run.log(
                "warning: the time limit leaves a small part of the training, and so of the "
                "accuracy; raise train.minutes, or train fewer rows with data.train_rows"
            )
    run.writer.update(skips_refit=job.settings.fit.refits_head and not refits_head)
    fit = replace(job.settings.fit, options=options, refits_head=refits_head)
    run = replace(run, job=replace(job, settings=replace(job.settings, fit=fit)))
    return run, work if refits_head else work.without_refit()


def predict_time(run: ActiveRun, work: Work, rows: TokenizedRows, step: Step) -> None:
    """Log and record how long the whole run will take, once its first steps have been timed."""
    options = run.job.settings.fit.options
    left = predict_seconds(work, rows, options, steps=step.step, seconds=step.seconds)
    whole = time.perf_counter() - run.job.began + left
    run.writer.update(predicted_seconds=whole)
    run.log(f"the run will take about {duration(whole)}, of which {duration(left)} are left")


def work_of(
    run: ActiveRun, rows: TokenizedRows, validation: TokenizedRows, measured: Measured
) -> Work:
    """Return what a run has to do; the lengths of texts that are not tokenized yet are estimated.

    Args:
        run: the run, its rows read.
        rows: its training rows.
        validation: its validation rows.
        measured: while the baselines were fitted.
    """
    splits = run.splits
    others = sum(len(table) for table in splits.held_out.values())
    others += 0 if splits.target is None else len(splits.target)
    validation_tokens = int(validation.lengths.sum())
    final_tokens = validation_tokens + round(others * float(rows.lengths.mean()))
    work = Work(
        rows.lengths,
        validation_tokens,
        final_tokens,
        prediction_speed=measured.prediction_speed,
    )
    if not run.job.settings.fit.refits_head:
        return work
    # The embeddings of the training rows, and the head's own look at the validation rows.
    tokens = int(rows.lengths.sum()) if measured.head_tokens is None else measured.head_tokens
    tokens += validation_tokens
    return replace(work, refit_tokens=tokens, refit_seconds=measured.head_seconds)


def predict_seconds(
    work: Work, rows: TokenizedRows, options: TrainOptions, *, steps: int, seconds: float
) -> float:
    """Return how long the rest of a run will take, from the time of its first steps.

    Args:
        work: what the run has to do.
        rows: its training rows.
        options: of the loop.
        steps: number of steps that have been taken, from the first one on.
        seconds: how long these steps took.
    """
    first = batches_of(rows, options, start=0, end=steps)
    tokens = sum(int(rows.lengths[batch].sum()) for batch in first)
    training = tokens / seconds
    prediction = work.prediction_speed or _PREDICTIONS_PER_STEP * training
    return work.seconds(options, Speed(training, prediction), after=steps)


def limit_steps(work: Work, options: TrainOptions, speed: Speed, *, seconds: float) -> TrainOptions:
    """Return options with as many steps, up to those planned, as the time allows; at least one.

    With fewer steps, evaluations come closer together, so that a run still has several.

    Args:
        work: what the run has to do.
        options: of the loop.
        speed: measured on the first batches.
        seconds: that are left for the steps and all that follows them.
    """
    rows = len(work.tokens)
    planned = total_steps(rows, options)
    available = _PLANNED_SHARE * seconds
    low, high = 1, planned
    while low < high:
        middle = (low + high + 1) // 2
        if work.seconds(_shortened(options, middle, rows), speed) <= available:
            low = middle
        else:
            high = middle - 1
    return options if low == planned else _shortened(options, low, rows)


def _shortened(options: TrainOptions, steps: int, rows: int) -> TrainOptions:
    # None: once after each epoch.
    every = options.evaluate_every or math.ceil(rows / options.batch_rows)
    closer = max(1, round(every * steps / total_steps(rows, options)))
    return replace(options, max_steps=steps, evaluate_every=closer)

"""The training loop: a generator of steps that neither writes files nor prints.

The loop yields a `Step` after every optimizer step; its caller records and saves. All random
numbers of a step derive from seed, step and process, so that a resumed run continues exactly as if
it had not stopped. The loss of a batch is its mean over rows, however the rows are distributed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from pennyweight.engine.batches.order import Classes, epoch_batches
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.train.progress import (
    Progress,
    Step,
    Timetable,
    TrainOptions,
    finish_step,
    is_patience_exhausted,
    judge,
    total_steps,
)
from pennyweight.engine.train.step import (
    Learner,
    OptimizerStep,
    PendingStep,
    TrainContext,
    single_model,
)

__all__ = [
    "Learner",
    "Progress",
    "Step",
    "TrainContext",
    "TrainOptions",
    "batches_of",
    "judge",
    "total_steps",
    "train",
]


def train(
    learner: Learner,
    rows: TokenizedRows,
    *,
    context: TrainContext,
    evaluate: Callable[[], Mapping[str, float]],
    progress: Progress,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Train a model and yield every step.

    Args:
        learner: the model with its optimizer, schedule and loss.
        rows: tokenized training rows.
        context: batcher, options and accelerator.
        evaluate: returns validation metrics of the model as it is, none if there are no validation
            rows; leaves it in training mode.
        progress: where to start from; updated in place.
        is_stopping: returns whether to end early. Steps that have begun are still finished,
            evaluated where that is due, and yielded.

    Raises:
        NonFiniteLossError: a loss is NaN or infinite; the message names step and rows.
    """
    options = context.options
    if is_patience_exhausted(progress, options):
        return
    timetable = Timetable.of(len(rows), options)
    take_step = OptimizerStep([learner], single_model(learner.model, context), context)
    learner.model.train()
    started = time.perf_counter()
    for pending in _begun_steps(take_step, rows, progress, timetable, is_stopping):
        (outcome,) = pending.read()
        progress.seconds += time.perf_counter() - started
        progress.rows += len(pending.batch)
        evaluation = evaluate() if timetable.evaluates_after(pending.step) else None
        step = finish_step(outcome, evaluation, progress, timetable=timetable, options=options)
        yield step
        started = time.perf_counter()
        if step.stop is not None:
            return


def _begun_steps(
    take_step: OptimizerStep,
    rows: TokenizedRows,
    progress: Progress,
    timetable: Timetable,
    is_stopping: Callable[[], bool],
) -> Iterator[PendingStep]:
    """Begin one step after another, and yield each; on a GPU, once the next one has begun.

    A step that ends with an evaluation is yielded before the next one begins, and so is the last
    one before stopping: the weights are then those after this step.
    """
    context = take_step.context
    waiting: PendingStep | None = None
    for batch in batches_of(rows, context.options, start=progress.step, end=timetable.last):
        progress.step += 1
        begun = take_step(rows, batch, progress.step)
        if waiting is not None:
            yield waiting
        waiting = begun
        if not context.runs_ahead or timetable.evaluates_after(begun.step):
            yield begun
            waiting = None
        if is_stopping():
            break
    if waiting is not None:
        yield waiting


def batches_of(
    rows: TokenizedRows, options: TrainOptions, *, start: int, end: int
) -> Iterator[np.ndarray]:
    """Yield the row indices of the batches of steps `start` + 1 to `end`."""
    step = 0
    for epoch in range(options.epochs):
        batches = epoch_batches(
            rows.lengths,
            batch_rows=options.batch_rows,
            order=options.batch_order,
            seed=options.seed,
            epoch=epoch,
            classes=Classes(rows.labels, are_balanced=options.sampling == "balanced"),
        )
        for batch in batches:
            if step >= end:
                return
            if step >= start:
                yield batch
            step += 1

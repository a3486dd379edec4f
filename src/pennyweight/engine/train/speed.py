"""The speed of training and of predictions, measured on the first batches of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.train.loop import batches_of
from pennyweight.engine.train.objective import Objective
from pennyweight.engine.train.step import Learner, OptimizerStep, TrainContext, single_model

__all__ = ["Speed", "measure_speed"]

_WARM_UP_BATCHES = 2
_TIMED_BATCHES = 10


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second, of all processes together. Each token of a row counts once.

    Attributes:
        training: of a training step, with all its forward passes.
        prediction: of a prediction on rows like those that are trained on.
        whole_prediction: of a prediction that runs through every layer, although the lower ones are
            cached for the rows that are trained on; None where nothing is cached.
    """

    training: float
    prediction: float
    whole_prediction: float | None = None


def measure_speed(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    rows: TokenizedRows,
    *,
    context: TrainContext,
    predict: Callable[[TokenizedRows], object],
) -> Speed:
    """Time the first steps of a run, and predictions of their rows; no weight is changed.

    Several processes measure together, as they train.

    Args:
        model: the model, wrapped as it is for training.
        optimizer: of the run's kind, over the model's trained parameters; it is used up.
        objective: the loss.
        rows: to train on.
        context: of the training loop.
        predict: predicts rows as an evaluation does.
    """
    end = _WARM_UP_BATCHES + _TIMED_BATCHES
    batches = list(batches_of(rows, context.options, start=0, end=end))
    timed = batches[_WARM_UP_BATCHES:] or batches
    with _unchanged(model):
        # At a learning rate of 0, which cannot diverge, as a peak rate without warm-up could.
        learner = Learner(model, optimizer, LambdaLR(optimizer, lambda _: 0.0), objective)
        take_step = OptimizerStep([learner], single_model(model, context), context)
        model.train()
        for batch in batches[:_WARM_UP_BATCHES]:
            take_step(rows, batch, 1)
        tokens = sum(int(rows.lengths[batch].sum()) for batch in timed)
        training = tokens / _seconds(lambda: [take_step(rows, batch, 1) for batch in timed])
    sample = rows.take(np.concatenate(timed))
    prediction = tokens / _seconds(lambda: predict(sample))
    whole_prediction = None
    if rows.states is not None:
        whole = replace(sample, states=None)
        whole_prediction = tokens / _seconds(lambda: predict(whole))
    return Speed(training, prediction, whole_prediction)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Restore the trained parameters after the block, and drop their gradients."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(trained, before, strict=True):
                parameter.copy_(values)
        model.zero_grad(set_to_none=True)


def _seconds(run: Callable[[], object]) -> float:
    """Return how long `run` takes, until the device has finished."""
    _wait_for_device()
    started = time.perf_counter()
    run()
    _wait_for_device()
    return time.perf_counter() - started


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

"""The speed of training and of predictions, measured on the first batches of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.train.loop import batches_of
from pennyweight.engine.train.progress import TrainOptions

__all__ = ["Speed", "measure_speed"]

_WARM_UP_BATCHES = 2
_TIMED_BATCHES = 10


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second.

    Attributes:
        training: of a training step.
        prediction: of a prediction on rows like those that are trained on.
        whole_prediction: of a prediction that runs through every layer, although the lower ones are
            cached for the rows that are trained on; None where nothing is cached.
    """

    training: float
    prediction: float
    whole_prediction: float | None = None


def measure_speed(
    model: Any, batcher: Batcher, rows: TokenizedRows, options: TrainOptions
) -> Speed:
    """Time the first batches of a run, forward and backward; no weight is changed.

    Args:
        model: the adapted model.
        batcher: of the model.
        rows: to train on.
        options: of the loop, which decide what the batches are.
    """
    batches = list(batches_of(rows, options, start=0, end=_WARM_UP_BATCHES + _TIMED_BATCHES))
    measured = batches[_WARM_UP_BATCHES:] or batches
    model.train()
    for batch in batches[:_WARM_UP_BATCHES]:
        _backward(model, batcher, rows, batch)
    training = _timed(measured, rows, lambda batch: _backward(model, batcher, rows, batch))
    model.zero_grad(set_to_none=True)
    model.eval()
    prediction = _timed(measured, rows, lambda batch: _forward(model, batcher, rows, batch))
    whole_prediction = None
    if rows.states is not None:
        whole = replace(rows, states=None)
        whole_prediction = _timed(
            measured, whole, lambda batch: _forward(model, batcher, whole, batch)
        )
    model.train()
    return Speed(training, prediction, whole_prediction)


def _timed(
    batches: Sequence[np.ndarray], rows: TokenizedRows, run: Callable[[np.ndarray], None]
) -> float:
    """Return the tokens per second of `run`, called with each batch."""
    tokens = sum(int(rows.lengths[batch].sum()) for batch in batches)
    _wait_for_device()
    started = time.perf_counter()
    for batch in batches:
        run(batch)
    _wait_for_device()
    return tokens / (time.perf_counter() - started)


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _backward(model: Any, batcher: Batcher, rows: TokenizedRows, batch: np.ndarray) -> None:
    for piece in batcher.pieces(rows, batch):
        inputs, _ = batcher.inputs(rows, piece)
        logits = model(**inputs).logits.float()
        torch.autograd.backward(functional.log_softmax(logits, dim=1).mean())


@torch.no_grad()
def _forward(model: Any, batcher: Batcher, rows: TokenizedRows, batch: np.ndarray) -> None:
    for piece in batcher.pieces(rows, batch):
        inputs, _ = batcher.inputs(rows, piece)
        model(**inputs)

"""Metrics of a set while a run is under way, its rows shared out over the processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from pennyweight.engine.batch import Tokens
from pennyweight.engine.device import Compute
from pennyweight.engine.feed import Feed
from pennyweight.engine.predict import predict_logits
from pennyweight.errors import NonFiniteLossError
from pennyweight.evaluation import Metrics, measure
from pennyweight.recipe import Recipe

__all__ = ["measure_tokens"]


def measure_tokens(
    model: Any,
    tokens: Tokens,
    *,
    feed: Feed,
    compute: Compute,
    accelerator: Accelerator,
    recipe: Recipe,
    where: str,
) -> Metrics:
    """Metrics of a model on labelled rows; every process gets all of them.

    Args:
        model: ready to run.
        tokens: the rows.
        feed: how the model is fed.
        compute: device and precision.
        accelerator: knows the processes.
        recipe: for labels, batch size and bins.
        where: names the set in an error.

    Raises:
        NonFiniteLossError: a logit is NaN or infinite.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    classes = len(recipe.data.labels)
    logits = predict_logits(
        model,
        tokens.take(np.arange(rank, len(tokens), world)),
        feed=feed,
        compute=compute,
        batch_rows=recipe.train.evaluation_batch_rows,
        classes=classes,
    )
    if world > 1:
        together = np.empty((len(tokens), classes), dtype=np.float32)
        for offset, found in enumerate(gather_object([logits])):
            together[offset::world] = found
        logits = together
    if not np.isfinite(logits).all():
        raise NonFiniteLossError(
            f"{where}: the model's logits are NaN or infinite for "
            f"{int((~np.isfinite(logits)).any(axis=1).sum())} of {len(tokens)} rows"
        )
    return measure(
        logits,
        tokens.labels,
        names=recipe.data.labels,
        bins=recipe.evaluate.calibration_bins,
    )

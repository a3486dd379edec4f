"""The speed at which this machine trains a recipe, measured before anything else is prepared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from pennyweight.engine.batches.rows import TokenizedRows, TokenStore
from pennyweight.engine.device import DTYPES, Compute
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.train.progress import TrainOptions
from pennyweight.engine.train.speed import WARM_UP_BATCHES, Speed, measure_speed
from pennyweight.model.build import BaseOptions, build_model
from pennyweight.recipe import Recipe
from pennyweight.settings import find_base, plan

__all__ = ["speed_of"]

# Few enough to take seconds on a CPU.
_BATCHES, _BATCH_ROWS = 3, 16


def speed_of(recipe: Recipe, *, compute: Compute, tokens: int) -> Speed:
    """Return the speed of a recipe, from a few batches that change nothing.

    Random weights and texts of one length are as fast as others, so that nothing is read.

    Args:
        recipe: complete.
        compute: device, precision and attention.
        tokens: number of tokens of a row.

    Raises:
        RecipeError: a pattern or rank does not fit the base.
        BudgetError: the plan is over budget.
    """
    base = find_base(recipe, config_only=True)
    planned = plan(recipe, base=base)
    assert planned.peft_config is not None  # noqa: S101 - it has adapters
    # An initialization that decomposes the base's weights takes long, and changes no speed.
    config = planned.method.shapes_only(planned.peft_config)
    options = BaseOptions(
        seed=recipe.seed,
        weights="random",
        attention=compute.attention,
        quantization=recipe.base.quantization,
        dtype=DTYPES[compute.precision],
    )
    rows = _rows((WARM_UP_BATCHES + _BATCHES) * _BATCH_ROWS, tokens)
    with torch.random.fork_rng(devices=[]):
        model, _ = build_model(
            base, replace(planned, peft_config=config, initialization=None), options
        )
        model.to(compute.device)
        batcher = prepare_model(
            model, compute, max_tokens=recipe.train.batch_tokens, calibration=rows
        )
        return measure_speed(model, batcher, rows, _options(recipe), timed=_BATCHES)


def _rows(number: int, tokens: int) -> TokenizedRows:
    # Token 3 is padding in no vocabulary that is in use.
    ids = pa.array([np.full(tokens, 3, dtype=np.int32)] * number)
    return TokenizedRows(
        store=TokenStore(pa.chunked_array([ids])),
        lengths=np.full(number, tokens, dtype=np.int64),
        labels=np.zeros(number, dtype=np.int64),
        padding=0,
    )


def _options(recipe: Recipe) -> TrainOptions:
    return TrainOptions(
        epochs=1,
        max_steps=None,
        batch_rows=_BATCH_ROWS,
        accumulation_steps=1,
        batch_order="random",
        max_gradient_norm=None,
        evaluate_every=None,
        keep_best="accuracy",
        patience=None,
        threshold=0.0,
        seed=recipe.seed,
    )

"""Logits for tokenized rows, in their order."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import nn

from pennyweight.engine.batch import Tokens
from pennyweight.engine.device import DTYPES, Compute
from pennyweight.engine.features import output_layer_of
from pennyweight.engine.feed import Feed

__all__ = ["autocast", "predict_both", "predict_logits"]


def autocast(compute: Compute) -> AbstractContextManager[object]:
    """What a model runs in; see `Compute.autocast`."""
    if compute.autocast:
        return torch.autocast(compute.device, dtype=DTYPES[compute.precision])
    return nullcontext()


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    tokens: Tokens,
    *,
    feed: Feed,
    compute: Compute,
    batch_rows: int,
    classes: int,
) -> np.ndarray:
    """Logits, float32 `[rows, classes]`, of every row in order; long rows go through together."""
    was_training = model.training
    model.eval()
    found: list[tuple[np.ndarray, torch.Tensor]] = []
    by_length = np.argsort(tokens.lengths, kind="stable")
    for start in range(0, len(by_length), batch_rows):
        for piece in feed.pieces(tokens, by_length[start : start + batch_rows]):
            if len(piece) == 0:
                continue
            inputs, rows = feed.inputs(tokens, piece)
            with autocast(compute):
                found.append((rows, model(**inputs).logits.float()))
    logits = np.empty((len(tokens), classes), dtype=np.float32)
    # Only now, so that a GPU is not waited for after every batch.
    for rows, part in found:
        logits[rows] = part.cpu().numpy()
    model.train(was_training)
    return logits


def predict_both(
    model: nn.Module,
    tokens: Tokens,
    *,
    feed: Feed,
    compute: Compute,
    batch_rows: int,
    output_layer: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[rows, classes]`, and what goes into the output layer, `[rows, hidden]`, float32.

    In one pass; the arguments are those of `predict_logits`, and the output layer's name.
    """
    layer = output_layer_of(model, output_layer)
    # A hook's answer takes the place of the layer's, so what comes out as logits is its input.
    hook = layer.register_forward_hook(lambda _layer, args, _output: args[0])
    try:
        features = predict_logits(
            model,
            tokens,
            feed=feed,
            compute=compute,
            batch_rows=batch_rows,
            classes=layer.in_features,
        )
    finally:
        hook.remove()
    with torch.inference_mode():
        given = torch.from_numpy(features).to(layer.weight.device, layer.weight.dtype)
        logits: np.ndarray = layer(given).float().cpu().numpy()
    return logits, features

"""Logits for tokenized rows, in their order."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import nn

from pennyweight.engine.batch import Tokens
from pennyweight.engine.device import DTYPES, Compute
from pennyweight.engine.feed import Feed

__all__ = ["autocast", "predict_logits"]


def autocast(compute: Compute) -> AbstractContextManager[object]:
    """What a model runs in: where weights are of two precisions, torch picks for each operation."""
    if compute.precision == "fp16":
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

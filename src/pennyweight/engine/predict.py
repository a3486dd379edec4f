"""Logits for tokenized rows, in their order."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import nn

from pennyweight.engine.batch import Tokens, collate
from pennyweight.engine.device import Compute

__all__ = ["autocast", "predict_logits"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(compute: Compute) -> AbstractContextManager[object]:
    """The context in which the matrix products run at the chosen precision."""
    if compute.precision == "fp32":
        return nullcontext()
    return torch.autocast(compute.device, dtype=_DTYPES[compute.precision])


@torch.inference_mode()
def predict_logits(
    model: nn.Module, tokens: Tokens, *, compute: Compute, batch_rows: int, classes: int
) -> np.ndarray:
    """Logits, float32 `[rows, classes]`, of every row in order; long rows go through together."""
    was_training = model.training
    model.eval()
    logits = np.empty((len(tokens), classes), dtype=np.float32)
    by_length = np.argsort(tokens.lengths, kind="stable")
    for start in range(0, len(by_length), batch_rows):
        rows = by_length[start : start + batch_rows]
        batch = {key: value.to(compute.device) for key, value in collate(tokens, rows).items()}
        with autocast(compute):
            output = model(**batch)
        logits[rows] = output.logits.float().cpu().numpy()
    model.train(was_training)
    return logits

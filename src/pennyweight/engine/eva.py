"""EVA: A begins with the directions in which a layer's inputs vary most (arXiv:2410.07170)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from peft import initialize_lora_eva_weights

from pennyweight.engine.batch import Tokens
from pennyweight.engine.feed import Feed

__all__ = ["begin_with_eva"]


class _Batches:
    """The training rows as a model's inputs, in an order of the seed's."""

    def __init__(self, tokens: Tokens, feed: Feed, *, batch_rows: int, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(tokens))
        self._batches = [order[at : at + batch_rows] for at in range(0, len(order), batch_rows)]
        self._tokens = tokens
        self._feed = feed

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for rows in self._batches:
            for piece in self._feed.pieces(self._tokens, rows):
                yield self._feed.inputs(self._tokens, piece)[0]


def begin_with_eva(model: Any, tokens: Tokens, feed: Feed, *, batch_rows: int, seed: int) -> None:
    """Initialize the LoRA layers of a model that is ready to run from its training rows."""

    def run(model: Any, inputs: dict[str, Any]) -> None:
        model(**inputs)

    def flat(layer_input: Any, model_input: Any, layer_name: str) -> torch.Tensor:
        # Filling tokens of a packed row are among them; there are few.
        hidden = layer_input[0] if isinstance(layer_input, tuple) else layer_input
        return hidden.reshape(-1, hidden.shape[-1]).float()

    was_training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialize_lora_eva_weights(
            model,
            dataloader=_Batches(tokens, feed, batch_rows=batch_rows, seed=seed),
            forward_fn=run,
            prepare_model_inputs_fn=lambda inputs, config: None,
            prepare_layer_inputs_fn=flat,
            show_progress_bar=False,
        )
    model.train(was_training)

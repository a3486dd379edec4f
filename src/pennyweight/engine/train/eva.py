"""EVA: initialize A with the directions of largest variance of a layer's inputs.

Paischer et al. 2024, arXiv:2410.07170. PEFT computes the directions by incremental SVD over batches
of training rows until they no longer change. It skips every batch that shows a layer fewer examples
than the rank of its adapter, so it would never end if all batches do. The layers that see one
example per text are the critical ones: the head, and the last layer of a packed batch, of which
only the first token of each text is read.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from peft import initialize_lora_eva_weights
from peft.tuners.lora import LoraLayer

from pennyweight.budget.layout import layer_of
from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.errors import TrainingError

__all__ = ["begin_with_eva"]


class _Inputs(dict[str, Any]):
    """A model's keyword arguments that are on its device already; PEFT asks to move them."""

    def to(self, device: Any) -> _Inputs:
        """Return the inputs as they are."""
        del device
        return self


@dataclass(frozen=True, slots=True)
class _Batches:
    """The model's inputs for each of some batches of row indices."""

    rows: TokenizedRows
    batcher: Batcher
    indices: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[_Inputs]:
        for indices in self.indices:
            yield self.inputs(indices)

    def inputs(self, indices: np.ndarray) -> _Inputs:
        return _Inputs(self.batcher.inputs(self.rows, indices)[0])


def begin_with_eva(
    model: Any, rows: TokenizedRows, batcher: Batcher, *, batch_rows: int, seed: int
) -> None:
    """Initialize the LoRA layers of a model from its training rows, in place.

    Args:
        model: PEFT's model, ready to run, with `init_lora_weights="eva"`.
        rows: the training rows.
        batcher: the batcher of the model.
        batch_rows: rows per batch; batches get larger where an adapter's rank requires it.
        seed: seed of the order of the rows.

    Raises:
        TrainingError: the rows give some layer fewer examples than the rank of its adapter.
    """
    was_training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        # Redirected, because PEFT prints a line about every batch that it skips.
        torch.manual_seed(seed)
        initialize_lora_eva_weights(
            model,
            dataloader=_large_enough(model, rows, batcher, batch_rows=batch_rows, seed=seed),
            forward_fn=_forward,
            prepare_model_inputs_fn=lambda inputs, config: None,
            prepare_layer_inputs_fn=_examples,
            show_progress_bar=False,
        )
    model.train(was_training)


def _forward(model: Any, inputs: dict[str, Any]) -> None:
    model(**inputs)


def _examples(layer_input: Any, model_input: Any, layer_name: str) -> torch.Tensor:
    """Return a layer's input as `[examples, columns]` in float32."""
    # Padding is among the examples, which packed batches have little of.
    hidden = layer_input[0] if isinstance(layer_input, tuple) else layer_input
    # Contiguous, because PEFT hashes a flat view of it.
    return hidden.reshape(-1, hidden.shape[-1]).float().contiguous()


def _large_enough(
    model: Any, rows: TokenizedRows, batcher: Batcher, *, batch_rows: int, seed: int
) -> _Batches:
    """Return batches in random order, of which some show every layer as many examples as its rank.

    Raises:
        TrainingError: all rows together do not.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    batches = _Batches(rows, batcher, _pieces(rows, batcher, order, batch_rows=batch_rows))
    lacking = _lacking(model, batches)
    if not lacking:
        return batches
    # Every text gives every layer at least one example, and twice the rank converges in fewer
    # steps. Batches of this size are not split: without gradients they need far less memory than
    # those of a training step.
    texts = 2 * max(rank for rank, _ in lacking.values())
    batches = _Batches(rows, batcher, np.array_split(order, max(1, len(order) // texts)))
    lacking = _lacking(model, batches)
    if not lacking:
        return batches
    name, (rank, examples) = max(lacking.items(), key=lambda item: item[1][0])
    key = "adapter.head_rank" if layer_of(name) is None else "adapter.rank"
    raise TrainingError(
        f'adapter.initialization: "eva" needs as many examples as the rank, {rank}, at {name}, '
        f"but the {len(rows)} training rows give it {examples}; lower {key} to {examples}, or "
        "choose another adapter.initialization"
    )


def _pieces(
    rows: TokenizedRows, batcher: Batcher, order: np.ndarray, *, batch_rows: int
) -> list[np.ndarray]:
    starts = range(0, len(order), batch_rows)
    return [
        piece
        for start in starts
        for piece in batcher.pieces(rows, order[start : start + batch_rows])
    ]


def _lacking(model: Any, batches: _Batches) -> dict[str, tuple[int, int]]:
    """Return rank and examples of the layers for which the largest batch has too few examples."""
    layers = {
        name: module
        for name, module in model.get_base_model().named_modules()
        if isinstance(module, LoraLayer)
    }
    examples: dict[str, int] = {}

    def count(name: str, _: Any, args: tuple[torch.Tensor, ...]) -> None:
        examples[name] = args[0].numel() // args[0].shape[-1]

    hooks = [
        module.register_forward_pre_hook(partial(count, name)) for name, module in layers.items()
    ]
    try:
        # Without adapters, as PEFT runs the model.
        with torch.no_grad(), model.disable_adapter():
            _forward(model, batches.inputs(max(batches.indices, key=len)))
    finally:
        for hook in hooks:
            hook.remove()
    ranks = {name: module.r["default"] for name, module in layers.items()}
    return {
        name: (ranks[name], number) for name, number in examples.items() if number < ranks[name]
    }

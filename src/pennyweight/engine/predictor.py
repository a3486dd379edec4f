"""One predictor for evaluation, prediction, distillation and serving.

A `Backend` runs a model over tokenized rows; `Predictor` adds tokenization and a check for
non-finite logits. Rows and texts take the same path and give the same logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.batches.tokenize import TokenOptions, tokenize_texts
from pennyweight.engine.batches.truncation import Truncation
from pennyweight.engine.device import DTYPES, Compute, out_of_memory_named
from pennyweight.engine.features import output_layer_of
from pennyweight.errors import NonFiniteLogitsError

__all__ = [
    "Backend",
    "Predictions",
    "Predictor",
    "TorchBackend",
    "autocast_of",
    "captured_inputs",
    "require_finite",
]


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's output for some rows, in their order.

    Attributes:
        logits: float32 `[rows, classes]`.
        features: float32 `[rows, hidden]`, the input of the output layer; None unless requested.
    """

    logits: np.ndarray
    features: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Return the predictions of the rows of several parts, in their order."""
        features = [part.features for part in parts if part.features is not None]
        logits = np.concatenate([part.logits for part in parts])
        return cls(logits, np.concatenate(features) if features else None)

    def divided_by(self, temperature: float) -> Predictions:
        """Return predictions with calibrated logits; the order of the classes stays the same."""
        if temperature == 1.0:
            return self
        return Predictions(self.logits / np.float32(temperature), self.features)


class Backend(Protocol):
    """Runs a classifier over tokenized rows."""

    def predict(self, rows: TokenizedRows, *, features: bool = False) -> Predictions:
        """Return the predictions for all rows, in their order.

        Args:
            rows: tokenized rows; for none at all, the arrays are empty but of the right width.
            features: whether to return the input of the output layer too.
        """
        ...


class TorchBackend:
    """Run a PyTorch model on one device, or on one device per process.

    With an accelerator of several processes, each process runs its share of the rows, and every
    process gets the predictions for all of them.

    Args:
        model: a sequence classifier prepared by `prepare_model`, with PEFT's layers or without.
        batcher: the batcher that `prepare_model` returned for it.
        compute: device and precision.
        batch_rows: maximum number of rows per forward pass.
        output_layer: name of the layer that computes the logits, without PEFT's prefixes.
        accelerator: the processes that share the rows; None for this process alone.
    """

    def __init__(
        self,
        model: nn.Module,
        batcher: Batcher,
        compute: Compute,
        *,
        batch_rows: int,
        output_layer: str,
        accelerator: Accelerator | None = None,
    ) -> None:
        self._model: Any = model
        self._batcher = batcher
        self._compute = compute
        self._batch_rows = batch_rows
        self._output_layer = output_layer
        self._accelerator = accelerator

    def predict(self, rows: TokenizedRows, *, features: bool = False) -> Predictions:
        """Return the predictions for all rows, in their order; see `Backend.predict`."""
        accelerator = self._accelerator
        if accelerator is None or accelerator.num_processes == 1:
            return self._run(rows, features=features)
        world = accelerator.num_processes
        share = np.arange(accelerator.process_index, len(rows), world)
        shares = gather_object([self._run(rows.take(share), features=features)])
        logits = _interleave([part.logits for part in shares], len(rows))
        if not features:
            return Predictions(logits)
        return Predictions(logits, _interleave([part.features for part in shares], len(rows)))

    @torch.inference_mode()
    def _run(self, rows: TokenizedRows, *, features: bool) -> Predictions:
        """Return the predictions of this process; rows of similar length share a forward pass."""
        layer = output_layer_of(self._model, self._output_layer) if features else None
        logits = np.empty((len(rows), int(self._model.config.num_labels)), dtype=np.float32)
        hidden = None if layer is None else np.empty((len(rows), layer.in_features), np.float32)
        captured: Sequence[torch.Tensor] = ()
        outputs: list[tuple[np.ndarray, torch.Tensor]] = []
        by_length = np.argsort(rows.lengths, kind="stable")
        with ExitStack() as stack:
            stack.enter_context(_evaluating(self._model))
            if layer is not None:
                captured = stack.enter_context(captured_inputs(layer))
            for start in range(0, len(rows), self._batch_rows):
                batch = by_length[start : start + self._batch_rows]
                for piece in self._batcher.pieces(rows, batch):
                    inputs, order = self._batcher.inputs(rows, piece)
                    with autocast_of(self._compute), out_of_memory_named(_describe(rows, order)):
                        outputs.append((order, self._model(**inputs).logits.float()))
        # Copied only after the last batch has been launched, so that a GPU never waits.
        for order, part in outputs:
            logits[order] = part.cpu().numpy()
        if hidden is not None:
            for (order, _), part in zip(outputs, captured, strict=True):
                hidden[order] = part.float().cpu().numpy()
        return Predictions(logits, hidden)


class Predictor:
    """Predict classes for tokenized rows, or for texts.

    Args:
        backend: what runs the model.
        tokenizer: the model's tokenizer; required for texts.
        max_tokens: length to which texts are truncated; required with a tokenizer.
        truncation: which tokens of a longer text are kept.

    Raises:
        ValueError: a tokenizer without `max_tokens`.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        tokenizer: Any = None,
        max_tokens: int | None = None,
        truncation: Truncation = "head",
    ) -> None:
        if tokenizer is not None and max_tokens is None:
            raise ValueError("a predictor with a tokenizer needs max_tokens")
        self._backend = backend
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._options = TokenOptions(truncation)

    def rows(
        self, rows: TokenizedRows, *, features: bool = False, name: str = "rows"
    ) -> Predictions:
        """Return the predictions for tokenized rows, in their order.

        Args:
            rows: tokenized rows; may be empty.
            features: whether to return the input of the output layer too.
            name: name of the set in an error message.

        Raises:
            NonFiniteLogitsError: a logit is NaN or infinite.
        """
        predictions = self._backend.predict(rows, features=features)
        require_finite(predictions, name=name)
        return predictions

    def texts(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], *, features: bool = False
    ) -> Predictions:
        """Return the predictions for texts, in their order, tokenized in memory.

        Args:
            texts: texts or pairs of texts, cleaned as in training; may be empty.
            features: whether to return the input of the output layer too.

        Raises:
            NonFiniteLogitsError: a logit is NaN or infinite.
            ValueError: the predictor has no tokenizer.
        """
        if self._tokenizer is None or self._max_tokens is None:
            raise ValueError("this predictor takes tokenized rows only: it has no tokenizer")
        rows = tokenize_texts(
            texts,
            tokenizer=self._tokenizer,
            max_tokens=self._max_tokens,
            options=self._options,
        )
        return self.rows(rows, features=features, name="texts")


def _describe(rows: TokenizedRows, indices: np.ndarray) -> str:
    return (
        f"prediction of {len(indices)} rows at once, the longest of "
        f"{rows.lengths[indices].max():,} tokens; lower train.evaluation_batch_rows, or "
        "data.max_tokens"
    )


def require_finite(predictions: Predictions, *, name: str) -> None:
    """Refuse logits that are NaN or infinite.

    Args:
        predictions: of some rows.
        name: name of the rows in the message.

    Raises:
        NonFiniteLogitsError: a logit is NaN or infinite.
    """
    finite = np.isfinite(predictions.logits)
    if not finite.all():
        bad = int((~finite).any(axis=1).sum())
        raise NonFiniteLogitsError(
            f"{name}: the model's logits are NaN or infinite for {bad} of {len(finite)} rows"
        )


def autocast_of(compute: Compute) -> AbstractContextManager[object]:
    """Return the context in which torch chooses dtypes, where `compute` asks for it."""
    if compute.autocast:
        return torch.autocast(torch.device(compute.device).type, dtype=DTYPES[compute.precision])
    return nullcontext()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Keep a model in evaluation mode, without a pass over its modules if it is in it already."""
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


@contextmanager
def captured_inputs(layer: nn.Module) -> Iterator[Sequence[torch.Tensor]]:
    """Collect the layer's input of every forward pass."""
    captured: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    try:
        yield captured
    finally:
        hook.remove()


def _interleave(shares: Sequence[Any], rows: int) -> np.ndarray:
    """Merge the processes' arrays, of which process p holds rows p, p + processes, ..."""
    merged = np.empty((rows, shares[0].shape[1]), dtype=np.float32)
    for process, share in enumerate(shares):
        merged[process :: len(shares)] = share
    return merged

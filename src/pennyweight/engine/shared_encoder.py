"""One frozen encoder for batches whose rows are of different adapters, each with its own head.

The rows of a batch are sorted by adapter. Every frozen product covers all rows; then the rows of
each adapter, which follow each other, get its low-rank product, scale or shift. Measured with 32
adapters on one CPU core, a loop over the adapters is faster than padded products of all of them.

Beside the frozen products, these changes take a third of the time. An adapter that is alone can be
folded into a copy of the weights instead, which is then used until other adapters run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from pennyweight.engine.batches.packing import first_tokens, mean_tokens
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels.families import can_mix_adapters
from pennyweight.engine.kernels.frozen import product_of
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.predictor import Predictions, autocast_of, captured_inputs
from pennyweight.model.output_updates import OutputUpdate
from pennyweight.model.shared_adapter import SharedAdapter

__all__ = ["SharedEncoder"]

_Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows of one adapter in a batch.

    Attributes:
        adapter: index of the adapter.
        updates: the adapter's changes, by module.
        texts: its rows.
        tokens: their tokens in a packed row; all of them in a padded batch.
    """

    adapter: int
    updates: Any
    texts: slice
    tokens: slice

    def part(self, x: torch.Tensor) -> torch.Tensor:
        """Return the segment's rows of a module's input or output, as a view."""
        # A packed row has many tokens; where only the first tokens are left, each text has one.
        is_packed_row = x.shape[0] == 1 and x.shape[1] > 1
        return x[0, self.tokens] if is_packed_row else x[self.texts]


@dataclass(frozen=True, slots=True)
class _Output:
    """The outputs of an adapter for some rows of a batch.

    Attributes:
        adapter: index of the adapter.
        indices: int64 `[rows]`, of the rows among all rows.
        logits: `[rows, classes]`.
        features: `[rows, hidden]`; None if they are not requested.
    """

    adapter: int
    indices: np.ndarray
    logits: torch.Tensor
    features: torch.Tensor | None


class SharedEncoder:
    """Runs mixed batches; may be used by several threads, whose batches then take turns.

    Args:
        model: a plain classifier with frozen weights, of which the encoder is used; it is changed
            in place.
        compute: device, precision and attention, with which the model was loaded.
        batch_rows: maximum number of rows per forward pass.
        max_tokens: maximum number of tokens per forward pass.
        calibration: see `prepare_model`.
    """

    def __init__(
        self,
        model: Any,
        compute: Compute,
        *,
        batch_rows: int,
        max_tokens: int,
        calibration: TokenizedRows | None = None,
    ) -> None:
        self._compute = compute
        self._batch_rows = batch_rows
        self._lock = threading.Lock()
        self._running: tuple[_Segment, ...] = ()
        # What runs instead of modules, by their names, and the adapter that it is folded from.
        self._replaced: Mapping[str, _Forward] = {}
        self._folded: tuple[SharedAdapter, Mapping[str, _Forward]] | None = None
        self._frozen: dict[str, tuple[nn.Module, _Forward]] = {}
        self._can_mix = can_mix_adapters(model.config)
        # Each head decides for itself what it reads. The config may be that of other models too.
        model.config = copy(model.config)
        model.config.classifier_pooling = "cls"
        self._encoder: Any = model.to(compute.device).base_model
        self._batcher = prepare_model(
            model, compute, max_tokens=max_tokens, calibration=calibration
        )
        for path, module in model.base_model.named_modules(prefix=model.base_model_prefix):
            if isinstance(module, nn.Linear | nn.LayerNorm | nn.RMSNorm):
                layer: Any = module
                self._frozen[path] = layer, layer.forward
                layer.forward = partial(self._updated, path, layer.forward)

    @torch.inference_mode()
    def predict(
        self,
        rows: TokenizedRows,
        owners: np.ndarray,
        adapters: Sequence[SharedAdapter],
        *,
        features: bool = False,
        folded: bool = False,
    ) -> list[Predictions]:
        """Return the predictions of each adapter for its rows, in their order.

        Args:
            rows: tokenized rows.
            owners: int64 `[rows]`, the index of each row's adapter.
            adapters: loaded for the model of this encoder.
            features: whether to return the input of the output layers too.
            folded: whether to fold the only adapter into a copy of the weights, which is kept for
                the next call. Worth it where the adapter stays alone.

        Raises:
            ValueError: several adapters are to be folded.
        """
        if folded and len(adapters) != 1:
            raise ValueError(f"folded: given {len(adapters)} adapters; allowed: one")
        if not folded and not self._can_mix:
            return [
                self._predict_alone(rows, owners == number, adapter, features=features)
                for number, adapter in enumerate(adapters)
            ]
        outputs: list[_Output] = []
        by_length = np.argsort(rows.lengths, kind="stable")
        for start in range(0, len(rows), self._batch_rows):
            batch = by_length[start : start + self._batch_rows]
            for piece in self._batcher.pieces(rows, batch):
                sorted_piece = piece[np.argsort(owners[piece], kind="stable")]
                # Modules read from `self` what is running, so threads have to take turns.
                with self._lock:
                    self._fold(adapters[0] if folded else None)
                    outputs += self._run(rows, sorted_piece, owners, adapters, features=features)
        return [
            _collect([out for out in outputs if out.adapter == number], adapter.output_layer)
            for number, adapter in enumerate(adapters)
        ]

    def _predict_alone(
        self, rows: TokenizedRows, is_own: np.ndarray, adapter: SharedAdapter, *, features: bool
    ) -> Predictions:
        """Return the predictions of an adapter for its rows, with batches of its own."""
        own = rows.take(np.flatnonzero(is_own))
        owners = np.zeros(len(own), dtype=np.int64)
        (predictions,) = self.predict(own, owners, [adapter], features=features, folded=True)
        return predictions

    def forget(self, adapter: SharedAdapter) -> None:
        """Free the copies of weights that an adapter is folded into."""
        with self._lock:
            if self._folded is not None and self._folded[0] is adapter:
                self._fold(None)

    def _run(
        self,
        rows: TokenizedRows,
        indices: np.ndarray,
        owners: np.ndarray,
        adapters: Sequence[SharedAdapter],
        *,
        features: bool,
    ) -> list[_Output]:
        """Return the output of each segment of a batch, whose rows are sorted by adapter."""
        inputs, order = self._batcher.inputs(rows, indices, is_ordered=True)
        packing = inputs.get("packing")
        segments = _segments(
            owners[order], adapters, None if packing is None else rows.lengths[order]
        )
        if packing is not None:
            has_means = any(adapters[segment.adapter].pooling == "mean" for segment in segments)
            inputs["packing"] = packing = replace(packing, every_token=has_means)
        self._running = () if self._replaced else segments
        try:
            with autocast_of(self._compute):
                hidden = self._encoder(**inputs)[0]
        finally:
            self._running = ()
        pooled = {"mean": hidden, "first": hidden}
        if packing is not None:
            pooled["first"] = first_tokens(hidden, packing)
            pooled["mean"] = mean_tokens(hidden, packing) if packing.every_token else hidden
        mask = inputs.get("attention_mask")
        outputs = []
        for segment in segments:
            adapter = adapters[segment.adapter]
            with ExitStack() as stack:
                captured: Sequence[torch.Tensor] = ()
                if features:
                    captured = stack.enter_context(captured_inputs(adapter.output_layer))
                logits = adapter.head(
                    inputs_embeds=pooled[adapter.pooling][segment.texts].float(),
                    attention_mask=None if mask is None else mask[segment.texts],
                ).logits
            seen = captured[0] if features else None
            outputs.append(_Output(segment.adapter, order[segment.texts], logits, seen))
        return outputs

    def _fold(self, adapter: SharedAdapter | None) -> None:
        """Let an adapter run in place of the modules that it changes; None for no adapter."""
        if adapter is None:
            self._folded = None
        elif self._folded is None or self._folded[0] is not adapter:
            self._folded = None  # Its memory is free before the next one is made.
            forwards = {
                path: _with_update(*self._frozen[path], update)
                for path, update in adapter.updates.items()
            }
            self._folded = adapter, forwards
        self._replaced = {} if self._folded is None else self._folded[1]

    def _updated(self, path: str, run: Any, x: torch.Tensor) -> torch.Tensor:
        """Run a frozen module on all rows, and change the outputs of those with an adapter here."""
        y: torch.Tensor = self._replaced.get(path, run)(x)
        for segment in self._running:
            update: OutputUpdate | None = segment.updates.get(path)
            if update is not None:
                update.apply(segment.part(x), segment.part(y))
        return y


def _with_update(module: nn.Module, run: _Forward, update: OutputUpdate) -> _Forward:
    """Return the forward pass of a frozen module with an adapter's change on all rows."""
    if not isinstance(module, nn.Linear):

        def changed(x: torch.Tensor) -> torch.Tensor:
            y = run(x)
            update.apply(x, y)
            return y

        return changed
    weight, bias = module.weight.float(), None if module.bias is None else module.bias.float()
    if update.scale is not None:
        weight = update.scale[:, None] * weight
        bias = None if bias is None else update.scale * bias
    if update.down is not None and update.up is not None:
        weight = weight + update.up @ update.down
    if update.shift is not None:
        bias = update.shift if bias is None else bias + update.shift
    dtype = module.weight.dtype
    bias = None if bias is None else bias.to(dtype)
    product = product_of(module).with_weight(weight.to(dtype))

    def forward(x: torch.Tensor) -> torch.Tensor:
        return product.affine(x.reshape(-1, x.shape[-1]), bias).view(*x.shape[:-1], -1)

    return forward


def _segments(
    owners: np.ndarray, adapters: Sequence[SharedAdapter], lengths: np.ndarray | None
) -> tuple[_Segment, ...]:
    """Return the segments of rows that are sorted by adapter.

    Args:
        owners: the adapter of each row.
        adapters: all adapters.
        lengths: tokens of each row in a packed row; None for a padded batch.
    """
    cuts = np.flatnonzero(np.diff(owners, prepend=-1, append=-1))
    ends = None if lengths is None else np.concatenate([[0], np.cumsum(lengths)])
    return tuple(
        _Segment(
            number := int(owners[start]),
            adapters[number].updates,
            slice(start, end),
            slice(None) if ends is None else slice(int(ends[start]), int(ends[end])),
        )
        for start, end in pairwise(cuts.tolist())
    )


def _collect(outputs: Sequence[_Output], layer: nn.Linear) -> Predictions:
    """Return the outputs of one adapter in the order of its rows."""
    indices = np.concatenate([np.empty(0, np.int64), *(out.indices for out in outputs)])
    places = np.argsort(indices)

    def in_order(parts: Sequence[torch.Tensor], width: int) -> np.ndarray:
        arrays = [part.float().cpu().numpy() for part in parts]
        return np.concatenate([np.empty((0, width), np.float32), *arrays])[places]

    features = [out.features for out in outputs if out.features is not None]
    return Predictions(
        in_order([out.logits for out in outputs], layer.out_features),
        in_order(features, layer.in_features) if features else None,
    )

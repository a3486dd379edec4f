"""Measure what each rank of each frozen matrix would gain, from training rows.

Every measure is the spectrum of a matrix that is accumulated over rows, so its gains fall from rank
to rank. The model has no adapters, does not change, and drops nothing out. Before anything is
measured that depends on the loss, its output layer gets the weights of a logistic regression on
other rows: gradients through a random output layer say little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch

from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.device import Compute
from pennyweight.engine.features import set_head
from pennyweight.engine.linear import LinearOptions, fit_logistic
from pennyweight.engine.predictor import TorchBackend

__all__ = ["MEASURES", "Measure", "Probe", "fit_output_layer", "loss_of", "measure"]

# Inputs of a matrix from which its explained variance is computed; PEFT's EVA stops after a few
# batches of such a size too.
_INPUTS = 1024
_BATCH_ROWS = 128


@dataclass(frozen=True, slots=True)
class Probe:
    """A base without adapters, and the rows that it is measured on.

    Attributes:
        model: a sequence classifier of transformers on its device, in float32, frozen and in
            evaluation mode.
        batcher: pads rows for it.
        output_layer: the name of the layer that computes the logits.
        matrices: names of the linear layers to measure.
        rows: labelled rows.
        seed: seed of everything that is drawn.
    """

    model: Any
    batcher: Batcher
    output_layer: str
    matrices: tuple[str, ...]
    rows: TokenizedRows
    seed: int

    def batches(self) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
        """Yield the model's inputs with the labels of their rows, until all rows were seen."""
        for indices in self.batcher.pieces(self.rows, np.arange(len(self.rows))):
            inputs, order = self.batcher.inputs(self.rows, indices)
            labels = torch.from_numpy(self.rows.labels[order])
            yield inputs, labels.to(inputs["input_ids"].device)


def fit_output_layer(probe: Probe, rows: TokenizedRows, *, compute: Compute, classes: int) -> None:
    """Give the output layer the weights of a logistic regression on what it reads, in place.

    Args:
        probe: whose model is changed.
        rows: labelled rows to fit on.
        compute: where the model runs.
        classes: number of classes.
    """
    backend = TorchBackend(
        probe.model, probe.batcher, compute, batch_rows=_BATCH_ROWS, output_layer=probe.output_layer
    )
    features = backend.predict(rows, features=True).features
    assert features is not None  # noqa: S101 - requested
    options = LinearOptions(classes, probe.seed)
    linear = fit_logistic(features, rows.labels, options)
    set_head(probe.model, probe.output_layer, linear.weight, linear.bias)


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy, summed over rows; with a sigmoid where rows have several labels.

    Args:
        logits: `[rows, classes]`.
        labels: int64 `[rows]`, or `[rows, classes]` of 0 and 1.
    """
    if labels.ndim == 2:
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels.float(), reduction="sum"
        )
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


class _Accumulator(Protocol):
    """Sums that are kept of one matrix while rows go through the model."""

    def add(self, inputs: torch.Tensor, gradients: torch.Tensor | None) -> None:
        """Add a batch.

        Args:
            inputs: of the linear layer, `[rows, tokens, columns]`.
            gradients: of the summed loss by the layer's outputs, `[rows, tokens, outputs]`; None
                for measures that need none.
        """
        ...

    def gains(self) -> np.ndarray:
        """Return what each rank gains, float64 `[ranks]`, the largest first."""
        ...


class _Gradient:
    """The gradient of the matrix over all rows; rank r gains its r-th singular value.

    The sum of the first r is the largest first-order drop of the loss that an update of rank r and
    of spectral norm 1 can reach (Bernstein & Newhouse 2024, arXiv:2409.20325).
    """

    def __init__(self, draw: torch.Generator, share: float) -> None:
        del draw, share
        self._sum: torch.Tensor | None = None

    def add(self, inputs: torch.Tensor, gradients: torch.Tensor | None) -> None:
        assert gradients is not None  # noqa: S101 - see `Measure.needs_gradients`
        product = _flat(gradients).T @ _flat(inputs)
        self._sum = product if self._sum is None else self._sum.add_(product)

    def gains(self) -> np.ndarray:
        return _singular_values(self._sum)


class _Fisher:
    """The empirical Fisher information of the matrix; rank r gains its r-th eigenvalue.

    The eigenvalues are those of the sum over rows of G G', where G is the gradient of one row, or
    of G' G where that is smaller. Their sum is the trace of the whole information matrix, and the
    first r of them are what an update in r of its directions holds.
    """

    def __init__(self, draw: torch.Generator, share: float) -> None:
        del draw, share
        self._sum: torch.Tensor | None = None

    def add(self, inputs: torch.Tensor, gradients: torch.Tensor | None) -> None:
        assert gradients is not None  # noqa: S101 - see `Measure.needs_gradients`
        small, large = sorted((gradients, inputs), key=lambda each: each.shape[-1])
        # With G = D' X for D and X of one row, G G' = D' (X X') D: tokens by tokens in the middle.
        middle = torch.bmm(torch.bmm(large, large.transpose(1, 2)), small)
        product = _flat(small).T @ _flat(middle)
        self._sum = product if self._sum is None else self._sum.add_(product)

    def gains(self) -> np.ndarray:
        assert self._sum is not None  # noqa: S101 - every matrix sees a batch
        symmetric = (self._sum + self._sum.T) / 2
        values = torch.linalg.eigvalsh(symmetric).flip(0).clamp_min(0.0)
        return values.double().cpu().numpy()


class _Activation:
    """A sample of the inputs of the matrix; rank r gains the share of their variance.

    It is that of the r-th principal component (EVA, Paischer et al. 2024, arXiv:2410.07170).
    """

    def __init__(self, draw: torch.Generator, share: float) -> None:
        self._draw, self._share = draw, share
        self._samples: list[torch.Tensor] = []

    def add(self, inputs: torch.Tensor, gradients: torch.Tensor | None) -> None:
        del gradients
        flat = _flat(inputs)
        keep = len(flat) if inputs.shape[1] == 1 else max(1, round(self._share * len(flat)))
        kept = torch.randperm(len(flat), generator=self._draw)[:keep]
        self._samples.append(flat[kept.to(flat.device)])

    def gains(self) -> np.ndarray:
        samples = torch.cat(self._samples)
        values = _singular_values(samples - samples.mean(dim=0)) ** 2
        return values / (values.sum() or 1.0)


def _flat(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, values.shape[-1])


def _singular_values(matrix: torch.Tensor | None) -> np.ndarray:
    assert matrix is not None  # noqa: S101 - every matrix sees a batch
    return torch.linalg.svdvals(matrix).double().cpu().numpy()


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of what ranks gain.

    Attributes:
        name: the strategy that uses it.
        accumulator: returns an empty accumulator, from a generator and the share of a batch's
            tokens that a sample needs.
        needs_gradients: whether the loss is differentiated.
    """

    name: str
    accumulator: Callable[[torch.Generator, float], _Accumulator]
    needs_gradients: bool


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "gradient": Measure("gradient", _Gradient, needs_gradients=True),
        "activation": Measure("activation", _Activation, needs_gradients=False),
        "fisher": Measure("fisher", _Fisher, needs_gradients=True),
    }
)


def measure(probe: Probe, name: str) -> dict[str, np.ndarray]:
    """Return what each rank gains by one measure, float64 `[ranks]` by the name of the matrix.

    Args:
        probe: the model and the rows.
        name: a key of `MEASURES`.
    """
    row = MEASURES[name]
    draw = torch.Generator().manual_seed(probe.seed)
    share = _INPUTS / max(1, int(probe.rows.lengths.sum()))
    sums = {matrix: row.accumulator(draw, share) for matrix in probe.matrices}
    with _observing(probe, sums, with_gradients=row.needs_gradients) as masks:
        for inputs, labels in probe.batches():
            masks[:] = [inputs["attention_mask"].bool()]
            with torch.set_grad_enabled(row.needs_gradients):
                logits = probe.model(**inputs).logits
                if row.needs_gradients:
                    loss: Any = loss_of(logits.float(), labels)
                    loss.backward()
    return {matrix: each.gains() for matrix, each in sums.items()}


@contextmanager
def _observing(
    probe: Probe, sums: Mapping[str, _Accumulator], *, with_gradients: bool
) -> Iterator[list[torch.Tensor]]:
    """Feed the accumulators with every batch that goes through the model.

    Yields a list whose only element must be the batch's attention mask, `[rows, tokens]`.
    """
    masks: list[torch.Tensor] = []

    def observe(matrix: str, _: Any, arguments: tuple[torch.Tensor, ...], outputs: Any) -> None:
        inputs = _with_tokens(arguments[0].detach())
        if with_gradients:
            outputs.register_hook(lambda gradient: add(matrix, inputs, _with_tokens(gradient)))
        elif inputs.shape[:2] == masks[0].shape:
            # Padding is no input; in gradients it is 0.
            sums[matrix].add(inputs[masks[0]][:, None], None)
        else:
            sums[matrix].add(inputs, None)

    def add(matrix: str, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
        sums[matrix].add(inputs, gradients.detach())

    modules = dict(probe.model.named_modules())
    hooks = [modules[name].register_forward_hook(partial(observe, name)) for name in probe.matrices]
    if with_gradients:
        # Weights are frozen, so the graph has to begin at the embeddings.
        embeddings = probe.model.get_input_embeddings()
        hooks.append(embeddings.register_forward_hook(lambda *call: call[2].requires_grad_(True)))
    try:
        yield masks
    finally:
        for hook in hooks:
            hook.remove()


def _with_tokens(values: torch.Tensor) -> torch.Tensor:
    """Return `[rows, columns]` as rows of one token each."""
    return values[:, None] if values.ndim == 2 else values

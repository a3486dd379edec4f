"""Frozen matrix products in 8-bit integers, which many processors compute much faster than floats.

Every row of an input, every row of a frozen weight, and for gradients every column of it, has a
scale of its own; the integers are multiplied and summed exactly, and the sums scaled back. Both the
output of a frozen layer and the gradient of its input are computed in this way, as in SwitchBack
(Wortsman et al. 2023, arXiv:2304.13013). What is trained stays in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from pennyweight.engine.kernels.frozen import FloatProduct, set_product

__all__ = ["InputStatistics", "Int8Product", "use_int8_products"]

_LARGEST = 127
# Without VNNI, oneDNN adds two products in 16 bits: weights have to leave room for the sum.
_LARGEST_WITHOUT_VNNI = 64
_TINY = 1e-30
# Columns that vary less than this, beside the mean, may vary more in other texts.
_LEAST_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class InputStatistics:
    """Mean and standard deviation of each column of a layer's inputs, float32 `[in]`."""

    mean: torch.Tensor
    spread: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor) -> InputStatistics:
        """Return the statistics of inputs, `[rows, in]`."""
        spread, mean = torch.std_mean(x.float(), 0, correction=0)
        return cls(mean, spread)


@dataclass(frozen=True, slots=True)
class _Quantized:
    """A matrix as `values * scale`: int8 `[rows, columns]` and float32 `[rows, 1]`."""

    values: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor, *, largest: int) -> _Quantized:
        """Quantize a matrix by the largest absolute value of each row, to the nearest integers."""
        scale = x.abs().amax(1, keepdim=True).float().div_(largest).clamp_min_(_TINY)
        return cls(torch.div(x, scale).round_().to(torch.int8), scale)

    def times(self, other: _Quantized) -> torch.Tensor:
        """Return the product with a transposed matrix without this one's scale, in float32."""
        return torch._int_mm(self.values, other.values.t()) * other.scale.t()


class Int8Product:
    """The products of a frozen layer with a quantized weight; see `frozen.Product`.

    A few columns of an encoder's activations are far larger than the others, always at about the
    same values. So inputs are centred, and their columns are scaled before they are quantized, with
    the inverse in the weight, as in SmoothQuant (Xiao et al. 2023, arXiv:2211.10438).

    Args:
        weight: `[out, in]`, on the CPU.
        inputs: what inputs of this layer are like.
    """

    def __init__(self, weight: torch.Tensor, inputs: InputStatistics) -> None:
        largest = _LARGEST if _sums_are_exact() else _LARGEST_WITHOUT_VNNI
        exact = weight.detach().float()
        spread = inputs.spread.clamp_min(_LEAST_SPREAD * float(inputs.spread.mean()) + _TINY)
        balance = (spread / exact.norm(dim=0).clamp_min(_TINY)).sqrt()
        self.dtype = weight.dtype
        self._inputs = inputs
        self._factor, self._offset = 1 / balance, -inputs.mean / balance
        self._of_mean = exact @ inputs.mean
        self._rows = _Quantized.of(exact * balance, largest=largest)
        self._columns = _Quantized.of(exact.t().contiguous(), largest=largest)

    def affine(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return x W^T + b, `[rows, in]` to `[rows, out]`, in the dtype of `x`."""
        quantized = _Quantized.of(torch.addcmul(self._offset, x, self._factor), largest=_LARGEST)
        y = quantized.times(self._rows)
        constant = self._of_mean if bias is None else self._of_mean + bias
        return torch.addcmul(constant, y, quantized.scale, out=y).to(x.dtype)

    def input_gradient(
        self, dy: torch.Tensor, *, add_to: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return dy W, `[rows, out]` to `[rows, in]`, or add it to `add_to` in place."""
        quantized = _Quantized.of(dy, largest=_LARGEST)
        dx = quantized.times(self._columns).mul_(quantized.scale)
        return dx.to(dy.dtype) if add_to is None else add_to.add_(dx)

    def with_weight(self, weight: torch.Tensor) -> Int8Product:
        """Return the products of another weight for the same inputs."""
        return Int8Product(weight, self._inputs)


class _Recorder(FloatProduct):
    """A layer's ordinary products, which remember what their inputs are like."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__(weight)
        self.inputs: InputStatistics | None = None

    def affine(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return x W^T + b."""
        self.inputs = InputStatistics.of(x)
        return super().affine(x, bias)


def use_int8_products(model: nn.Module, run: Callable[[], object]) -> int:
    """Compute the products of an encoder's frozen linear layers in int8; return their number.

    Layers whose bias is trained keep their products.

    Args:
        model: transformers' sequence classifier on the CPU, otherwise prepared. Its head is left
            as it is.
        run: runs the model without gradients on ordinary texts, which show what the inputs of each
            layer are like.
    """
    encoder = model.base_model
    assert isinstance(encoder, nn.Module)  # noqa: S101 - for type checkers
    layers = [
        module
        for module in encoder.modules()
        if type(module) is nn.Linear and not module.weight.requires_grad
    ]
    recorders = [_Recorder(layer.weight) for layer in layers]
    for layer, recorder in zip(layers, recorders, strict=True):
        set_product(layer, recorder)
    run()
    for layer, recorder in zip(layers, recorders, strict=True):
        inputs = recorder.inputs
        set_product(layer, None if inputs is None else Int8Product(layer.weight, inputs))
    return sum(recorder.inputs is not None for recorder in recorders)


@cache
def _sums_are_exact() -> bool:
    """Return whether integer products are exact here for all int8 weights."""
    size = 256
    x = torch.full((size, size), _LARGEST, dtype=torch.int8)
    return bool((torch._int_mm(x, x.t()) == size * _LARGEST**2).all())

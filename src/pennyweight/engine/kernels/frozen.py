"""The frozen encoder: its dtype, and its matrix products.

Weights can be held in half precision; trained parameters and the head stay in float32.
"""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "FloatProduct",
    "Product",
    "affine",
    "cast_encoder",
    "input_gradient",
    "product_of",
    "set_product",
    "use_fused_bias",
]

_LEAVES = (nn.Linear, nn.Embedding, nn.LayerNorm)
# See `_row_blocks`: numbers of rows and columns for which a product is faster in blocks.
_MAX_BLOCK_ROWS = 640
_MAX_SPLIT_ROWS = 1535
_MIN_SPLIT_COLUMNS, _MAX_SPLIT_COLUMNS = 513, 1023
_MEASURED_THREADS = 2


def cast_encoder(model: Any, dtype: torch.dtype) -> None:
    """Cast the frozen weights of a sequence classifier's encoder.

    The head, the pooler before it and all trained parameters stay in float32; their layers cast
    the encoder's output to float32.

    Args:
        model: a transformers model, with PEFT's layers or without.
        dtype: dtype of the encoder's frozen weights, and therefore of its activations.
    """
    encoder = model.base_model
    pooler = getattr(encoder, "pooler", None)
    excluded = set(pooler.modules()) if isinstance(pooler, nn.Module) else set()
    inside = {module for module in encoder.modules() if isinstance(module, _LEAVES)} - excluded
    for module in model.modules():
        if module in inside and not _is_low_rank_factor(module):
            _cast_frozen(module, dtype)
        elif isinstance(module, nn.Linear | nn.LayerNorm) and module not in inside:
            module.register_forward_pre_hook(_in_own_dtype)


def _is_low_rank_factor(module: nn.Module) -> bool:
    return any(p.requires_grad and p.ndim > 1 for p in module.parameters(recurse=False))


def _cast_frozen(module: nn.Module, dtype: torch.dtype) -> None:
    parameters = list(module.parameters(recurse=False))
    for parameter in parameters:
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    if any(p.requires_grad for p in parameters):
        forwards: dict[type, Any] = {nn.Linear: _linear, nn.LayerNorm: _layer_norm}
        if type(module) in forwards:
            module.forward = MethodType(forwards[type(module)], module)


def _linear(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """Apply a linear layer with a frozen weight and a trained bias."""
    return functional.linear(x, module.weight, module.bias.to(module.weight.dtype))


def _layer_norm(module: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    # Some layers, such as ModernBERT's, have no bias.
    bias = None if module.bias is None else module.bias.to(x.dtype)
    return functional.layer_norm(
        x, module.normalized_shape, module.weight.to(x.dtype), bias, module.eps
    )


def _in_own_dtype(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cast the input to the dtype of the weights (a forward pre-hook)."""
    weight: Any = module.weight
    return tuple(a.to(weight.dtype) if torch.is_tensor(a) else a for a in args)


class Product(Protocol):
    """The products of a linear layer's frozen weight `[out, in]`.

    Attributes:
        dtype: of the weight, and of the inputs and outputs.
    """

    dtype: torch.dtype

    def affine(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return x W^T + b without a gradient, `[rows, in]` to `[rows, out]`."""
        ...

    def input_gradient(
        self, dy: torch.Tensor, *, add_to: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return dy W, `[rows, out]` to `[rows, in]`, or add it to `add_to` in place."""
        ...

    def with_weight(self, weight: torch.Tensor) -> Product:
        """Return the products of another weight, computed in the same way."""
        ...


class FloatProduct:
    """Products in the weight's dtype; see `Product`, `affine` and `input_gradient`."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.dtype = weight.dtype
        self._weight = weight

    def affine(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return x W^T + b."""
        return affine(x, self._weight, bias)

    def input_gradient(
        self, dy: torch.Tensor, *, add_to: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return dy W."""
        return input_gradient(dy, self._weight, add_to=add_to)

    def with_weight(self, weight: torch.Tensor) -> FloatProduct:
        """Return the products of another weight."""
        return FloatProduct(weight)


def product_of(layer: nn.Linear) -> Product:
    """Return what computes a layer's frozen products: what `set_product` set, or floats."""
    product: Product | None = getattr(layer, "frozen_product", None)
    return FloatProduct(layer.weight) if product is None else product


def set_product(layer: nn.Linear, product: Product | None) -> None:
    """Let a frozen layer, with an adapter or without, compute its products in another way.

    The layer has to be one that `use_fused_bias` or `lora.use_fused_lora` has changed. None stands
    for products in the weight's dtype.
    """
    module: Any = layer
    module.frozen_product = product


def affine(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return x W^T + b without a gradient, `[rows, in]` to `[rows, out]`.

    In bfloat16 on a CPU, oneDNN adds the bias inside the product; torch fills the output with the
    bias first, which takes one more pass over it.
    """
    if blocks := _row_blocks(x, columns=weight.shape[0]):
        y = x.new_empty((len(x), len(weight)))
        for rows in blocks:
            if bias is None:
                torch.mm(x[rows], weight.t(), out=y[rows])
            else:
                torch.addmm(bias, x[rows], weight.t(), out=y[rows])
        return y
    if bias is not None and _has_fused_bias(x):
        fused: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return fused
    return functional.linear(x, weight, bias)


def input_gradient(
    dy: torch.Tensor, weight: torch.Tensor, *, add_to: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the gradient dy W of a linear layer's input, `[rows, out]` to `[rows, in]`.

    Args:
        dy: gradient of the output.
        weight: `[out, in]`.
        add_to: `[rows, in]`, a sum to which the gradient is added in place.
    """
    blocks = _row_blocks(dy, columns=weight.shape[1]) or [slice(None)]
    dx = dy.new_empty((len(dy), weight.shape[1])) if add_to is None else add_to
    for rows in blocks:
        if add_to is None:
            torch.mm(dy[rows], weight, out=dx[rows])
        else:
            dx[rows].addmm_(dy[rows], weight)
    return dx


def _row_blocks(x: torch.Tensor, *, columns: int) -> list[slice]:
    """Return the blocks of rows in which a product is faster; none where it is not.

    Measured on one processor with AMX and two cores: oneDNN computes a bfloat16 product of 704 to
    1,472 rows with 768 columns on one of the cores, and shares smaller and larger ones between
    both. On a processor with AVX512-BF16 but no AMX, blocks gain nothing and cost up to 4 %. So
    they are used only on what was measured: AMX, and two threads.
    """
    is_slow = (
        _MAX_BLOCK_ROWS < len(x) <= _MAX_SPLIT_ROWS
        and _MIN_SPLIT_COLUMNS <= columns <= _MAX_SPLIT_COLUMNS
        and x.device.type == "cpu"
        and x.dtype == torch.bfloat16
    )
    if not (is_slow and _is_measured_processor()):
        return []
    size = -(-len(x) // (-(-len(x) // _MAX_BLOCK_ROWS)))
    return [slice(start, start + size) for start in range(0, len(x), size)]


def _is_measured_processor() -> bool:
    return _has_amx() and torch.get_num_threads() == _MEASURED_THREADS


@cache
def _has_amx() -> bool:
    is_supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return is_supported is not None and bool(is_supported())


def _has_fused_bias(x: torch.Tensor) -> bool:
    # torch.compile uses oneDNN's linear layer by itself.
    return not torch.compiler.is_compiling() and (
        x.device.type == "cpu" and x.dtype == torch.bfloat16 and _has_bf16_products()
    )


@cache
def _has_bf16_products() -> bool:
    """Return whether oneDNN has bfloat16 products here; without AVX-512 it has none."""
    return (
        torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def use_fused_bias(model: nn.Module) -> None:
    """Let every frozen `nn.Linear` of a model add its bias as `affine` does."""
    for module in model.modules():
        if type(module) is nn.Linear and not any(p.requires_grad for p in module.parameters()):
            layer: Any = module
            layer.forward = MethodType(_frozen_linear, module)


def _frozen_linear(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    is_float = getattr(module, "frozen_product", None) is None
    if x.dtype != module.weight.dtype or (is_float and not _has_fused_bias(x)):
        return functional.linear(x, module.weight, module.bias)
    rows, product, bias = x.reshape(-1, x.shape[-1]), product_of(module), module.bias
    if torch.is_grad_enabled():
        y: torch.Tensor = _Affine.apply(rows, product, bias)  # type: ignore[no-untyped-call]
    else:  # An autograd function would only cost time.
        y = product.affine(rows, bias)
    return y.view(*x.shape[:-1], -1)


class _Affine(torch.autograd.Function):
    """A frozen layer's product, and the gradient of x."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, product: Product, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.product = product
        return product.affine(x, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return ctx.product.input_gradient(gradients[0]), None, None

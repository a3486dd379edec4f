"""The frozen encoder in half precision; whatever is trained, and the head, in float32."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["affine", "hold_encoder_in", "through", "use_fused_bias"]

_LEAVES = (nn.Linear, nn.Embedding, nn.LayerNorm)


def hold_encoder_in(model: Any, dtype: torch.dtype) -> None:
    """Cast the frozen weights of a sequence classifier's encoder.

    The head, the pooler in front of it and all trained parameters stay float32; their layers take
    what the encoder hands them in float32.

    Args:
        model: transformers' model, with or without PEFT's layers in it.
        dtype: of the encoder's frozen weights, and so of its activations.
    """
    encoder = model.base_model
    pooler = getattr(encoder, "pooler", None)
    kept = set(pooler.modules()) if isinstance(pooler, nn.Module) else set()
    inside = {module for module in encoder.modules() if isinstance(module, _LEAVES)} - kept
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
    """A frozen weight with a trained bias."""
    return functional.linear(x, module.weight, module.bias.to(module.weight.dtype))


def _layer_norm(module: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(
        x, module.normalized_shape, module.weight.to(x.dtype), module.bias.to(x.dtype), module.eps
    )


def _in_own_dtype(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cast the input to the weights' dtype (a pre-hook)."""
    weight: Any = module.weight
    return tuple(a.to(weight.dtype) if torch.is_tensor(a) else a for a in args)


def affine(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The product x W^T + b without a gradient, `[rows, in]` to `[rows, out]`.

    In bfloat16 on CPU, oneDNN adds the bias while it has the product at hand; torch's own way is to
    fill the output with the bias first, which takes a pass over it.
    """
    if parts := _parts_for_all_cores(x, columns=weight.shape[0]):
        y = x.new_empty((len(x), len(weight)))
        for rows in parts:
            if bias is None:
                torch.mm(x[rows], weight.t(), out=y[rows])
            else:
                torch.addmm(bias, x[rows], weight.t(), out=y[rows])
        return y
    if bias is not None and _has_fused_bias(x):
        fused: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return fused
    return functional.linear(x, weight, bias)


def through(
    dy: torch.Tensor, weight: torch.Tensor, onto: torch.Tensor | None = None
) -> torch.Tensor:
    """The gradient dy W of a linear layer's input, `[rows, out]` to `[rows, in]`.

    Args:
        dy: gradient of the output.
        weight: `[out, in]`.
        onto: what it is added to, in place; left out, nothing.
    """
    parts = _parts_for_all_cores(dy, columns=weight.shape[1]) or [slice(None)]
    dx = dy.new_empty((len(dy), weight.shape[1])) if onto is None else onto
    for rows in parts:
        if onto is None:
            torch.mm(dy[rows], weight, out=dx[rows])
        else:
            dx[rows].addmm_(dy[rows], weight)
    return dx


def _parts_for_all_cores(x: torch.Tensor, *, columns: int) -> list[slice]:
    """Parts of the rows to multiply one after another; none where all together are as fast.

    Of two cores oneDNN leaves a bfloat16 product of 704 to 1,472 rows with 768 columns to one, and
    shares fewer rows and more rows out between both.
    """
    is_left = 640 < len(x) < 1536 and 512 < columns < 1024
    if not (is_left and x.device.type == "cpu" and x.dtype == torch.bfloat16):
        return []
    size = -(-len(x) // (-(-len(x) // 640)))
    return [slice(start, start + size) for start in range(0, len(x), size)]


def _has_fused_bias(x: torch.Tensor) -> bool:
    # torch.compile finds oneDNN's layer itself.
    return not torch.compiler.is_compiling() and (
        x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def use_fused_bias(model: nn.Module) -> None:
    """Let every frozen `nn.Linear` of a model add its bias as `affine` does."""
    for module in model.modules():
        if type(module) is nn.Linear and not any(p.requires_grad for p in module.parameters()):
            layer: Any = module
            layer.forward = MethodType(_frozen_linear, module)


def _frozen_linear(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    if not _has_fused_bias(x) or x.dtype != module.weight.dtype:
        return functional.linear(x, module.weight, module.bias)
    run: Any = _Affine.apply
    y: torch.Tensor = run(x.reshape(-1, x.shape[-1]), module.weight, module.bias)
    return y.view(*x.shape[:-1], -1)


class _Affine(torch.autograd.Function):
    """`affine` of a frozen weight, with the gradient of x."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return affine(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return through(gradients[0], weight), None, None

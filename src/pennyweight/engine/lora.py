"""LoRA's linear layer as one autograd function, in the dtype of the frozen weight.

PEFT's own forward casts the input to float32, keeps a dropout mask, and leaves autograd to add
three gradients per layer. Here, for plain LoRA on `nn.Linear`, the products run in the base's
dtype, the low-rank product is added in place, and nothing but the input and x A^T is kept. The
modules, their parameters (float32) and what is saved stay PEFT's.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional

from pennyweight.engine.masks import PooledDropout

__all__ = ["use_fused_lora"]


def use_fused_lora(model: nn.Module) -> int:
    """Give every plain LoRA layer of a PEFT model the fused forward; how many there were.

    Left to PEFT's forward: variants (DoRA and others), biases in B, quantized or other layers.
    """
    layers = [m for m in model.modules() if type(m) is LoraLinear and _is_plain(m)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def _is_plain(layer: Any) -> bool:
    return (
        type(layer.base_layer) is nn.Linear
        and not layer.lora_variant
        and not layer.fan_in_fan_out
        and not any(layer.lora_bias.values())
    )


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(active) != 1 or args or kwargs:
        return LoraLinear.forward(layer, x, *args, **kwargs)
    (name,) = active
    base = layer.base_layer
    dropout = layer.lora_dropout[name]
    mask = None
    if layer.training and getattr(dropout, "p", 0.0) > 0.0:
        mask = _mask(dropout, x)
    fused: Any = _FusedLora.apply
    with torch.autocast(x.device.type, enabled=False):
        return fused(
            x.to(base.weight.dtype),
            base.weight,
            base.bias,
            layer.lora_A[name].weight,
            layer.lora_B[name].weight,
            layer.scaling[name],
            mask,
        )


def _mask(dropout: nn.Dropout, x: torch.Tensor) -> torch.Tensor:
    if isinstance(dropout, PooledDropout):
        return dropout.pool.mask(tuple(x.shape), probability=dropout.p, dtype=x.dtype)
    return functional.dropout(torch.ones_like(x), dropout.p)


class _FusedLora(torch.autograd.Function):
    """y = x W^T + b + scaling (mask x) A^T B^T (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    `x` `[..., in]`, `weight` `[out, in]` (frozen), `a` `[rank, in]`, `b_up` `[out, rank]`; a and
    b_up are float32 and cast to the weight's dtype; their gradients are float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b_up: torch.Tensor,
        scaling: float,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        flat_mask = None if mask is None else mask.reshape(flat.shape)
        down = a.to(weight.dtype)
        # The scaling goes into the smallest factor.
        up = (b_up * scaling).to(weight.dtype)
        y = functional.linear(flat, weight, None if bias is None else bias.to(weight.dtype))
        dropped = flat if flat_mask is None else flat * flat_mask
        inner = functional.linear(dropped, down)
        y.addmm_(inner, up.t())
        ctx.save_for_backward(flat, weight, down, up, inner, flat_mask)
        ctx.scaling = scaling
        ctx.shape = x.shape
        ctx.grad_dtypes = (a.dtype, b_up.dtype, None if bias is None else bias.dtype)
        return y.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, weight, down, up, inner, mask = ctx.saved_tensors
        a_dtype, b_dtype, bias_dtype = ctx.grad_dtypes
        needs_x, _, needs_bias, needs_a, needs_b = ctx.needs_input_grad[:5]
        dy = gradients[0].reshape(-1, weight.shape[0])
        dinner = dy @ up
        db = (dy.t() @ inner).to(b_dtype).mul_(ctx.scaling) if needs_b else None
        da = None
        if needs_a:
            dropped = flat if mask is None else flat * mask
            da = (dinner.t() @ dropped).to(a_dtype)
        dx = None
        if needs_x:
            dx = dy @ weight
            if mask is None:
                dx.addmm_(dinner, down)
            else:
                dx.addcmul_(dinner @ down, mask)
            dx = dx.view(ctx.shape)
        dbias = dy.sum(0, dtype=torch.float32).to(bias_dtype) if needs_bias else None
        return dx, None, dbias, da, db, None, None

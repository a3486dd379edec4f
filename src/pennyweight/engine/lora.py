"""LoRA's linear layer as one autograd function, in the dtype of the frozen weight.

PEFT's own forward casts the input to float32, keeps a dropout mask, and leaves autograd to add
three gradients per layer. Here, for plain LoRA on `nn.Linear`, the products run in the base's
dtype, the low-rank product is added in place, and nothing but the dropped input and its product
with A^T is kept. The modules, their parameters (float32) and what is saved stay PEFT's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional

from pennyweight.engine.frozen import affine
from pennyweight.engine.masks import PooledDropout

__all__ = ["is_plain_lora", "lora_linear", "use_fused_lora"]


def use_fused_lora(model: nn.Module) -> int:
    """Give every plain LoRA layer of a PEFT model the fused forward; how many there were.

    Left to PEFT's forward: variants (DoRA and others), biases in B, quantized or other layers.
    """
    layers = [m for m in model.modules() if is_plain_lora(m)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def is_plain_lora(module: Any) -> bool:
    """Whether a module is PEFT's LoRA on `nn.Linear` in its first form."""
    return (
        type(module) is LoraLinear
        and type(module.base_layer) is nn.Linear
        and not module.lora_variant
        and not module.fan_in_fan_out
        and not any(module.lora_bias.values())
    )


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(active) != 1 or args or kwargs:
        return LoraLinear.forward(layer, x, *args, **kwargs)
    return lora_linear(layer.base_layer, x, [(slice(None), layer)])


def lora_linear(
    base: nn.Linear, x: torch.Tensor, parts: Sequence[tuple[slice, Any]]
) -> torch.Tensor:
    """A frozen linear layer with plain LoRA layers, each on its part of the rows.

    Args:
        base: the frozen layer.
        x: `[..., in]`; its leading dimensions together are the rows.
        parts: slices of the rows that do not overlap, and the LoRA layer of each, with one active
            adapter. Rows of no slice get the frozen layer's output alone.

    Returns:
        `[..., out]` in the weight's dtype.
    """
    flat = x.reshape(-1, x.shape[-1]).to(base.weight.dtype)
    factors: list[torch.Tensor] = []
    described: list[_Part] = []
    for rows, layer in parts:
        (name,) = (n for n in layer.active_adapters if n in layer.lora_A)
        mask = None
        dropout = layer.lora_dropout[name]
        if layer.training and getattr(dropout, "p", 0.0) > 0.0:
            mask = _mask(dropout, flat[rows])
        described.append(_Part(rows, layer.scaling[name], mask))
        factors += [layer.lora_A[name].weight, layer.lora_B[name].weight]
    fused: Any = _FusedLora.apply
    with torch.autocast(x.device.type, enabled=False):
        y: torch.Tensor = fused(flat, base.weight, base.bias, tuple(described), *factors)
    return y.view(*x.shape[:-1], base.weight.shape[0])


@dataclass(frozen=True, slots=True)
class _Part:
    rows: slice
    scaling: float
    mask: torch.Tensor | None


def _mask(dropout: nn.Dropout, x: torch.Tensor) -> torch.Tensor:
    if isinstance(dropout, PooledDropout):
        return dropout.pool.mask(tuple(x.shape), probability=dropout.p, dtype=x.dtype)
    return functional.dropout(torch.ones_like(x), dropout.p)


class _FusedLora(torch.autograd.Function):
    """y = x W^T + b + scaling (mask x) A^T B^T (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    `x` `[rows, in]`, `weight` `[out, in]` (frozen); for each part of the rows A `[rank, in]` and
    B `[out, rank]`, which are float32 and cast to the weight's dtype; their gradients are float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        parts: tuple[_Part, ...],
        *factors: torch.Tensor,
    ) -> torch.Tensor:
        y = affine(x, weight, None if bias is None else bias.to(weight.dtype))
        kept: list[torch.Tensor | None] = []
        for at, part in enumerate(parts):
            down = factors[2 * at].to(weight.dtype)
            # The scaling goes into the smallest factor.
            up = (factors[2 * at + 1] * part.scaling).to(weight.dtype)
            dropped = _dropped(x, part)
            inner = functional.linear(dropped, down)
            y[part.rows].addmm_(inner, up.t())
            # A frozen A (LoRA-FA) needs its input no more.
            needs_a = ctx.needs_input_grad[4 + 2 * at]
            kept += [dropped if needs_a else None, down, up, inner]
        ctx.save_for_backward(weight, *kept)
        ctx.parts = parts
        ctx.factor_dtypes = [factor.dtype for factor in factors]
        ctx.bias_dtype = None if bias is None else bias.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        needs_x, _, needs_bias, _, *needs_factors = ctx.needs_input_grad
        dy = gradients[0]
        dx = dy @ weight if needs_x else None
        found: list[torch.Tensor | None] = []
        for at, part in enumerate(ctx.parts):
            dropped, down, up, inner = kept[4 * at : 4 * at + 4]
            mine = dy[part.rows]
            dinner = mine @ up
            da = db = None
            if needs_factors[2 * at]:
                da = (dinner.t() @ dropped).to(ctx.factor_dtypes[2 * at])
            if needs_factors[2 * at + 1]:
                db = (mine.t() @ inner).to(ctx.factor_dtypes[2 * at + 1]).mul_(part.scaling)
            found += [da, db]
            if dx is None:
                continue
            if part.mask is None:
                dx[part.rows].addmm_(dinner, down)
            else:
                dx[part.rows].addcmul_(dinner @ down, part.mask)
        dbias = dy.sum(0, dtype=torch.float32).to(ctx.bias_dtype) if needs_bias else None
        return dx, None, dbias, None, *found


def _dropped(x: torch.Tensor, part: _Part) -> torch.Tensor:
    rows = x[part.rows]
    return rows if part.mask is None else rows * part.mask

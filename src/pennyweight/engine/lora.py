"""LoRA's linear layer as one autograd function, in the dtype of the frozen weight.

PEFT's own forward casts the input to float32, keeps a dropout mask, and leaves autograd to add
three gradients per layer. Here, for plain LoRA on `nn.Linear`, the products run in the base's
dtype, the low-rank product is added in place, and nothing but the dropped input and its product
with A^T is kept. The modules, their parameters (float32) and what is saved stay PEFT's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional

from pennyweight.engine.frozen import affine, through
from pennyweight.engine.masks import PooledDropout

__all__ = ["is_plain_lora", "lora_linear", "share_inputs", "use_fused_lora"]


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
    described = _described(layer)
    if described is None or args or kwargs:
        return LoraLinear.forward(layer, x, *args, **kwargs)
    (y,) = _run(x, [described])
    return y


def share_inputs(model: nn.Module) -> int:
    """Let queries, keys and values be computed together; how many trios of layers there were.

    The layers then hand one gradient on to their common input, where autograd would add three.
    """
    every = [_trio(module) for module in model.modules()]
    trios = [trio for trio in every if all(_can_share(layer) for layer in trio)]
    for trio in trios:
        _Shared(trio)
    return len(trios)


def _trio(module: nn.Module) -> list[Any]:
    # Its own children: PEFT's wrappers hand on their inner model's attributes.
    children = dict(module.named_children())
    return [children.get(name) for name in ("query", "key", "value")]


def _can_share(layer: Any) -> bool:
    if type(layer) is nn.Linear:
        return not any(p.requires_grad for p in layer.parameters())
    return is_plain_lora(layer)


class _Shared:
    """Layers that are called one after another with the same input, in training."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._x: torch.Tensor | None = None
        self._waiting: dict[Any, torch.Tensor] = {}
        for layer in layers:
            layer.forward = partial(self._forward, layer, layer.forward)
        self._layers = layers

    def _forward(
        self,
        layer: Any,
        alone: Callable[..., torch.Tensor],
        x: torch.Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        if args or kwargs or not torch.is_grad_enabled():
            return alone(x, *args, **kwargs)
        if layer is self._layers[0]:
            described = [_described(other) for other in self._layers]
            if any(d is None for d in described):
                return alone(x)
            ys = _run(x, [d for d in described if d is not None])
            self._x, self._waiting = x, dict(zip(self._layers, ys, strict=True))
        elif x is not self._x:
            return alone(x)
        y = self._waiting.pop(layer)
        if not self._waiting:
            self._x = None
        return y


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
    (y,) = _run(x, [(base, parts)])
    return y


# A frozen layer, and the LoRA layers on parts of its rows.
_Described = tuple[nn.Linear, Sequence[tuple[slice, Any]]]


def _described(layer: Any) -> _Described | None:
    """A linear layer as it is now; None if this module does not know how to run it."""
    if type(layer) is nn.Linear:
        return layer, []
    if layer.disable_adapters or layer.merged:
        return None
    active = _active(layer)
    return (layer.base_layer, [(slice(None), layer)]) if len(active) == 1 else None


def _active(layer: Any) -> list[str]:
    return [name for name in layer.active_adapters if name in layer.lora_A]


def _run(x: torch.Tensor, layers: Sequence[_Described]) -> list[torch.Tensor]:
    """Every layer's output for the same `x`."""
    flat = x.reshape(-1, x.shape[-1]).to(layers[0][0].weight.dtype)
    tensors: list[torch.Tensor | None] = []
    parts: list[tuple[_Part, ...]] = []
    for base, loras in layers:
        tensors += [base.weight, base.bias]
        parts.append(tuple(_part(flat, rows, layer) for rows, layer in loras))
        for _, layer in loras:
            (name,) = _active(layer)
            tensors += [layer.lora_A[name].weight, layer.lora_B[name].weight]
    fused: Any = _FusedLora.apply
    with torch.autocast(x.device.type, enabled=False):
        ys: tuple[torch.Tensor, ...] = fused(flat, tuple(parts), *tensors)
    return [y.view(*x.shape[:-1], y.shape[-1]) for y in ys]


def _part(flat: torch.Tensor, rows: slice, layer: Any) -> _Part:
    (name,) = _active(layer)
    mask = None
    dropout = layer.lora_dropout[name]
    if layer.training and getattr(dropout, "p", 0.0) > 0.0:
        mask = _mask(dropout, flat[rows])
    return _Part(rows, layer.scaling[name], mask)


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

    For one layer or several with the same `x` `[rows, in]`. Each has `weight` `[out, in]` (frozen),
    a bias or None and, for each part of the rows, A `[rank, in]` and B `[out, rank]`, which are
    float32 and cast to the weight's dtype; their gradients are float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        layers: tuple[tuple[_Part, ...], ...],
        *tensors: Any,
    ) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.layers = layers
        ctx.dtypes = [None if t is None else t.dtype for t in tensors]
        needed = ctx.needs_input_grad[2:]
        kept: list[torch.Tensor | None] = []
        ys = []
        at = 0
        for parts in layers:
            weight, bias = tensors[at : at + 2]
            y = affine(x, weight, None if bias is None else bias.to(weight.dtype))
            kept.append(weight)
            at += 2
            for part in parts:
                a, b = tensors[at : at + 2]
                down = a.to(weight.dtype)
                # The scaling goes into the smallest factor.
                up = (b * part.scaling).to(weight.dtype)
                dropped = _dropped(x, part)
                inner = functional.linear(dropped, down)
                y[part.rows].addmm_(inner, up.t())
                # A frozen A (LoRA-FA) needs its input no more.
                kept += [dropped if needed[at] else None, down, up, inner]
                at += 2
            ys.append(y)
        ctx.save_for_backward(*kept)
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *dys: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        needs_x, _, *needed = ctx.needs_input_grad
        found: list[torch.Tensor | None] = []
        dx = None
        for parts, dy in zip(ctx.layers, dys, strict=True):
            weight = next(saved)
            at = len(found)
            found += [None] * (2 + 2 * len(parts))
            if needs_x and dy is not None:
                dx = through(dy, weight, onto=dx)
            if needed[at + 1] and dy is not None:
                exact = torch.promote_types(dy.dtype, torch.float32)
                found[at + 1] = dy.sum(0, dtype=exact).to(ctx.dtypes[at + 1])
            for part in parts:
                at += 2
                dropped, down, up, inner = (next(saved) for _ in range(4))
                if dy is None:
                    continue
                mine = dy[part.rows]
                dinner = mine @ up
                if needed[at]:
                    found[at] = (dinner.t() @ dropped).to(ctx.dtypes[at])
                if needed[at + 1]:
                    db = (mine.t() @ inner).to(ctx.dtypes[at + 1])
                    found[at + 1] = db.mul_(part.scaling)
                if dx is None:
                    continue
                if part.mask is None:
                    dx[part.rows].addmm_(dinner, down)
                else:
                    dx[part.rows].addcmul_(dinner @ down, part.mask)
        return dx, None, *found


def _dropped(x: torch.Tensor, part: _Part) -> torch.Tensor:
    rows = x[part.rows]
    return rows if part.mask is None else rows * part.mask

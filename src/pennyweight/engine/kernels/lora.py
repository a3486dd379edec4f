"""LoRA's linear layer as one autograd function, in the dtype of the frozen weight.

PEFT's own forward pass casts the input to float32, keeps a dropout mask, and leaves it to autograd
to add three gradients per layer. Here, for plain LoRA on `nn.Linear`, the products run in the
base's dtype, the low-rank product is added in place, and only the input after dropout and its
product with A^T are kept. The modules, their parameters (float32) and what is saved stay PEFT's.
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

from pennyweight.engine.kernels.frozen import Product, product_of
from pennyweight.engine.kernels.masks import dropout_mask, pool_of

__all__ = ["is_plain_lora", "lora_linear", "share_inputs", "use_fused_lora"]


# What attention modules call them.
_QUERY_KEY_VALUE = (("query", "key", "value"), ("q", "k", "v"))


def use_fused_lora(model: nn.Module) -> int:
    """Give every plain LoRA layer of a PEFT model the fused forward; return their number.

    Variants (DoRA and others), biases in B, and quantized or other layers keep PEFT's forward.
    """
    layers = [m for m in model.modules() if is_plain_lora(m)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def is_plain_lora(module: Any) -> bool:
    """Return whether a module is PEFT's LoRA on `nn.Linear` without any variant."""
    return (
        type(module) is LoraLinear
        and type(module.base_layer) is nn.Linear
        and not module.lora_variant
        and not module.fan_in_fan_out
        and not any(module.lora_bias.values())
    )


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    given = _layer_of(layer)
    if given is None or args or kwargs:
        return LoraLinear.forward(layer, x, *args, **kwargs)
    (y,) = _run(x, [given])
    return y


def share_inputs(model: nn.Module) -> int:
    """Compute queries, keys and values together; return the number of attention modules.

    Their common input then gets one gradient, where autograd would add three.
    """
    candidates = [_query_key_value(module) for module in model.modules()]
    shared = [layers for layers in candidates if all(_can_share(layer) for layer in layers)]
    for layers in shared:
        _SharedInput(layers)
    return len(shared)


def _query_key_value(module: nn.Module) -> list[Any]:
    # Its own children, because PEFT's wrappers forward attributes to their inner model.
    children = dict(module.named_children())
    names = next((n for n in _QUERY_KEY_VALUE if set(n) <= children.keys()), _QUERY_KEY_VALUE[0])
    return [children.get(name) for name in names]


def _can_share(layer: Any) -> bool:
    if type(layer) is nn.Linear:
        return not any(p.requires_grad for p in layer.parameters())
    return is_plain_lora(layer)


class _SharedInput:
    """Layers that are called one after another with the same input, in training.

    The first call computes the outputs of all; the others pick theirs up.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self._x: torch.Tensor | None = None
        self._outputs: dict[Any, torch.Tensor] = {}
        for layer in layers:
            layer.forward = partial(self._forward, layer, layer.forward)
        self._layers = layers

    def _forward(
        self,
        layer: Any,
        unshared: Callable[..., torch.Tensor],
        x: torch.Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        if args or kwargs or not torch.is_grad_enabled():
            return unshared(x, *args, **kwargs)
        if layer is self._layers[0]:
            layers = [_layer_of(other) for other in self._layers]
            if any(given is None for given in layers):
                return unshared(x)
            ys = _run(x, [given for given in layers if given is not None])
            self._x, self._outputs = x, dict(zip(self._layers, ys, strict=True))
        elif x is not self._x:
            return unshared(x)
        y = self._outputs.pop(layer)
        if not self._outputs:
            self._x = None
        return y


def lora_linear(
    base: nn.Linear, x: torch.Tensor, parts: Sequence[tuple[slice, Any]]
) -> torch.Tensor:
    """Apply a frozen linear layer with plain LoRA layers, each to its part of the rows.

    Args:
        base: the frozen layer.
        x: `[..., in]`; the leading dimensions are flattened to rows.
        parts: slices of the rows that do not overlap, each with its LoRA layer, which has one
            active adapter. Rows in no slice get the output of the frozen layer.

    Returns:
        `[..., out]` in the weight's dtype.
    """
    (y,) = _run(x, [(base, parts)])
    return y


# A frozen layer, and the LoRA layers on parts of its rows.
_Layer = tuple[nn.Linear, Sequence[tuple[slice, Any]]]


def _layer_of(layer: Any) -> _Layer | None:
    """Return what a linear layer computes now; None if only PEFT can run it."""
    if type(layer) is nn.Linear:
        return layer, []
    if layer.disable_adapters or layer.merged:
        return None
    active = _active(layer)
    return (layer.base_layer, [(slice(None), layer)]) if len(active) == 1 else None


def _active(layer: Any) -> list[str]:
    return [name for name in layer.active_adapters if name in layer.lora_A]


def _run(x: torch.Tensor, layers: Sequence[_Layer]) -> list[torch.Tensor]:
    """Return every layer's output for the same `x`."""
    flat = x.reshape(-1, x.shape[-1]).to(layers[0][0].weight.dtype)
    tensors: list[torch.Tensor | None] = []
    plans: list[_Plan] = []
    for base, loras in layers:
        tensors.append(base.bias)
        parts = tuple(_part(flat, rows, layer) for rows, layer in loras)
        plans.append(_Plan(product_of(base), parts))
        for _, layer in loras:
            (name,) = _active(layer)
            tensors += [layer.lora_A[name].weight, layer.lora_B[name].weight]
    fused: Any = _FusedLora.apply
    with torch.autocast(x.device.type, enabled=False):
        ys: tuple[torch.Tensor, ...] = fused(flat, tuple(plans), *tensors)
    return [y.view(*x.shape[:-1], y.shape[-1]) for y in ys]


def _part(flat: torch.Tensor, rows: slice, layer: Any) -> _Part:
    (name,) = _active(layer)
    mask = None
    dropout = layer.lora_dropout[name]
    if layer.training and getattr(dropout, "p", 0.0) > 0.0:
        mask = dropout_mask(flat[rows], dropout.p, pool_of(dropout))
    return _Part(rows, layer.scaling[name], mask)


@dataclass(frozen=True, slots=True)
class _Part:
    """An adapter's rows, its scaling, and its dropout mask if there is one."""

    rows: slice
    scaling: float
    mask: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """A frozen layer's product, and the adapters on its rows."""

    product: Product
    parts: tuple[_Part, ...]


class _FusedLora(torch.autograd.Function):
    """y = x W^T + b + scaling (mask x) A^T B^T (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    Computed for one or several layers with the same `x` `[rows, in]`. Each layer has the product of
    a frozen W `[out, in]`, a bias or None and, for each part of the rows, A `[rank, in]` and B
    `[out, rank]`, which are float32 and cast to the weight's dtype; their gradients are float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        layers: tuple[_Plan, ...],
        *tensors: Any,
    ) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.layers = layers
        ctx.dtypes = [None if t is None else t.dtype for t in tensors]
        needed = ctx.needs_input_grad[2:]
        saved: list[torch.Tensor | None] = []
        ys = []
        position = 0
        for plan in layers:
            dtype, bias = plan.product.dtype, tensors[position]
            y = plan.product.affine(x, None if bias is None else bias.to(dtype))
            position += 1
            for part in plan.parts:
                a, b = tensors[position : position + 2]
                down = a.to(dtype)
                # The smallest factor is scaled.
                up = (b * part.scaling).to(dtype)
                dropped = _dropped(x, part)
                inner = functional.linear(dropped, down)
                y[part.rows].addmm_(inner, up.t())
                # A frozen A (LoRA-FA) does not need its input in the backward pass.
                saved += [dropped if needed[position] else None, down, up, inner]
                position += 2
            ys.append(y)
        ctx.save_for_backward(*saved)
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *dys: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        needs_x, _, *needed = ctx.needs_input_grad
        gradients: list[torch.Tensor | None] = []
        dx = None
        for plan, dy in zip(ctx.layers, dys, strict=True):
            position = len(gradients)
            gradients += [None] * (1 + 2 * len(plan.parts))
            if needs_x and dy is not None:
                dx = plan.product.input_gradient(dy, add_to=dx)
            if needed[position] and dy is not None:
                exact = torch.promote_types(dy.dtype, torch.float32)
                gradients[position] = dy.sum(0, dtype=exact).to(ctx.dtypes[position])
            position -= 1
            for part in plan.parts:
                position += 2
                dropped, down, up, inner = (next(saved) for _ in range(4))
                if dy is None:
                    continue
                dy_part = dy[part.rows]
                dinner = dy_part @ up
                if needed[position]:
                    gradients[position] = (dinner.t() @ dropped).to(ctx.dtypes[position])
                if needed[position + 1]:
                    db = (dy_part.t() @ inner).to(ctx.dtypes[position + 1])
                    gradients[position + 1] = db.mul_(part.scaling)
                if dx is None:
                    continue
                if part.mask is None:
                    dx[part.rows].addmm_(dinner, down)
                else:
                    dx[part.rows].addcmul_(dinner @ down, part.mask)
        return dx, None, *gradients


def _dropped(x: torch.Tensor, part: _Part) -> torch.Tensor:
    rows = x[part.rows]
    return rows if part.mask is None else rows * part.mask

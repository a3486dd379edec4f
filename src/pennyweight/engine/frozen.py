"""The frozen encoder in half precision; whatever is trained, and the head, in float32."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["hold_encoder_in"]

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

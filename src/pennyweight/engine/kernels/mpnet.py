"""MPNet on packed rows: its attention adds a bias that depends on how far apart two tokens are.

transformers writes MPNet's attention out instead of calling its attention interface, so the forward
passes of encoder, layers and attention are replaced for packed rows; padded batches take
transformers' own. See Song et al. 2020, MPNet, arXiv:2004.09297.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from pennyweight.engine.batches.tiles import Packing
from pennyweight.engine.kernels.attention import packed_attention

__all__ = ["read_packed_rows"]

Current = Callable[[], Packing | None]


def read_packed_rows(encoder: Any, current: Current) -> None:
    """Make an `MPNetModel` read packed rows, in place.

    Args:
        encoder: the model without its head.
        current: returns the packing of the current call; None for a padded batch.
    """
    stack = encoder.encoder
    _replace_forward(stack, current, _run_layers)
    for layer in stack.layer:
        _replace_forward(layer, current, _run_layer)
        _replace_forward(layer.attention.attn, current, _attend)


def _replace_forward(module: Any, current: Current, forward: Callable[..., Any]) -> None:
    """Let a module run `forward(module, packing, ...)` on packed rows, and its own on others."""
    unpacked = module.forward

    def choose(*args: Any, **kwargs: Any) -> Any:
        packing = current()
        if packing is None:
            return unpacked(*args, **kwargs)
        return forward(module, packing, *args, **kwargs)

    module.forward = choose


def _run_layers(
    stack: Any, packing: Packing, hidden_states: torch.Tensor, **options: Any
) -> BaseModelOutput:
    """Return the output of `MPNetEncoder`; the options, such as the mask, have no use here."""
    bias = _position_bias(stack, packing)
    for layer in stack.layer:
        hidden_states = layer(hidden_states, bias)
    return BaseModelOutput(last_hidden_state=hidden_states)


def _position_bias(stack: Any, packing: Packing) -> torch.Tensor:
    """Return the bias of scores by positions of query and key, `[heads, places, places]`."""
    longest = max(tile.length for tile in packing.tiles)
    table = stack.relative_attention_bias.weight
    bias: torch.Tensor = stack.compute_position_bias(table.new_empty((1, longest)))
    return bias.squeeze(0)


def _run_layer(
    layer: Any, packing: Packing, hidden: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Return the hidden states after an `MPNetLayer`, where transformers returns a tuple."""
    (attended,) = layer.attention(hidden, position_bias=bias)
    out: torch.Tensor = layer.output(layer.intermediate(attended), attended)
    return out


def _attend(
    attention: Any,
    packing: Packing,
    hidden: torch.Tensor,
    attention_mask: None = None,
    position_bias: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor]:
    """Return the output of `MPNetSelfAttention`, `[1, tokens, hidden]`, as a tuple."""
    shape = (*hidden.shape[:-1], attention.num_attention_heads, attention.attention_head_size)
    q, k, v = (
        product(hidden).view(shape).transpose(1, 2)
        for product in (attention.q, attention.k, attention.v)
    )
    dropout: nn.Dropout = attention.dropout
    out, _ = packed_attention(
        attention,
        q,
        k,
        v,
        None,
        packing=packing,
        bias=position_bias,
        dropout=dropout.p if dropout.training else 0.0,
    )
    return (attention.o(out.flatten(2)),)

"""The encoder architectures that run on packed rows, and where their parts are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from pennyweight.engine.batches.tiles import Packing
from pennyweight.engine.kernels.mpnet import read_packed_rows

__all__ = [
    "FAMILIES",
    "Family",
    "can_mix_adapters",
    "can_pack",
    "family_of",
    "frozen_layers",
    "unwrap",
]


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture whose encoder runs on packed rows.

    Attributes:
        first_position: returns the position id of a text's first token, from the config.
        layers: returns the encoder's layers in order.
        narrowing: returns the modules from which on only the tokens that the head reads are
            computed: their tensor arguments `[1, tokens, hidden]` become `[texts, 1, hidden]`.
        last: returns the module whose output is the encoder's last hidden states.
        last_attention: returns the attention right before `narrowing`, of whose output only the
            first token of every text is used then; None where other modules come in between.
        residual_blocks: returns the modules that `masks.fuse_dropout_and_residual` describes.
        adapt: changes an encoder whose attention does not go through transformers' interface so
            that it reads packed rows, given a function that returns the packing of the current
            call, or None; see `engine.kernels.mpnet`.
    """

    first_position: Callable[[Any], int]
    layers: Callable[[Any], nn.ModuleList]
    narrowing: Callable[[Any], tuple[nn.Module, ...]]
    last: Callable[[Any], nn.Module]
    last_attention: Callable[[Any], nn.Module] | None = None
    residual_blocks: Callable[[Any], list[nn.Module]] = lambda encoder: []
    adapt: Callable[[Any, Callable[[], Packing | None]], None] = lambda encoder, current: None


def _zero(config: Any) -> int:
    return 0


def _after_padding_id(config: Any) -> int:
    return int(config.pad_token_id) + 1


def _bert_layers(encoder: Any) -> nn.ModuleList:
    layers: nn.ModuleList = encoder.encoder.layer
    return layers


def _modernbert_layers(encoder: Any) -> nn.ModuleList:
    layers: nn.ModuleList = encoder.layers
    return layers


def _last_attention_output(encoder: Any) -> tuple[nn.Module, ...]:
    # Tokens do not mix after the last attention, so the last feed-forward needs first tokens only.
    return (encoder.encoder.layer[-1].attention.output,)


def _last_feed_forward(encoder: Any) -> tuple[nn.Module, ...]:
    layer = encoder.encoder.layer[-1]
    return layer.intermediate, layer.output


def _last_attention(encoder: Any) -> nn.Module:
    attention: nn.Module = encoder.encoder.layer[-1].attention.self
    return attention


def _bert_residual_blocks(encoder: Any) -> list[nn.Module]:
    return [
        block for layer in encoder.encoder.layer for block in (layer.attention.output, layer.output)
    ]


def _last_layer(encoder: Any) -> nn.Module:
    return _bert_layers(encoder)[-1]


def _mpnet_last_attention(encoder: Any) -> nn.Module:
    attention: nn.Module = encoder.encoder.layer[-1].attention.attn
    return attention


def _mpnet_residual_blocks(encoder: Any) -> list[nn.Module]:
    return [layer.output for layer in encoder.encoder.layer]


def _final_norm(encoder: Any) -> nn.Module:
    norm: nn.Module = encoder.final_norm
    return norm


def _bert_like(first_position: Callable[[Any], int]) -> Family:
    return Family(
        first_position,
        _bert_layers,
        narrowing=_last_attention_output,
        last=_last_layer,
        last_attention=_last_attention,
        residual_blocks=_bert_residual_blocks,
    )


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bert": _bert_like(_zero),
        "electra": _bert_like(_zero),
        "roberta": _bert_like(_after_padding_id),
        "xlm-roberta": _bert_like(_after_padding_id),
        "mpnet": Family(
            _after_padding_id,
            _bert_layers,
            narrowing=_last_feed_forward,
            last=_last_layer,
            last_attention=_mpnet_last_attention,
            residual_blocks=_mpnet_residual_blocks,
            adapt=read_packed_rows,
        ),
        "modernbert": Family(
            _zero,
            _modernbert_layers,
            narrowing=lambda encoder: (_final_norm(encoder),),
            last=_final_norm,
        ),
    }
)


# Encoders whose linear layers also read embeddings of relative positions, which belong to no row.
_LAYERS_READ_POSITIONS = frozenset({"deberta", "deberta-v2", "funnel", "xlnet"})


def can_mix_adapters(config: Any) -> bool:
    """Return whether rows of one batch can have different adapters in a base with this config."""
    return getattr(config, "model_type", None) not in _LAYERS_READ_POSITIONS


def can_pack(config: Any) -> bool:
    """Return whether a base with this config runs on packed rows."""
    return getattr(config, "model_type", None) in FAMILIES and not getattr(
        config, "is_decoder", False
    )


def family_of(model: Any) -> Family:
    """Return the family of a classifier that can be packed, with PEFT's wrapper or without."""
    return FAMILIES[unwrap(model).config.model_type]


def unwrap(model: Any) -> Any:
    """Return the transformers model inside PEFT's wrapper, or the model if it has none."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def frozen_layers(model: Any) -> int:
    """Return the number of lowest layers that come before the first trained parameter.

    It is smaller than the number of layers: in the last layer, texts are reduced to the tokens that
    the head reads.
    """
    encoder = unwrap(model).base_model
    layers = family_of(model).layers(encoder)
    below = [getattr(encoder, "embeddings", None), getattr(encoder, "embeddings_project", None)]
    if any(_is_trained(module) for module in below if module is not None):
        return 0
    trained = [number for number, layer in enumerate(layers) if _is_trained(layer)]
    return min(trained, default=len(layers) - 1)


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())

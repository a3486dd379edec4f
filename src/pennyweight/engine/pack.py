"""Batches without padding: many texts end to end in one row of tokens.

transformers' own encoder runs on the row `[1, tokens]`; the attention function keeps the texts
apart (`engine.attention`), and hooks hand on only what the head reads: the first token of every
text, taken as early as the architecture allows. A batch may also start in the middle of the
encoder, with hidden states in the place of token ids (`engine.prefix`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from pennyweight.engine.attention import read_firsts_of
from pennyweight.engine.batch import Tokens, send
from pennyweight.engine.masks import MaskPool
from pennyweight.engine.tiles import Packing, lay_tiles

__all__ = ["FAMILIES", "Family", "can_pack", "pack", "read_packed"]


# oneDNN compiles a kernel for every new shape, which takes ten times as long as to run it: so
# rows of tokens come in few lengths.
_ROW_QUANTUM = 64


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture whose encoder runs on packed rows.

    Attributes:
        first_position: the position id of a text's first token.
        layers: the encoder's layers in order.
        narrows: finds the module before which only what the head reads is kept; all its
            tensor arguments `[1, tokens, hidden]` become `[texts, 1, hidden]`.
        last_attention: finds the attention just before it, of whose output only the first tokens'
            is read then; None where there is more in between.
        residuals: finds the modules that `masks.drop_and_add_at_once` describes.
    """

    first_position: Callable[[Any], int]
    layers: Callable[[Any], nn.ModuleList]
    narrows: Callable[[Any], nn.Module]
    last_attention: Callable[[Any], nn.Module] | None = None
    residuals: Callable[[Any], list[nn.Module]] = lambda encoder: []


def _from_zero(config: Any) -> int:
    return 0


def _after_padding(config: Any) -> int:
    return int(config.pad_token_id) + 1


def _bert_layers(encoder: Any) -> nn.ModuleList:
    layers: nn.ModuleList = encoder.encoder.layer
    return layers


def _modernbert_layers(encoder: Any) -> nn.ModuleList:
    layers: nn.ModuleList = encoder.layers
    return layers


def _last_attention_output(encoder: Any) -> nn.Module:
    # Behind the last attention nothing mixes tokens: the last feed-forward runs on first tokens.
    return encoder.encoder.layer[-1].attention.output


def _last_attention(encoder: Any) -> nn.Module:
    attention: nn.Module = encoder.encoder.layer[-1].attention.self
    return attention


def _bert_residuals(encoder: Any) -> list[nn.Module]:
    return [
        block for layer in encoder.encoder.layer for block in (layer.attention.output, layer.output)
    ]


def _final_norm(encoder: Any) -> nn.Module:
    return encoder.final_norm


def _bert_like(first_position: Callable[[Any], int]) -> Family:
    return Family(
        first_position, _bert_layers, _last_attention_output, _last_attention, _bert_residuals
    )


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bert": _bert_like(_from_zero),
        "electra": _bert_like(_from_zero),
        "roberta": _bert_like(_after_padding),
        "xlm-roberta": _bert_like(_after_padding),
        "modernbert": Family(_from_zero, _modernbert_layers, _final_norm),
    }
)


def can_pack(config: Any) -> bool:
    """Whether this architecture runs on packed rows."""
    return getattr(config, "model_type", None) in FAMILIES and not getattr(
        config, "is_decoder", False
    )


def pack(
    tokens: Tokens,
    rows: np.ndarray,
    *,
    first_position: int,
    copies: int = 1,
    masks: MaskPool | None = None,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Any], np.ndarray]:
    """The model's keyword arguments for some rows end to end, and the rows in that order.

    The row of tokens is filled up to one of few lengths, and so are the tiles of attention. With
    `copies`, all the rows follow each other that many times.

    Returns:
        `input_ids` and `position_ids`, int64 `[1, tokens]`, and `packing`; and the rows, sorted by
        length, per copy. Where `tokens` come with hidden states, `inputs_embeds`
        `[1, tokens, hidden]` stands in the place of `input_ids`.
    """
    rows = np.tile(rows[np.argsort(tokens.lengths[rows], kind="stable")], copies)
    lengths = tokens.lengths[rows]
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    total = int(offsets[-1])
    filled_up = _filled_up(total)
    positions = np.full(filled_up, first_position, dtype=np.int64)
    positions[:total] += np.arange(total) - np.repeat(offsets[:-1], lengths)
    tiles, tokens_of_places, places_of_tokens = lay_tiles(lengths, offsets, filled_up, device)

    def on_device(array: np.ndarray) -> torch.Tensor:
        return send(torch.from_numpy(array), device)

    packing = Packing(
        texts=len(rows),
        tokens=total,
        offsets=on_device(offsets),
        longest=int(lengths.max()),
        tiles=tiles,
        tokens_of_places=on_device(tokens_of_places),
        places_of_tokens=on_device(places_of_tokens),
        masks=masks,
        layers=None if tokens.states is None else tokens.states.layers,
    )
    inputs: dict[str, Any] = {"position_ids": on_device(positions)[None], "packing": packing}
    if tokens.states is not None:
        states = tokens.states.gather(rows, lengths, filled_up)
        inputs["inputs_embeds"] = send(states, device)[None]
    else:
        ids = np.full(filled_up, tokens.padding, dtype=np.int64)
        ids[:total] = np.concatenate([tokens.ids(row) for row in rows])
        inputs["input_ids"] = on_device(ids)[None]
    return inputs, rows


def _filled_up(total: int) -> int:
    """The next of the lengths that packed rows come in."""
    quantum = _ROW_QUANTUM if total <= 16 * _ROW_QUANTUM else 4 * _ROW_QUANTUM
    return -(-total // quantum) * quantum


def read_packed(model: Any) -> None:
    """Make a sequence classifier read packed batches; others pass unchanged.

    Its head gets the first token of every text; a model whose head takes the mean over the tokens
    (ModernBERT's choice) gets every text's mean instead. Layers that `packing.layers` leaves out
    hand on what they are given.
    """
    encoder = model.base_model
    family = FAMILIES[model.config.model_type]
    # What the encoder was called with last: its modules do not hand everything down.
    current: list[Packing | None] = [None]

    def remember(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        current[0] = kwargs.get("packing")

    encoder.register_forward_pre_hook(remember, with_kwargs=True)
    _let_layers_be_skipped(encoder, family, current)
    narrowed = family.narrows(encoder)
    if getattr(model.config, "classifier_pooling", "cls") == "mean":
        # The norm comes before the mean in a padded batch too.
        narrowed.register_forward_hook(
            lambda _, args, out: out if current[0] is None else _means(out, current[0])
        )
    else:
        if family.last_attention is not None:
            read_firsts_of(family.last_attention(encoder))
        narrowed.register_forward_pre_hook(
            lambda _, args: (
                args if current[0] is None else tuple(_firsts(t, current[0]) for t in args)
            )
        )


def _let_layers_be_skipped(encoder: Any, family: Family, current: list[Packing | None]) -> None:
    for index, layer in enumerate(family.layers(encoder)):
        run = layer.forward

        def forward(
            hidden: torch.Tensor, *args: Any, _run: Any = run, _index: int = index, **kwargs: Any
        ) -> torch.Tensor:
            layers = None if current[0] is None else current[0].layers
            if layers is not None and _index not in layers:
                return hidden
            out: torch.Tensor = _run(hidden, *args, **kwargs)
            return out

        layer.forward = forward
    embed = encoder.embeddings.forward

    def embeddings(*args: Any, **kwargs: Any) -> torch.Tensor:
        is_inside = current[0] is not None and current[0].starts_inside
        out: torch.Tensor = kwargs["inputs_embeds"] if is_inside else embed(*args, **kwargs)
        return out

    encoder.embeddings.forward = embeddings
    # ELECTRA's embeddings are narrower than its layers.
    if (widen := getattr(encoder, "embeddings_project", None)) is not None:
        widen_embeddings = widen.forward

        def project(hidden: torch.Tensor) -> torch.Tensor:
            is_inside = current[0] is not None and current[0].starts_inside
            out: torch.Tensor = hidden if is_inside else widen_embeddings(hidden)
            return out

        widen.forward = project


def _firsts(hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
    return hidden.squeeze(0).index_select(0, packing.offsets[: packing.texts]).unsqueeze(1)


def _means(hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
    return (
        torch.segment_reduce(
            hidden.squeeze(0)[: packing.tokens].float(),
            "mean",
            offsets=packing.offsets.long(),
            axis=0,
        )
        .to(hidden.dtype)
        .unsqueeze(1)
    )

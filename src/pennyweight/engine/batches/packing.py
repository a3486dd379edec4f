"""Packed batches: many texts, one after another, in a single row of tokens without padding.

transformers' own encoder runs on the row `[1, tokens]`; the attention function keeps the texts
apart (`engine.kernels.attention`). Hooks pass on only what the head reads, the first token of every
text, as early as the architecture allows. A batch may also start in the middle of the encoder, from
hidden states instead of token ids (`engine.batches.prefix`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from pennyweight.engine.batches.rows import TokenizedRows, TokenStore, send
from pennyweight.engine.batches.tiles import Packing, lay_tiles
from pennyweight.engine.kernels.attention import read_firsts_of
from pennyweight.engine.kernels.families import FAMILIES, Family
from pennyweight.engine.kernels.masks import MaskPool

__all__ = ["first_tokens", "mean_tokens", "pack", "read_packed"]


# oneDNN compiles a kernel for every new shape, which takes ten times as long as running it, so
# packed rows come in few lengths. A row of one short text would be mostly filling with the larger
# quantum.
_ROW_QUANTUM = 64
_SHORT_ROW_QUANTUM = 16


def pack(
    rows: TokenizedRows,
    indices: np.ndarray,
    *,
    first_position: int,
    masks: MaskPool | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Return the model's keyword arguments for some rows, packed in the order of their indices.

    The packed row is filled up to one of few lengths, and so are the tiles of attention.

    Args:
        rows: all rows.
        indices: int64 `[texts]`, the rows to pack; attention pads less where neighbours have
            similar lengths.
        first_position: the position id of a text's first token.
        masks: source of the dropout masks of attention; None for torch's own.
        device: where the inputs go.

    Returns:
        `input_ids` and `position_ids`, int64 `[1, tokens]`, and `packing`; `token_type_ids` for
        rows with token types. Rows with hidden states give `inputs_embeds` `[1, tokens, hidden]`
        instead of `input_ids` and token types.
    """
    lengths = rows.lengths[indices]
    offsets = np.zeros(len(indices) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    tokens = int(offsets[-1])
    width = _row_width(tokens)
    positions = np.full(width, first_position, dtype=np.int64)
    positions[:tokens] += np.arange(tokens) - np.repeat(offsets[:-1], lengths)
    tiles, tokens_of_places, places_of_tokens = lay_tiles(lengths, offsets, width, device)

    def on_device(array: np.ndarray) -> torch.Tensor:
        return send(torch.from_numpy(array), device)

    packing = Packing(
        texts=len(indices),
        tokens=tokens,
        offsets=on_device(offsets),
        longest=int(lengths.max()),
        tiles=tiles,
        tokens_of_places=on_device(tokens_of_places),
        places_of_tokens=on_device(places_of_tokens),
        masks=masks,
        layers=None if rows.states is None else rows.states.layers,
    )
    inputs: dict[str, Any] = {"position_ids": on_device(positions)[None], "packing": packing}
    if rows.states is not None:
        states = rows.states.gather(indices, lengths, width)
        inputs["inputs_embeds"] = send(states, device)[None]
        return inputs
    inputs["input_ids"] = on_device(_in_a_row(rows.store, indices, width, rows.padding))[None]
    if rows.token_types is not None:
        types = _in_a_row(rows.token_types, indices, width, 0)
        inputs["token_type_ids"] = on_device(types)[None]
    return inputs


def _in_a_row(store: TokenStore, indices: np.ndarray, width: int, padding: int) -> np.ndarray:
    """Return the values of some rows one after another, filled up, int64 `[width]`."""
    values = np.concatenate([store[index] for index in indices])
    filled = np.full(width, padding, dtype=np.int64)
    filled[: len(values)] = values
    return filled


def _row_width(tokens: int) -> int:
    """Return the next of the few lengths that packed rows come in."""
    if tokens <= 16 * _SHORT_ROW_QUANTUM:
        quantum = _SHORT_ROW_QUANTUM
    else:
        quantum = _ROW_QUANTUM if tokens <= 16 * _ROW_QUANTUM else 4 * _ROW_QUANTUM
    return -(-tokens // quantum) * quantum


def read_packed(model: Any) -> None:
    """Make a sequence classifier read packed batches, in place; padded batches pass unchanged.

    The head gets the first token of every text. A head that takes the mean over the tokens gets the
    mean of every text. Layers that are not in `packing.layers`
    return their input.
    """
    encoder = model.base_model
    family = FAMILIES[model.config.model_type]
    # The packing of the model's current call, because its modules do not pass it on.
    current = _CurrentPacking()
    current.follow(model, encoder)
    family.adapt(encoder, current.get)
    _make_layers_skippable(encoder, family, current)
    if getattr(model.config, "classifier_pooling", "cls") == "mean":
        family.last(encoder).register_forward_hook(
            lambda _, args, out: (
                out if (packing := current.get()) is None else mean_tokens(out, packing)
            )
        )
        return
    if family.last_attention is not None:
        read_firsts_of(family.last_attention(encoder))
    for module in family.narrowing(encoder):
        module.register_forward_pre_hook(
            lambda _, args: (
                args
                if (packing := current.get()) is None or packing.every_token
                else tuple(first_tokens(tensor, packing) for tensor in args)
            )
        )


class _CurrentPacking:
    """The packing of the call that a classifier or its encoder is in; None for padded batches."""

    def __init__(self) -> None:
        self._of_classifier: Packing | None = None
        self._of_encoder: Packing | None = None

    def get(self) -> Packing | None:
        """Return the packing of the current call of the encoder."""
        return self._of_encoder

    def follow(self, classifier: nn.Module, encoder: nn.Module) -> None:
        """Remember the packing with which one of them is called."""

        # Some classifiers of transformers do not pass it to the encoder.
        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._of_classifier = kwargs.get("packing")

        def leave(*_: Any) -> None:
            self._of_classifier = None

        def enter_encoder(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._of_encoder = kwargs.get("packing", self._of_classifier)

        classifier.register_forward_pre_hook(enter, with_kwargs=True)
        classifier.register_forward_hook(leave, always_call=True)
        encoder.register_forward_pre_hook(enter_encoder, with_kwargs=True)


def _make_layers_skippable(encoder: Any, family: Family, current: _CurrentPacking) -> None:
    for number, layer in enumerate(family.layers(encoder)):
        run = layer.forward

        def forward(
            hidden: torch.Tensor, *args: Any, _run: Any = run, _number: int = number, **kwargs: Any
        ) -> torch.Tensor:
            layers = None if (packing := current.get()) is None else packing.layers
            if layers is not None and _number not in layers:
                return hidden
            out: torch.Tensor = _run(hidden, *args, **kwargs)
            return out

        layer.forward = forward
    embed = encoder.embeddings.forward

    def embeddings(*args: Any, **kwargs: Any) -> torch.Tensor:
        is_inside = (packing := current.get()) is not None and packing.starts_inside
        out: torch.Tensor = kwargs["inputs_embeds"] if is_inside else embed(*args, **kwargs)
        return out

    encoder.embeddings.forward = embeddings
    # ELECTRA's embeddings are narrower than its layers.
    if (projection := getattr(encoder, "embeddings_project", None)) is not None:
        project_embeddings = projection.forward

        def project(hidden: torch.Tensor) -> torch.Tensor:
            is_inside = (packing := current.get()) is not None and packing.starts_inside
            out: torch.Tensor = hidden if is_inside else project_embeddings(hidden)
            return out

        projection.forward = project


def first_tokens(hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
    """Return the first token of every text, `[texts, 1, hidden]`.

    Args:
        hidden: `[1, tokens, hidden]`; or what this function returned, which is returned again.
        packing: of the tokens.
    """
    if hidden.shape[1] == 1:  # from a module that was narrowed itself; packed rows are longer
        return hidden
    return hidden.squeeze(0).index_select(0, packing.offsets[: packing.texts]).unsqueeze(1)


def mean_tokens(hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
    """Return the mean over the tokens of every text, `[texts, 1, hidden]`.

    Args:
        hidden: `[1, tokens, hidden]`.
        packing: of the tokens.
    """
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

"""Attention over packed texts, registered with transformers under the name `PACKED`.

The texts of a batch follow each other in one row of tokens. On a GPU, torch's variable-length flash
attention keeps them apart; elsewhere, texts of similar length form tiles (`engine.batches.tiles`),
each a batch of ordinary matrix products. The products are written out, because on a CPU the
backward pass of torch's fused attention takes eight times as long (bfloat16, 54 tokens, 12 heads).
Only the first tokens' outputs of the last layer are used, so only their queries are computed there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

from pennyweight.engine.batches.tiles import Packing, Tile
from pennyweight.engine.kernels.masks import dropout_mask

__all__ = ["PACKED", "AttentionOptions", "packed_attention", "read_firsts_of"]

PACKED = "pennyweight_packed"
_FIRSTS = "pennyweight_reads_firsts"


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """How attention is computed.

    Attributes:
        packing: where the texts are in the packed row.
        scale: factor of the scores.
        dropout: dropout probability of the attention probabilities.
        sliding_window: tokens attend only to tokens at a smaller distance; None for all tokens.
        firsts: whether only the outputs of the texts' first tokens are used.
    """

    packing: Packing
    scale: float
    dropout: float = 0.0
    sliding_window: int | None = None
    firsts: bool = False


def read_firsts_of(attention: nn.Module) -> None:
    """Mark an attention module of whose output only each text's first token is used.

    For the other tokens, packed attention returns arbitrary values.
    """
    setattr(attention, _FIRSTS, True)


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Let every text of a packed row attend to itself only.

    Args:
        module: the attention module; see `read_firsts_of`.
        query: `[1, heads, tokens, head size]`, as are `key` and `value`.
        key: see `query`.
        value: see `query`.
        attention_mask: must be None, because a packed row has no padding.
        **options: `packing`, a `Packing`, is required; `scaling` of the scores (default
            1 / sqrt(head size)), `dropout` and `sliding_window`, see `AttentionOptions`; `bias`,
            `[heads, places, places]`, is added to the scores of a text's queries and keys by their
            positions in it, and may be trained. Others are ignored.

    Returns:
        `[1, tokens, heads, head size]`, and None instead of attention probabilities.

    Raises:
        ValueError: the model was called without `packing`, so nothing would keep texts apart.
    """
    if options.get("packing") is None or attention_mask is not None:
        raise ValueError(
            "this model was built for packed batches: call it with packing= and no attention mask, "
            'or load it with attn_implementation="sdpa"'
        )
    scaling = options.get("scaling")
    settings = AttentionOptions(
        packing=options["packing"],
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout=options.get("dropout", 0.0),
        sliding_window=options.get("sliding_window"),
        firsts=getattr(module, _FIRSTS, False) and not options["packing"].every_token,
    )
    # squeeze, because the gradient of indexing is a copy into zeros.
    q, k, v = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    bias: torch.Tensor | None = options.get("bias")
    on_gpu = query.device.type == "cuda"
    if on_gpu and settings.dropout == 0.0 and bias is None and query.dtype != torch.float32:
        return _variable_length(q, k, v, settings)[None], None
    tensors = [tensor for tensor in (q, k, v, bias) if tensor is not None]
    is_trained = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if on_gpu or not (is_trained or settings.dropout):
        return _fused_tiles(q, k, v, bias, settings)[None], None
    attend: Any = _TiledAttention.apply
    return attend(q, k, v, bias, settings)[None], None


AttentionInterface.register(PACKED, packed_attention)


def _variable_length(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: AttentionOptions
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    packing, sliding_window = options.packing, options.sliding_window
    window = (-1, -1) if sliding_window is None else (sliding_window - 1, sliding_window - 1)
    # The kernel writes neither outputs nor gradients of tokens that are after the last text.
    tokens = packing.tokens
    out = varlen_attn(
        q[:tokens].contiguous(),
        k[:tokens].contiguous(),
        v[:tokens].contiguous(),
        packing.offsets,
        packing.offsets,
        packing.longest,
        packing.longest,
        scale=options.scale,
        window_size=window,
    )
    assert isinstance(out, torch.Tensor)  # noqa: S101 - a pair only if more is requested
    return functional.pad(out, (0, 0, 0, 0, 0, len(q) - tokens))


def _fused_tiles(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    options: AttentionOptions,
) -> torch.Tensor:
    """Run torch's fused attention per tile: its variable-length kernel has no dropout or bias."""
    packing, firsts = options.packing, options.firsts
    all_places, query_places = packing.places(1), packing.places(1, firsts=firsts)
    qs, ks, vs = (
        places.gather(tensor.flatten(1)[:, None])
        for places, tensor in ((query_places, q), (all_places, k), (all_places, v))
    )
    outputs = []
    for tile in packing.tiles:
        qt, kt, vt = (
            places.of(tensor, tile).view(tile.rows, -1, *q.shape[1:]).transpose(1, 2)
            for places, tensor in ((query_places, qs), (all_places, ks), (all_places, vs))
        )
        hidden = tile.padding if firsts else _hidden_keys(tile, options.sliding_window, q.device)
        out = functional.scaled_dot_product_attention(
            qt,
            kt,
            vt,
            attn_mask=_score_mask(hidden, None if bias is None else _of_tile(bias, qt, kt)),
            dropout_p=options.dropout,
            scale=options.scale,
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1).flatten(1))
    outputs.append(torch.zeros_like(outputs[0][:1]))
    return query_places.scatter(torch.cat(outputs)).view(q.shape)


def _of_tile(bias: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return the part of a bias that belongs to a tile: it depends on positions in a text only."""
    return bias[:, : queries.shape[-2], : keys.shape[-2]]


def _score_mask(hidden: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor | None:
    """Return hidden keys and bias as the mask of torch's attention: bool, or added to scores."""
    if bias is None:
        return None if hidden is None else ~hidden
    return bias[None] if hidden is None else bias[None].masked_fill(hidden, float("-inf"))


def _hidden_keys(
    tile: Tile, sliding_window: int | None, device: torch.device
) -> torch.Tensor | None:
    """Return a bool mask, true where a query does not attend to a key; None if it always does.

    It broadcasts to `[rows, heads, length, length]`.
    """
    if sliding_window is None or tile.length <= sliding_window:
        return tile.padding
    place = torch.arange(tile.length, device=device)
    too_far = ((place[:, None] - place[None, :]).abs() >= sliding_window)[None, None]
    if tile.padding is None:
        return too_far
    # All keys in the window of a padding place may be padding; it attends to itself.
    itself = torch.eye(tile.length, dtype=torch.bool, device=device)
    return (too_far | tile.padding) & ~itself


class _TiledAttention(torch.autograd.Function):
    """Attention as plain products, tile by tile, with its own backward pass.

    `q`, `k` and `v` are `[tokens, heads, head size]`; `bias` is `[heads, places, places]` or None.
    torch's softmax computes in float32 inside.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        bias: torch.Tensor | None,
        options: AttentionOptions,
    ) -> torch.Tensor:
        packing, firsts = options.packing, options.firsts
        all_places = packing.places(q.shape[1])
        query_places = packing.places(q.shape[1], firsts=firsts)
        qs, ks, vs = query_places.gather(q), all_places.gather(k), all_places.gather(v)
        outputs = query_places.empty(q)
        saved: list[torch.Tensor | None] = []
        for tile in packing.tiles:
            kt, vt = all_places.of(ks, tile), all_places.of(vs, tile)
            qt = query_places.of(qs, tile)
            scores = _scaled_product(qt, kt.transpose(1, 2), options.scale)
            if bias is not None:
                _by_row(scores, tile).add_(_of_tile(bias, qt, kt))
            _hide_keys(scores, tile, None if firsts else options.sliding_window)
            probabilities = torch.softmax(scores, dim=-1)
            mask = None
            if options.dropout > 0.0:
                mask = dropout_mask(probabilities, options.dropout, packing.masks)
            dropped = probabilities if mask is None else torch.mul(probabilities, mask, out=scores)
            torch.bmm(dropped, vt, out=query_places.of(outputs, tile))
            saved += [probabilities, mask]
        ctx.save_for_backward(qs, ks, vs, *saved)
        ctx.options, ctx.places = options, (query_places, all_places)
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        return query_places.scatter(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        options: AttentionOptions = ctx.options
        dout = gradients[0]
        query_places, all_places = ctx.places
        qs, ks, vs, *saved = ctx.saved_tensors
        douts = query_places.gather(dout)
        places_of = (query_places, all_places, all_places)
        dqs, dks, dvs = (
            places.empty(dout) if needed else None
            for places, needed in zip(places_of, ctx.needs_input_grad, strict=False)
        )
        dbias = None
        if ctx.needs_input_grad[3]:
            dbias = torch.zeros(ctx.bias[0], dtype=torch.float32, device=dout.device)
        for number, tile in enumerate(options.packing.tiles):
            probabilities, mask = saved[2 * number], saved[2 * number + 1]
            kt, vt = all_places.of(ks, tile), all_places.of(vs, tile)
            gt = query_places.of(douts, tile)
            if not query_places.firsts:
                _drop_padding(gt, tile)
            if dvs is not None:
                dropped = probabilities if mask is None else probabilities * mask
                torch.bmm(dropped.transpose(1, 2), gt, out=all_places.of(dvs, tile))
            if dqs is None and dks is None and dbias is None:
                continue
            dp = torch.bmm(gt, vt.transpose(1, 2))
            if mask is not None:
                dp = dp.mul_(mask)
            ds = torch._softmax_backward_data(dp, probabilities, -1, probabilities.dtype)
            if dbias is not None:
                # The rows after the texts repeat one of them.
                of_tile = _by_row(ds, tile)[: tile.texts].sum(0, dtype=torch.float32)
                _of_tile(dbias, ds, kt).add_(of_tile)
            if dqs is not None:
                _scaled_product(ds, kt, options.scale, out=query_places.of(dqs, tile))
            if dks is not None:
                qt = query_places.of(qs, tile)
                dkt = all_places.of(dks, tile)
                _scaled_product(ds.transpose(1, 2), qt, options.scale, out=dkt)
        dq, dk, dv = (
            None if tiles is None else places.scatter(tiles)
            for places, tiles in zip(places_of, (dqs, dks, dvs), strict=True)
        )
        return dq, dk, dv, None if dbias is None else dbias.to(ctx.bias[1]), None


def _scaled_product(
    left: torch.Tensor, right: torch.Tensor, scale: float, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `scale` times the batched matrix product."""
    if out is None:
        out = left.new_empty((*left.shape[:2], right.shape[2]))
    return torch.baddbmm(out, left, right, beta=0.0, alpha=scale, out=out)


def _hide_keys(scores: torch.Tensor, tile: Tile, sliding_window: int | None) -> None:
    """Set the scores of hidden keys to -inf, in place."""
    hidden = _hidden_keys(tile, sliding_window, scores.device)
    if hidden is None:
        return
    # Padding comes after the shortest text, so only the columns from there on are touched.
    first = tile.shortest if hidden is tile.padding else 0
    _by_row(scores, tile)[..., first:].masked_fill_(hidden[..., first:], float("-inf"))


def _drop_padding(gradient: torch.Tensor, tile: Tile) -> None:
    """Set the gradient of padding places to zero, in place."""
    if tile.padding is not None:
        behind = _by_row(gradient, tile)[:, :, tile.shortest :]
        behind.masked_fill_(tile.padding.transpose(2, 3)[:, :, tile.shortest :], 0.0)


def _by_row(products: torch.Tensor, tile: Tile) -> torch.Tensor:
    """Return a view of `[rows * heads, length, any]` as `[rows, heads, length, any]`."""
    return products.view(tile.rows, -1, *products.shape[1:])

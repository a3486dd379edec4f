"""Attention over packed texts, registered with transformers under the name `PACKED`.

Many texts lie end to end in one row of tokens. On a GPU torch's variable-length flash attention
keeps them apart; elsewhere texts of about equal length form tiles (`engine.tiles`), each a batch of
ordinary matrix products. They are spelled out, because on CPU the backward pass of torch's fused
attention takes eight times as long as they do (bfloat16, 54 tokens, 12 heads). Of the last layer
only the first tokens' answers are read, so only their questions are asked.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

from pennyweight.engine.masks import MaskPool
from pennyweight.engine.tiles import Packing, Tile

__all__ = ["PACKED", "packed_attention", "read_firsts_of"]

PACKED = "pennyweight_packed"
_FIRSTS = "pennyweight_reads_firsts"


def read_firsts_of(attention: nn.Module) -> None:
    """Say that of an attention module's output only each text's first token is read.

    For the other tokens packed attention then returns zeros, or what it likes.
    """
    setattr(attention, _FIRSTS, True)


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    packing: Packing | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Every text attends to itself alone.

    Args:
        module: the attention module; see `read_firsts_of`.
        query: `[1, heads, tokens, head size]`, as are `key` and `value`.
        key: see `query`.
        value: see `query`.
        attention_mask: None; a packed row has no padding.
        scaling: of the scores; left out, 1 / sqrt(head size).
        dropout: of the attention probabilities.
        sliding_window: tokens farther apart than this, less one, do not see each other.
        packing: where the texts lie.

    Returns:
        `[1, tokens, heads, head size]`, and no attention probabilities.

    Raises:
        ValueError: the model was called without `packing`, so nothing would keep texts apart.
    """
    if packing is None or attention_mask is not None:
        raise ValueError(
            "this model was built for packed batches: call it with packing= and no attention mask, "
            'or load it with attn_implementation="sdpa"'
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # squeeze, because the gradient of indexing is a copy into zeros.
    q, k, v = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    if query.device.type == "cuda" and dropout == 0.0 and query.dtype != torch.float32:
        return _variable_length(q, k, v, packing, scale, sliding_window)[None], None
    is_trained = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))
    firsts = getattr(module, _FIRSTS, False)
    if query.device.type == "cuda" or not (is_trained or dropout):
        return _fused_tiles(q, k, v, packing, scale, dropout, sliding_window, firsts)[None], None
    attend: Any = _TiledAttention.apply
    return attend(q, k, v, packing, scale, dropout, sliding_window, firsts)[None], None


AttentionInterface.register(PACKED, packed_attention)


def _variable_length(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    packing: Packing,
    scale: float,
    sliding_window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    window = (-1, -1) if sliding_window is None else (sliding_window - 1, sliding_window - 1)
    out = varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        packing.offsets,
        packing.offsets,
        packing.longest,
        packing.longest,
        scale=scale,
        window_size=window,
    )
    assert isinstance(out, torch.Tensor)  # noqa: S101 - a pair only where more is asked for
    return out


def _fused_tiles(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    packing: Packing,
    scale: float,
    dropout: float,
    sliding_window: int | None,
    firsts: bool,
) -> torch.Tensor:
    """Torch's fused attention per tile: the variable-length kernel knows no dropout."""
    everything, asking = packing.places(1), packing.places(1, firsts=firsts)
    qs, ks, vs = (
        places.gather(tensor.flatten(1)[:, None])
        for places, tensor in ((asking, q), (everything, k), (everything, v))
    )
    parts = []
    for tile in packing.tiles:
        qt, kt, vt = (
            places.of(tensor, tile).view(tile.rows, -1, *q.shape[1:]).transpose(1, 2)
            for places, tensor in ((asking, qs), (everything, ks), (everything, vs))
        )
        hidden = tile.padding if firsts else _out_of_sight(tile, sliding_window, q.device)
        seen = None if hidden is None else ~hidden
        out = functional.scaled_dot_product_attention(
            qt, kt, vt, attn_mask=seen, dropout_p=dropout, scale=scale
        )
        parts.append(out.transpose(1, 2).flatten(0, 1).flatten(1))
    parts.append(torch.zeros_like(parts[0][:1]))
    return asking.scatter(torch.cat(parts)).view(q.shape)


def _out_of_sight(
    tile: Tile, sliding_window: int | None, device: torch.device
) -> torch.Tensor | None:
    """Bool, broadcasts to `[rows, heads, length, length]`: true where a key is not seen."""
    if sliding_window is None or tile.length <= sliding_window:
        return tile.padding
    place = torch.arange(tile.length, device=device)
    far = ((place[:, None] - place[None, :]).abs() >= sliding_window)[None, None]
    if tile.padding is None:
        return far
    # A place without a token may see nothing else through the window; it sees itself.
    itself = torch.eye(tile.length, dtype=torch.bool, device=device)
    return (far | tile.padding) & ~itself


class _TiledAttention(torch.autograd.Function):
    """Attention as plain products, tile by tile, with its own backward pass.

    `q`, `k` and `v` are `[tokens, heads, head size]`. Torch's softmax computes in float32 inside.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        packing: Packing,
        scale: float,
        dropout: float,
        sliding_window: int | None,
        firsts: bool,
    ) -> torch.Tensor:
        everything = packing.places(q.shape[1])
        asking = packing.places(q.shape[1], firsts=firsts)
        qs, ks, vs = asking.gather(q), everything.gather(k), everything.gather(v)
        outs = asking.room(q)
        kept: list[torch.Tensor | None] = []
        for tile in packing.tiles:
            kt, vt = everything.of(ks, tile), everything.of(vs, tile)
            scores = _scaled(asking.of(qs, tile), kt.transpose(1, 2), scale)
            _hide(scores, tile, None if firsts else sliding_window)
            probabilities = torch.softmax(scores, dim=-1)
            mask = _dropout_mask(probabilities, dropout, packing.masks)
            dropped = probabilities if mask is None else torch.mul(probabilities, mask, out=scores)
            torch.bmm(dropped, vt, out=asking.of(outs, tile))
            kept += [probabilities, mask]
        ctx.save_for_backward(qs, ks, vs, *kept)
        ctx.packing, ctx.scale, ctx.places = packing, scale, (asking, everything)
        return asking.scatter(outs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        packing: Packing = ctx.packing
        dout = gradients[0]
        asking, everything = ctx.places
        qs, ks, vs, *kept = ctx.saved_tensors
        douts = asking.gather(dout)
        whose = (asking, everything, everything)
        dqs, dks, dvs = (
            places.room(dout) if needed else None
            for places, needed in zip(whose, ctx.needs_input_grad, strict=False)
        )
        for at, tile in enumerate(packing.tiles):
            probabilities, mask = kept[2 * at], kept[2 * at + 1]
            kt, vt, gt = everything.of(ks, tile), everything.of(vs, tile), asking.of(douts, tile)
            if not asking.firsts:
                _drop_padding(gt, tile)
            if dvs is not None:
                dropped = probabilities if mask is None else probabilities * mask
                torch.bmm(dropped.transpose(1, 2), gt, out=everything.of(dvs, tile))
            if dqs is None and dks is None:
                continue
            dp = torch.bmm(gt, vt.transpose(1, 2))
            if mask is not None:
                dp = dp.mul_(mask)
            ds = torch._softmax_backward_data(dp, probabilities, -1, probabilities.dtype)
            if dqs is not None:
                _scaled(ds, kt, ctx.scale, out=asking.of(dqs, tile))
            if dks is not None:
                qt = asking.of(qs, tile)
                _scaled(ds.transpose(1, 2), qt, ctx.scale, out=everything.of(dks, tile))
        found = (
            None if tiles is None else places.scatter(tiles)
            for places, tiles in zip(whose, (dqs, dks, dvs), strict=True)
        )
        return *found, None, None, None, None, None


def _scaled(
    left: torch.Tensor, right: torch.Tensor, scale: float, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """`scale` times the batched product."""
    if out is None:
        out = left.new_empty((*left.shape[:2], right.shape[2]))
    return torch.baddbmm(out, left, right, beta=0.0, alpha=scale, out=out)


def _hide(scores: torch.Tensor, tile: Tile, sliding_window: int | None) -> None:
    """Keys that are not seen get a score of -inf, in place."""
    hidden = _out_of_sight(tile, sliding_window, scores.device)
    if hidden is None:
        return
    # Padding stands behind the shortest text: only the columns there are touched.
    first = tile.shortest if hidden is tile.padding else 0
    _by_row(scores, tile)[..., first:].masked_fill_(hidden[..., first:], float("-inf"))


def _drop_padding(gradient: torch.Tensor, tile: Tile) -> None:
    """What repeats a token in the tile's padding has no gradient, in place."""
    if tile.padding is not None:
        behind = _by_row(gradient, tile)[:, :, tile.shortest :]
        behind.masked_fill_(tile.padding.transpose(2, 3)[:, :, tile.shortest :], 0.0)


def _by_row(products: torch.Tensor, tile: Tile) -> torch.Tensor:
    """`[rows * heads, length, any]` as `[rows, heads, length, any]`."""
    return products.view(tile.rows, -1, *products.shape[1:])


def _dropout_mask(
    probabilities: torch.Tensor, dropout: float, masks: MaskPool | None
) -> torch.Tensor | None:
    if dropout == 0.0:
        return None
    if masks is None:
        return functional.dropout(torch.ones_like(probabilities), dropout)
    return masks.mask(tuple(probabilities.shape), probability=dropout, dtype=probabilities.dtype)

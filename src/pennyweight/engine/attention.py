"""Attention over packed texts, registered with transformers under the name `PACKED`.

Many texts lie end to end in one row of tokens. On a GPU torch's variable-length flash attention
keeps them apart; elsewhere texts of about equal length form tiles, each a batch of ordinary matrix
products. They are spelled out, because on CPU the backward pass of torch's fused attention takes
eight times as long as they do (bfloat16, 54 tokens, 12 heads). Tiles come in few shapes, because
oneDNN compiles a kernel for every shape it meets: ten times the cost of running it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

from pennyweight.engine.masks import MaskPool

__all__ = ["PACKED", "Packing", "Tile", "packed_attention"]

PACKED = "pennyweight_packed"


@dataclass(frozen=True, slots=True)
class Tile:
    """Texts of about the same length that go through attention as one batch of products.

    Attributes:
        start: where the tile's places begin among the places of all tiles.
        rows: texts, some of which may be empty.
        length: places per text.
        padding: bool `[rows, 1, 1, length]`, true where a place holds no token; None if all do.
    """

    start: int
    rows: int
    length: int
    padding: torch.Tensor | None

    @property
    def end(self) -> int:
        """The place after the last."""
        return self.start + self.rows * self.length


@dataclass(frozen=True, slots=True)
class Packing:
    """Where each text lies in a packed row of tokens.

    Attributes:
        texts: how many there are.
        tokens: how many they have together; the row may be filled up with more.
        offsets: int32 `[texts + 1]` on the model's device: where each text begins, and the end.
        longest: tokens of the longest text.
        tiles: batches of texts for attention without a variable-length kernel.
        tokens_of_places: int64 `[places]`: the token at each place of the tiles.
        places_of_tokens: int64 `[tokens]`: the place of each token; of the tokens after the last
            text, which only fill up the row, one past the last place.
        masks: where dropout masks come from; None for torch's own.
        layers: the encoder's layers that run; the others hand on what they are given, and so do
            the embeddings if the first layer is not among them. None for all.
    """

    texts: int
    tokens: int
    offsets: torch.Tensor
    longest: int
    tiles: tuple[Tile, ...]
    tokens_of_places: torch.Tensor
    places_of_tokens: torch.Tensor
    masks: MaskPool | None = None
    layers: range | None = None
    _by_heads: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def by_heads(self, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where to find things when each tile is laid out `[rows, heads, length]`.

        Returns:
            int64 `[places * heads]`, for each entry of the tiles the entry of the tokens
            (`[tokens, heads]`, flat); int64 `[tokens * heads]`, the reverse, with
            `places * heads` for the tokens that only fill up the row.
        """
        if heads not in self._by_heads:
            self._by_heads[heads] = self._lay_out(heads)
        return self._by_heads[heads]

    def _lay_out(self, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.tokens_of_places.device
        head = torch.arange(heads, device=device)
        to_tiles, entries = [], []
        for tile in self.tiles:
            tokens = self.tokens_of_places[tile.start : tile.end].view(tile.rows, 1, tile.length)
            to_tiles.append((tokens * heads + head[:, None]).flatten())
            count = tile.rows * heads * tile.length
            entry = torch.arange(count, device=device).view(tile.rows, heads, tile.length)
            entries.append((entry.transpose(1, 2) + tile.start * heads).reshape(-1, heads))
        nowhere = torch.full((1, heads), len(self.tokens_of_places) * heads, device=device)
        of_places = torch.cat([*entries, nowhere])
        return torch.cat(to_tiles), of_places.index_select(0, self.places_of_tokens).flatten()

    @property
    def starts_inside(self) -> bool:
        """Whether the embeddings are left out: the inputs are hidden states."""
        return self.layers is not None and self.layers.start > 0


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
        module: the attention module; not used.
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
    if query.device.type == "cuda" or not (is_trained or dropout):
        return _fused_tiles(q, k, v, packing, scale, dropout, sliding_window)[None], None
    attend: Any = _TiledAttention.apply
    return attend(q, k, v, packing, scale, dropout, sliding_window)[None], None


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
) -> torch.Tensor:
    """Torch's fused attention per tile: the variable-length kernel knows no dropout."""
    placed = [t.index_select(0, packing.tokens_of_places) for t in (q, k, v)]
    parts = []
    for tile in packing.tiles:
        batch = [_heads_first(t, tile) for t in placed]
        hidden = _hidden(tile, sliding_window, q.device)
        seen = None if hidden is None else ~hidden
        out = functional.scaled_dot_product_attention(
            batch[0], batch[1], batch[2], attn_mask=seen, dropout_p=dropout, scale=scale
        )
        parts.append(out.transpose(1, 2).flatten(0, 1))
    parts.append(torch.zeros_like(parts[0][:1]))
    return torch.cat(parts).index_select(0, packing.places_of_tokens)


def _hidden(tile: Tile, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """Bool, broadcasts to `[rows, heads, length, length]`: true where a key is out of sight."""
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
    ) -> torch.Tensor:
        heads = q.shape[1]
        qs, ks, vs = (_into_tiles(t, packing) for t in (q, k, v))
        # On the smallest of the tensors; what the tiles hold is the scaled query from here on.
        qs.mul_(scale)
        outs = _room_for_tiles(q, packing)
        kept: list[torch.Tensor | None] = []
        for tile in packing.tiles:
            qt, kt, vt, out = (_tile(t, tile, heads) for t in (qs, ks, vs, outs))
            scores = torch.bmm(qt, kt.transpose(1, 2))
            hidden = _hidden(tile, sliding_window, q.device)
            if hidden is not None:
                _by_row(scores, tile).masked_fill_(hidden, float("-inf"))
            probabilities = torch.softmax(scores, dim=-1)
            mask = _dropout_mask(probabilities, dropout, packing.masks)
            dropped = probabilities if mask is None else torch.mul(probabilities, mask, out=scores)
            torch.bmm(dropped, vt, out=out)
            kept += [probabilities, mask]
        ctx.save_for_backward(qs, ks, vs, *kept)
        ctx.packing, ctx.scale = packing, scale
        return _from_tiles(outs, packing, heads)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        packing: Packing = ctx.packing
        dout = gradients[0]
        heads = dout.shape[1]
        qs, ks, vs, *kept = ctx.saved_tensors
        douts = _into_tiles(dout, packing)
        dqs, dks, dvs = (
            _room_for_tiles(dout, packing) if needed else None
            for needed in ctx.needs_input_grad[:3]
        )
        for at, tile in enumerate(packing.tiles):
            probabilities, mask = kept[2 * at], kept[2 * at + 1]
            qt, kt, vt, gt = (_tile(t, tile, heads) for t in (qs, ks, vs, douts))
            if tile.padding is not None:
                _by_row(gt, tile).masked_fill_(tile.padding.transpose(2, 3), 0.0)
            if dvs is not None:
                dropped = probabilities if mask is None else probabilities * mask
                torch.bmm(dropped.transpose(1, 2), gt, out=_tile(dvs, tile, heads))
            if dqs is None and dks is None:
                continue
            dp = torch.bmm(gt, vt.transpose(1, 2))
            if mask is not None:
                dp = dp.mul_(mask)
            ds = torch._softmax_backward_data(dp, probabilities, -1, probabilities.dtype)
            if dqs is not None:
                torch.bmm(ds, kt, out=_tile(dqs, tile, heads))
            if dks is not None:
                torch.bmm(ds.transpose(1, 2), qt, out=_tile(dks, tile, heads))
        if dqs is not None:
            dqs.mul_(ctx.scale)
        found = (None if t is None else _from_tiles(t, packing, heads) for t in (dqs, dks, dvs))
        return *found, None, None, None, None


def _into_tiles(tensor: torch.Tensor, packing: Packing) -> torch.Tensor:
    """Tokens `[tokens, heads, size]` laid out by tile, `[places * heads, size]`."""
    to_tiles, _ = packing.by_heads(tensor.shape[1])
    return tensor.reshape(-1, tensor.shape[2]).index_select(0, to_tiles)


def _room_for_tiles(tensor: torch.Tensor, packing: Packing) -> torch.Tensor:
    """Room for every place and, at the end, zeros for the tokens that fill up the row."""
    places = len(packing.tokens_of_places) * tensor.shape[1]
    made = tensor.new_empty((places + 1, tensor.shape[2]))
    made[places] = 0.0
    return made


def _from_tiles(tiles: torch.Tensor, packing: Packing, heads: int) -> torch.Tensor:
    """The reverse of `_into_tiles`: `[tokens, heads, size]`."""
    _, from_tiles = packing.by_heads(heads)
    return tiles.index_select(0, from_tiles).view(-1, heads, tiles.shape[1])


def _tile(tiles: torch.Tensor, tile: Tile, heads: int) -> torch.Tensor:
    """One tile `[rows * heads, length, size]`, a view."""
    inside = tiles[tile.start * heads : tile.end * heads]
    return inside.view(tile.rows * heads, tile.length, tiles.shape[1])


def _by_row(products: torch.Tensor, tile: Tile) -> torch.Tensor:
    """`[rows * heads, length, any]` as `[rows, heads, length, any]`."""
    return products.view(tile.rows, -1, *products.shape[1:])


def _heads_first(places: torch.Tensor, tile: Tile) -> torch.Tensor:
    """A tile's places as a view `[rows, heads, length, size]`."""
    inside = places[tile.start : tile.end]
    return inside.view(tile.rows, tile.length, *places.shape[1:]).transpose(1, 2)


def _dropout_mask(
    probabilities: torch.Tensor, dropout: float, masks: MaskPool | None
) -> torch.Tensor | None:
    if dropout == 0.0:
        return None
    if masks is None:
        return functional.dropout(torch.ones_like(probabilities), dropout)
    return masks.mask(tuple(probabilities.shape), probability=dropout, dtype=probabilities.dtype)

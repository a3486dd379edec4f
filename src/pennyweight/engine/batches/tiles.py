"""The layout of a packed row: where its texts are, and which tiles they form in attention.

Texts of similar length form a tile, which is a batch of ordinary matrix products. Tiles come in few
shapes, because oneDNN compiles a kernel for every new shape, at ten times the cost of running it.

A place is a position in a tile: it holds a token, or repeats one as padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from pennyweight.engine.batches.rows import send
from pennyweight.engine.kernels.masks import MaskPool

__all__ = ["Packing", "Places", "Tile", "lay_tiles"]

_QUANTUM = 16
_ROWS = 16
# At most this many groups of `_ROWS` texts with the same padded length form one tile.
_MAX_GROUPS = 4


@dataclass(frozen=True, slots=True)
class Tile:
    """Texts of similar length that go through attention as one batch of matrix products.

    Attributes:
        start: first place of the tile among the places of all tiles.
        first: number of rows in all tiles before this one.
        texts: number of texts, one in each of the first rows.
        rows: number of rows; the ones after the texts repeat the shortest text.
        length: places per row.
        shortest: tokens of the shortest text.
        padding: bool `[rows, 1, 1, length]`, true where a place is padding; None without padding.
    """

    start: int
    first: int
    texts: int
    rows: int
    length: int
    shortest: int
    padding: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Packing:
    """The layout of a packed row of tokens.

    Attributes:
        texts: number of texts.
        tokens: number of tokens of all texts; the row may be longer.
        offsets: int32 `[texts + 1]` on the model's device: the start of each text, and the end of
            the last one.
        longest: tokens of the longest text.
        tiles: batches of texts for attention without a variable-length kernel.
        tokens_of_places: int64 `[places]`: the token at each place of the tiles.
        places_of_tokens: int64 `[width]`: the place of each token of the row; the tokens after the
            last text have the place one past the last.
        masks: source of the dropout masks; None for torch's own.
        layers: the encoder layers that run; the others return their input, and so do the embeddings
            if the first layer is left out. None for all layers.
        every_token: whether the encoder returns all tokens, and not only what the head reads.
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
    every_token: bool = False
    _places: dict[tuple[int, bool], Places] = field(default_factory=dict)

    def places(self, heads: int, *, firsts: bool = False) -> Places:
        """Return the layout of the tiles, with all tokens or with first tokens only."""
        if (heads, firsts) not in self._places:
            build = _first_places if firsts else _all_places
            self._places[heads, firsts] = build(self, heads)
        return self._places[heads, firsts]

    @property
    def starts_inside(self) -> bool:
        """Return whether the inputs are hidden states, so that the embeddings are skipped."""
        return self.layers is not None and self.layers.start > 0


@dataclass(frozen=True, slots=True)
class Places:
    """Tiles with the layout `[rows, heads, length]`, in which each entry is a vector.

    Attributes:
        heads: attention heads of each token.
        firsts: whether tiles hold only the first token of every row, so that length is 1.
        into: int64 `[entries]`, for each entry of the tiles, its index among the tokens' entries
            (`[tokens, heads]`, flat).
        back: int64 `[tokens * heads]`, the inverse; `entries` for tokens that are in no tile.
    """

    heads: int
    firsts: bool
    into: torch.Tensor
    back: torch.Tensor

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return tokens `[tokens, heads, size]` in the layout of the tiles, `[entries, size]`."""
        return tensor.reshape(-1, tensor.shape[2]).index_select(0, self.into)

    def empty(self, like: torch.Tensor) -> torch.Tensor:
        """Return uninitialized entries, followed by zeros for tokens that are in no tile."""
        entries = like.new_empty((len(self.into) + 1, like.shape[-1]))
        entries[-1] = 0.0
        return entries

    def scatter(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return entries (see `empty`) in the order of the tokens: `[tokens, heads, size]`."""
        return tiles.index_select(0, self.back).view(-1, self.heads, tiles.shape[1])

    def of(self, tiles: torch.Tensor, tile: Tile) -> torch.Tensor:
        """Return a view of one tile, `[rows * heads, length, size]`."""
        start, length = (tile.first, 1) if self.firsts else (tile.start, tile.length)
        inside = tiles[start * self.heads : (start + tile.rows * length) * self.heads]
        return inside.view(tile.rows * self.heads, length, tiles.shape[1])


def _all_places(packing: Packing, heads: int) -> Places:
    device = packing.tokens_of_places.device
    head = torch.arange(heads, device=device)
    into, entries = [], []
    for tile in packing.tiles:
        count = tile.rows * tile.length
        tokens = packing.tokens_of_places[tile.start : tile.start + count]
        into.append((tokens.view(tile.rows, 1, tile.length) * heads + head[:, None]).flatten())
        entry = torch.arange(count * heads, device=device).view(tile.rows, heads, tile.length)
        entries.append((entry.transpose(1, 2) + tile.start * heads).reshape(-1, heads))
    nowhere = torch.full((1, heads), len(packing.tokens_of_places) * heads, device=device)
    of_places = torch.cat([*entries, nowhere])
    back = of_places.index_select(0, packing.places_of_tokens).flatten()
    return Places(heads, False, torch.cat(into), back)


def _first_places(packing: Packing, heads: int) -> Places:
    device = packing.tokens_of_places.device
    head = torch.arange(heads, device=device)
    into, rows = [], []
    for tile in packing.tiles:
        places = tile.start + torch.arange(tile.rows, device=device) * tile.length
        tokens = packing.tokens_of_places.index_select(0, places)
        into.append((tokens[:, None] * heads + head).flatten())
        rows.append(torch.arange(tile.first, tile.first + tile.texts, device=device))
    entries = torch.cat(into)
    back = torch.full((len(packing.places_of_tokens), heads), len(entries), device=device)
    back[packing.offsets[:-1].long()] = torch.cat(rows)[:, None] * heads + head
    return Places(heads, True, entries, back.flatten())


def lay_tiles(
    lengths: np.ndarray, offsets: np.ndarray, width: int, device: torch.device | str
) -> tuple[tuple[Tile, ...], np.ndarray, np.ndarray]:
    """Split texts, in their order, into tiles.

    Args:
        lengths: int64 `[texts]`; neighbours should have similar lengths.
        offsets: `[texts + 1]`: the start of each text in the packed row, and the end of the last.
        width: length of the packed row.
        device: device of the tiles' padding.

    Returns:
        The tiles, and `tokens_of_places` and `places_of_tokens` of `Packing`.
    """
    tiles: list[Tile] = []
    tokens_of_places: list[np.ndarray] = []
    start = rows_before = 0
    places_of_tokens = np.empty(width, dtype=np.int64)
    for first, count, length in _shapes(lengths):
        texts = slice(first, first + count)
        # The number of rows is a power of two: the shortest text is repeated.
        rows = 1 << (count - 1).bit_length()
        shortest = first + int(lengths[texts].argmin())
        text_of_row = np.full(rows, shortest)
        text_of_row[:count] = np.arange(first, first + count)
        place = np.arange(length)
        is_token = place < lengths[text_of_row][:, None]
        tokens = offsets[text_of_row][:, None] + np.where(is_token, place, 0)
        tokens_of_places.append(tokens.ravel())
        places = start + np.arange(rows * length).reshape(rows, length)
        places_of_tokens[offsets[first] : offsets[first + count]] = places[:count][is_token[:count]]
        padding = None
        if not is_token.all():
            padding = send(torch.from_numpy(~is_token)[:, None, None], device)
        tiles.append(Tile(start, rows_before, count, rows, length, int(lengths[shortest]), padding))
        start, rows_before = start + rows * length, rows_before + rows
    places_of_tokens[offsets[-1] :] = start
    return tuple(tiles), np.concatenate(tokens_of_places), places_of_tokens


def _shapes(lengths: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield each tile's first text, number of texts, and places per row."""
    groups = [
        (first, -(-int(lengths[first : first + _ROWS].max()) // _QUANTUM) * _QUANTUM)
        for first in range(0, len(lengths), _ROWS)
    ]
    for length, same_length in groupby(groups, key=lambda group: group[1]):
        starts = [first for first, _ in same_length]
        while starts:
            count = min(_MAX_GROUPS, 1 << (len(starts).bit_length() - 1))
            first, starts = starts[0], starts[count:]
            yield first, min(count * _ROWS, len(lengths) - first), length

"""Where texts lie in a packed row of tokens, and in the tiles that go through attention.

Texts of about equal length form a tile, a batch of ordinary matrix products. Tiles come in few
shapes, because oneDNN compiles a kernel for every shape it meets: ten times the cost of running it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from pennyweight.engine.batch import send
from pennyweight.engine.masks import MaskPool

__all__ = ["Packing", "Places", "Tile", "lay_tiles"]

_QUANTUM = 16
_ROWS = 16
# As many tiles of one length go through together, at most.
_MOST_TOGETHER = 4


@dataclass(frozen=True, slots=True)
class Tile:
    """Texts of about the same length that go through attention as one batch of products.

    Attributes:
        start: where the tile's places begin among the places of all tiles.
        first: how many rows the tiles before have.
        texts: in the first rows.
        rows: with the empty ones, whose places repeat the shortest text's.
        length: places per row.
        shortest: tokens of the shortest text.
        padding: bool `[rows, 1, 1, length]`, true where a place holds no token; None if all do.
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
    _known: dict[tuple[int, bool], Places] = field(default_factory=dict)

    def places(self, heads: int, *, firsts: bool = False) -> Places:
        """How the tiles of all tokens lie, or of the texts' first tokens alone."""
        if (heads, firsts) not in self._known:
            made = _first_places if firsts else _all_places
            self._known[heads, firsts] = made(self, heads)
        return self._known[heads, firsts]

    @property
    def starts_inside(self) -> bool:
        """Whether the embeddings are left out: the inputs are hidden states."""
        return self.layers is not None and self.layers.start > 0


@dataclass(frozen=True, slots=True)
class Places:
    """Tiles laid out `[rows, heads, length]`, each entry a vector.

    Attributes:
        heads: of each token.
        firsts: whether tiles hold the first token of every row alone, so that length is 1.
        into: int64 `[entries]`, the entry of the tokens (`[tokens, heads]`, flat) at each of the
            tiles' entries.
        back: int64 `[tokens * heads]`, the reverse, and `entries` for what stands in no tile.
    """

    heads: int
    firsts: bool
    into: torch.Tensor
    back: torch.Tensor

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Tokens `[tokens, heads, size]` laid out by tile, `[entries, size]`."""
        return tensor.reshape(-1, tensor.shape[2]).index_select(0, self.into)

    def room(self, like: torch.Tensor) -> torch.Tensor:
        """Room for every entry and, at the end, zeros for what stands in no tile."""
        made = like.new_empty((len(self.into) + 1, like.shape[-1]))
        made[-1] = 0.0
        return made

    def scatter(self, tiles: torch.Tensor) -> torch.Tensor:
        """The reverse of `gather` from a `room`: `[tokens, heads, size]`."""
        return tiles.index_select(0, self.back).view(-1, self.heads, tiles.shape[1])

    def of(self, tiles: torch.Tensor, tile: Tile) -> torch.Tensor:
        """One tile `[rows * heads, length, size]`, a view."""
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
    found = torch.cat(into)
    back = torch.full((len(packing.places_of_tokens), heads), len(found), device=device)
    back[packing.offsets[:-1].long()] = torch.cat(rows)[:, None] * heads + head
    return Places(heads, True, found, back.flatten())


def lay_tiles(
    lengths: np.ndarray, offsets: np.ndarray, filled_up: int, device: torch.device | str
) -> tuple[tuple[Tile, ...], np.ndarray, np.ndarray]:
    """Tiles over texts in their order.

    Args:
        lengths: int64 `[texts]`; neighbours should differ little.
        offsets: `[texts + 1]`, where each text begins in the row of tokens, and the end.
        filled_up: the row's tokens.
        device: of the tiles' padding.

    Returns:
        The tiles; `tokens_of_places` and `places_of_tokens` of `Packing`.
    """
    tiles: list[Tile] = []
    tokens_of_places: list[np.ndarray] = []
    start = done = 0
    places_of_tokens = np.empty(filled_up, dtype=np.int64)
    for first, count, length in _shapes(lengths):
        texts = slice(first, first + count)
        # An odd number of rows is filled up with the shortest text once more.
        rows = 1 << (count - 1).bit_length()
        shortest = first + int(lengths[texts].argmin())
        chosen = np.full(rows, shortest)
        chosen[:count] = np.arange(first, first + count)
        place = np.arange(length)
        is_token = place < lengths[chosen][:, None]
        tokens_of_places.append((offsets[chosen][:, None] + np.where(is_token, place, 0)).ravel())
        places = start + np.arange(rows * length).reshape(rows, length)
        places_of_tokens[offsets[first] : offsets[first + count]] = places[:count][is_token[:count]]
        padding = None
        if not is_token.all():
            padding = send(torch.from_numpy(~is_token)[:, None, None], device)
        tiles.append(Tile(start, done, count, rows, length, int(lengths[shortest]), padding))
        start, done = start + rows * length, done + rows
    places_of_tokens[offsets[-1] :] = start
    return tuple(tiles), np.concatenate(tokens_of_places), places_of_tokens


def _shapes(lengths: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Each tile's first text, number of texts, and places per row."""
    chunks = [
        (first, -(-int(lengths[first : first + _ROWS].max()) // _QUANTUM) * _QUANTUM)
        for first in range(0, len(lengths), _ROWS)
    ]
    for length, found in groupby(chunks, key=lambda chunk: chunk[1]):
        alike = [first for first, _ in found]
        while alike:
            together = min(_MOST_TOGETHER, 1 << (len(alike).bit_length() - 1))
            first, alike = alike[0], alike[together:]
            yield first, min(together * _ROWS, len(lengths) - first), length

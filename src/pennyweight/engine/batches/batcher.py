"""Batchers turn tokenized rows into a model's keyword arguments: packed or padded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pennyweight.engine.batches.packing import pack, read_packed
from pennyweight.engine.batches.rows import TokenizedRows, collate, send
from pennyweight.engine.kernels.families import family_of, frozen_layers, unwrap
from pennyweight.engine.kernels.masks import MaskPool

__all__ = ["Batcher", "PackedBatcher", "PaddedBatcher"]


class Batcher(Protocol):
    """Turns tokenized rows into a model's inputs.

    Attributes:
        device: where the inputs go: "cuda", "mps" or "cpu".
        max_tokens: number of tokens, padding included, that go through the model at once.
        masks: source of the dropout masks; None for torch's own.
    """

    @property
    def device(self) -> str: ...  # noqa: D102 - see the attributes above

    @property
    def max_tokens(self) -> int: ...  # noqa: D102

    @property
    def masks(self) -> MaskPool | None: ...  # noqa: D102

    def inputs(
        self, rows: TokenizedRows, indices: np.ndarray, *, copies: int = 1, is_ordered: bool = False
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Return the model's keyword arguments for some rows, and their indices.

        Args:
            rows: all rows.
            indices: int64 `[texts]`, the rows to use.
            copies: how often all of them are repeated, one copy after another.
            is_ordered: whether the rows stay in this order; otherwise they may be sorted.

        Returns:
            The keyword arguments, and the rows' indices in the order of the model's logits.
        """
        ...

    def pieces(
        self, rows: TokenizedRows, indices: np.ndarray, *, copies: int = 1
    ) -> list[np.ndarray]:
        """Split row indices, sorted by length, into as few even pieces as `max_tokens` allows."""
        ...

    def tokens_in(self, inputs: dict[str, Any]) -> int:
        """Return the number of tokens, over all copies, that inputs hold."""
        ...

    def skippable_layers(self, model: Any) -> int:
        """Return the number of lowest layers that a batch of hidden states may skip."""
        ...


@dataclass(frozen=True, slots=True)
class PackedBatcher:
    """Batches without padding, for a model that reads them; see `attach`.

    Attributes:
        device: see `Batcher`.
        max_tokens: see `Batcher`.
        first_position: the position id of a text's first token.
        masks: see `Batcher`.
    """

    device: str
    max_tokens: int
    first_position: int
    masks: MaskPool | None = None

    @classmethod
    def attach(
        cls, model: Any, *, device: str, max_tokens: int, masks: MaskPool | None = None
    ) -> PackedBatcher:
        """Make a classifier read packed batches, in place, and return the batcher for it.

        Args:
            model: of one of `FAMILIES`, loaded with the attention `PACKED`; with PEFT or without.
            device: see `Batcher`.
            max_tokens: see `Batcher`.
            masks: see `Batcher`.
        """
        classifier = unwrap(model)
        read_packed(classifier)
        first_position = family_of(model).first_position(classifier.config)
        return cls(device, max_tokens, first_position, masks)

    def inputs(
        self, rows: TokenizedRows, indices: np.ndarray, *, copies: int = 1, is_ordered: bool = False
    ) -> tuple[dict[str, Any], np.ndarray]:
        """See `Batcher.inputs`."""
        if not is_ordered:
            indices = indices[np.argsort(rows.lengths[indices], kind="stable")]
        indices = np.tile(indices, copies)
        packed = pack(
            rows,
            indices,
            first_position=self.first_position,
            masks=self.masks,
            device=self.device,
        )
        return packed, indices

    def pieces(
        self, rows: TokenizedRows, indices: np.ndarray, *, copies: int = 1
    ) -> list[np.ndarray]:
        """See `Batcher.pieces`."""
        return _even_pieces(rows, indices, self.max_tokens // copies, _total)

    def tokens_in(self, inputs: dict[str, Any]) -> int:
        """Return the number of tokens of all texts, without what fills up the packed row."""
        return int(inputs["packing"].tokens)

    def skippable_layers(self, model: Any) -> int:
        """Return the number of lowest layers before the first trained parameter."""
        return frozen_layers(model)


@dataclass(frozen=True, slots=True)
class PaddedBatcher:
    """Batches of rows padded to the longest of them.

    Attributes:
        device: see `Batcher`.
        max_tokens: see `Batcher`.
        masks: see `Batcher`.
    """

    device: str
    max_tokens: int
    masks: MaskPool | None = None

    def inputs(
        self, rows: TokenizedRows, indices: np.ndarray, *, copies: int = 1, is_ordered: bool = False
    ) -> tuple[dict[str, Any], np.ndarray]:
        """See `Batcher.inputs`."""
        indices = np.tile(indices, copies)
        padded = collate(rows, indices)
        return {name: send(tensor, self.device) for name, tensor in padded.items()}, indices

    def pieces(
        self, rows: TokenizedRows, indices: np.ndarray, *, copies: int = 1
    ) -> list[np.ndarray]:
        """See `Batcher.pieces`."""
        return _even_pieces(rows, indices, self.max_tokens // copies, _area)

    def tokens_in(self, inputs: dict[str, Any]) -> int:
        """Return the number of tokens with padding."""
        return int(inputs["input_ids"].numel())

    def skippable_layers(self, model: Any) -> int:
        """Return 0: padded batches run through all layers."""
        return 0


def _total(lengths: np.ndarray) -> int:
    return int(lengths.sum())


def _area(lengths: np.ndarray) -> int:
    return int(lengths.max()) * len(lengths)


def _even_pieces(
    rows: TokenizedRows, indices: np.ndarray, limit: int, cost: Callable[[np.ndarray], int]
) -> list[np.ndarray]:
    """Split indices, sorted by length, into the fewest even pieces whose cost is within a limit.

    A single row may exceed the limit.
    """
    if len(indices) == 0:
        return [indices]
    indices = indices[np.argsort(rows.lengths[indices], kind="stable")]
    lengths = rows.lengths[indices]
    for count in range(max(1, -(-int(lengths.sum()) // limit)), len(indices)):
        pieces = np.array_split(np.arange(len(indices)), count)
        if all(cost(lengths[piece]) <= limit for piece in pieces):
            return [indices[piece] for piece in pieces]
    return [indices[position : position + 1] for position in range(len(indices))]

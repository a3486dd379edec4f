"""Dropout masks: the only module that draws them.

On a CPU, torch draws a mask number by number, which at the size of RoBERTa-base takes longer than
the matrix product before it. `MaskPool` therefore draws one large pool of scaled zeros and ones
every few steps, and a mask is a window of that pool at a random position. A window is a view, so
applying it costs one multiplication forward and one backward.

Pooled masks are not independent. Consecutive rows (tokens) of a mask start `_SHIFT` elements apart
in the pool, so rows that are longer than that overlap: a token shares most of its bits with its
neighbours, moved by `_SHIFT` features for each token between them. Masks drawn between two
refreshes of the pool can share bits too. Every single element still has the right keep
probability, independent of its input. `MaskPool(independent=True)` draws every mask anew, at
torch's cost; `benchmarks/dropout_masks.py` compares the accuracy of the two.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "MaskPool",
    "PooledDropout",
    "dropout_mask",
    "fuse_dropout_and_residual",
    "pool_of",
    "use_pooled_dropout",
]

_POOL = 1 << 20
# Consecutive rows of a mask start this many elements apart in the pool: a multiple of a cache line.
_SHIFT = 64
# Rows of a mask have at least this many elements; shorter trailing dimensions are merged.
_ROW = 256


class MaskPool:
    """Scaled dropout masks that depend only on seed, step, process and the order of the calls.

    The keep probability is 1 / scale, where scale is 1 / (1 - p) rounded to the masks' dtype. The
    expectation of a mask is therefore exact in bfloat16 too (p = 0.1 becomes 0.0986).

    Args:
        steps_per_draw: number of training steps after which the pool is drawn anew.
        independent: draw every mask anew instead of cutting it out of the pool.
    """

    def __init__(self, *, steps_per_draw: int = 16, independent: bool = False) -> None:
        self._steps_per_draw = steps_per_draw
        self._seed = 0
        self._generation = 0
        self._positions = random.Random(0)  # noqa: S311 - positions in a pool, no secrets
        self._pools: dict[tuple[float, torch.dtype], torch.Tensor] = {}
        self._source = np.random.Generator(np.random.SFC64(0)) if independent else None

    def begin_step(self, *, seed: int, step: int, process: int = 0) -> None:
        """Seed the masks of a training step."""
        if self._source is not None:
            self._source = np.random.Generator(np.random.SFC64([seed, step, process]))
        self._positions.seed(f"{seed}|{step}|{process}")
        generation = step // self._steps_per_draw
        if (seed, generation) != (self._seed, self._generation):
            self._seed, self._generation = seed, generation
            self._pools = {
                key: torch.cat(self._blocks(0, len(pool), *key))
                for key, pool in self._pools.items()
            }

    def mask(
        self, shape: tuple[int, ...], *, probability: float, dtype: torch.dtype
    ) -> torch.Tensor:
        """Return a mask of this shape: 0 where dropped, the scale elsewhere.

        The result may be a view of the pool: do not write to it.
        """
        if self._source is not None:
            return _draw(self._source, math.prod(shape), probability, dtype).view(shape)
        rows, row = _as_rows(shape)
        needed = (rows - 1) * _SHIFT + row
        # What larger masks have been drawn before does not matter: a run that was resumed has none.
        length = max(_POOL, 1 << (2 * needed - 1).bit_length())
        pool = self._pool_of(length, probability, dtype)
        start = self._positions.randrange((length - needed) // _SHIFT + 1) * _SHIFT
        window = pool.as_strided((rows, row), (_SHIFT, 1), start)
        return window if len(shape) == 2 and shape[1] == row else _unflatten(window, shape)

    def _pool_of(self, length: int, probability: float, dtype: torch.dtype) -> torch.Tensor:
        """Return a pool of at least this length, a multiple of `_POOL`; it grows where needed."""
        pool = self._pools.get((probability, dtype))
        drawn = 0 if pool is None else len(pool)
        if pool is None or drawn < length:
            parts = [] if pool is None else [pool]
            pool = torch.cat([*parts, *self._blocks(drawn, length, probability, dtype)])
            self._pools[probability, dtype] = pool
        return pool

    def _blocks(
        self, start: int, end: int, probability: float, dtype: torch.dtype
    ) -> list[torch.Tensor]:
        """Draw a part of a pool, in blocks, so that a longer pool begins like a shorter one."""
        seeds = [self._seed, self._generation, round(probability * 1e6)]
        sources = (
            np.random.Generator(np.random.SFC64([*seeds, block_end]))
            for block_end in range(start + _POOL, end + 1, _POOL)
        )
        return [_draw(source, _POOL, probability, dtype) for source in sources]


def _draw(
    source: np.random.Generator, length: int, probability: float, dtype: torch.dtype
) -> torch.Tensor:
    """Draw independent mask elements, `[length]`."""
    scale = float(torch.tensor(1.0 / (1.0 - probability), dtype=dtype))
    draws = np.frombuffer(source.bytes(2 * length), dtype=np.uint16)
    kept = torch.from_numpy(draws < round(65536 / scale))
    return kept.to(dtype).mul_(scale)


def dropout_mask(like: torch.Tensor, probability: float, pool: MaskPool | None) -> torch.Tensor:
    """Return a scaled dropout mask with the shape and dtype of `like`.

    Args:
        like: the tensor that the mask will be multiplied with.
        probability: probability that an element is dropped, in (0, 1).
        pool: where the mask comes from; None draws it with torch on the tensor's device.
    """
    if pool is None:
        return functional.dropout(torch.ones_like(like), probability)
    return pool.mask(tuple(like.shape), probability=probability, dtype=like.dtype)


def pool_of(dropout: nn.Module) -> MaskPool | None:
    """Return the pool of a `PooledDropout`, and None for any other module."""
    return dropout.pool if isinstance(dropout, PooledDropout) else None


class PooledDropout(nn.Dropout):
    """`nn.Dropout` with masks from a `MaskPool`.

    Args:
        p: probability that an element is dropped.
        pool: where masks come from.
    """

    def __init__(self, p: float, pool: MaskPool) -> None:
        super().__init__(p)
        self.pool = pool

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """Return the input, of any shape, with dropout applied in training mode."""
        if not self.training or self.p == 0.0:
            return input
        return input * dropout_mask(input, self.p, self.pool)


def _as_rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return a shape as (rows, elements per row), with at least `_ROW` elements if there are."""
    row, axis = 1, len(shape)
    while axis > 0 and row < _ROW:
        axis -= 1
        row *= shape[axis]
    return math.prod(shape[:axis]), row


def _unflatten(window: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a view of the window `[rows, row]` with the requested shape."""
    row, axis = 1, len(shape)
    while axis > 0 and row < window.shape[1]:
        axis -= 1
        row *= shape[axis]
    strides: list[int] = []
    step = 1
    for size in reversed(shape[axis:]):
        strides.insert(0, step)
        step *= size
    step = _SHIFT
    for size in reversed(shape[:axis]):
        strides.insert(0, step)
        step *= size
    return window.as_strided(shape, strides, window.storage_offset())


def use_pooled_dropout(model: nn.Module, pool: MaskPool) -> None:
    """Replace every `nn.Dropout` of a model on the CPU by a `PooledDropout`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                replacement = PooledDropout(child.p, pool)
                replacement.train(child.training)
                module._modules[name] = replacement


def fuse_dropout_and_residual(module: nn.Module) -> None:
    """Fuse dropout and the residual connection after it into one operation.

    Where the dropout is not pooled, the module keeps its own forward pass.

    Args:
        module: computes LayerNorm(dropout(dense(x)) + residual) of `(x, residual)` with submodules
            of these names, as the output blocks of BERT do.
    """
    block: Any = module
    unfused = block.forward

    def forward(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        dropout = block.dropout
        pool = pool_of(dropout)
        if pool is None or not dropout.training or dropout.p == 0.0:
            out: torch.Tensor = unfused(x, residual)
            return out
        x = block.dense(x)
        mask = dropout_mask(x, dropout.p, pool)
        normed: torch.Tensor = block.LayerNorm(torch.addcmul(residual, x, mask))
        return normed

    block.forward = forward

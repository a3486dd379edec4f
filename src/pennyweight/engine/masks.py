"""Dropout masks on CPU at the price of one multiplication.

torch draws a CPU mask number by number: at RoBERTa-base's size that takes longer than the matrix
product it follows. Here masks are windows, at random places, of a pool of scaled zeros and ones
which is drawn anew every few steps. A window is a view: applying it is one multiplication forward
and one backward, and nothing is stored for the backward pass.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["MaskPool", "PooledDropout", "drop_and_add_at_once", "use_pooled_dropout"]

_POOL = 1 << 20
# Rows of a mask begin this many elements apart in the pool: a multiple of a cache line.
_SHIFT = 64
# A mask's rows are at least this long; shorter trailing dimensions are taken together.
_ROW = 256


class MaskPool:
    """Scaled dropout masks for one step after another; the same for the same seed and step.

    The share that is kept is 1 / scale, where scale is 1 / (1 - p) rounded to the masks' dtype, so
    that the expectation is exact in bfloat16 too (p = 0.1 becomes 0.0986).
    """

    def __init__(self, *, steps_per_draw: int = 16) -> None:
        self._steps_per_draw = steps_per_draw
        self._seed = 0
        self._generation = 0
        self._places = random.Random(0)  # noqa: S311 - places in a pool, no secrets
        self._pools: dict[tuple[float, torch.dtype], torch.Tensor] = {}

    def begin_step(self, *, seed: int, step: int, process: int = 0) -> None:
        """Settle what the masks of this step will be."""
        self._places.seed(f"{seed}|{step}|{process}")
        generation = step // self._steps_per_draw
        if (seed, generation) != (self._seed, self._generation):
            self._seed, self._generation = seed, generation
            self._pools = {key: self._draw(len(pool), *key) for key, pool in self._pools.items()}

    def mask(
        self, shape: tuple[int, ...], *, probability: float, dtype: torch.dtype
    ) -> torch.Tensor:
        """A mask of that shape: 0 where dropped, the scale elsewhere; a view of the pool."""
        rows, row = _as_rows(shape)
        needed = (rows - 1) * _SHIFT + row
        pool = self._pools.get((probability, dtype))
        if pool is None or len(pool) < 2 * needed:
            length = max(_POOL, 1 << (2 * needed - 1).bit_length())
            pool = self._draw(length, probability, dtype)
            self._pools[probability, dtype] = pool
        start = self._places.randrange((len(pool) - needed) // _SHIFT + 1) * _SHIFT
        window = pool.as_strided((rows, row), (_SHIFT, 1), start)
        return window if len(shape) == 2 and shape[1] == row else _unflatten(window, shape)

    def _draw(self, length: int, probability: float, dtype: torch.dtype) -> torch.Tensor:
        scale = float(torch.tensor(1.0 / (1.0 - probability), dtype=dtype))
        source = np.random.Generator(
            np.random.SFC64([self._seed, self._generation, round(probability * 1e6), length])
        )
        draws = np.frombuffer(source.bytes(2 * length), dtype=np.uint16)
        kept = torch.from_numpy(draws < round(65536 / scale))
        return kept.to(dtype).mul_(scale)


class PooledDropout(nn.Dropout):
    """`nn.Dropout` whose masks come from a pool."""

    def __init__(self, p: float, pool: MaskPool) -> None:
        super().__init__(p)
        self.pool = pool

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """The input, of any shape, with a share p of its elements set to 0 while training."""
        if not self.training or self.p == 0.0:
            return input
        mask = self.pool.mask(tuple(input.shape), probability=self.p, dtype=input.dtype)
        return input * mask


def _as_rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """A shape as rows of at least `_ROW` elements, where it has as many."""
    row, at = 1, len(shape)
    while at > 0 and row < _ROW:
        at -= 1
        row *= shape[at]
    return math.prod(shape[:at]), row


def _unflatten(window: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The window `[rows, row]` under the shape it was asked for, still a view."""
    taken, at = 1, len(shape)
    while at > 0 and taken < window.shape[1]:
        at -= 1
        taken *= shape[at]
    strides: list[int] = []
    step = 1
    for size in reversed(shape[at:]):
        strides.insert(0, step)
        step *= size
    step = _SHIFT
    for size in reversed(shape[:at]):
        strides.insert(0, step)
        step *= size
    return window.as_strided(shape, strides, window.storage_offset())


def use_pooled_dropout(model: nn.Module, pool: MaskPool) -> None:
    """Put pooled dropout in the place of every `nn.Dropout` of a model on CPU."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                replacement = PooledDropout(child.p, pool)
                replacement.train(child.training)
                module._modules[name] = replacement


def drop_and_add_at_once(module: nn.Module) -> None:
    """Save a pass over the tokens where dropout is followed by a residual connection.

    Args:
        module: computes LayerNorm(dropout(dense(x)) + residual) of `(x, residual)`, with
            submodules of these names, as the outputs of BERT's blocks do; its dropout is pooled.
    """
    block: Any = module
    alone = block.forward

    def forward(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        dropout = block.dropout
        if not dropout.training or dropout.p == 0.0:
            out: torch.Tensor = alone(x, residual)
            return out
        x = block.dense(x)
        mask = dropout.pool.mask(tuple(x.shape), probability=dropout.p, dtype=x.dtype)
        normed: torch.Tensor = block.LayerNorm(torch.addcmul(residual, x, mask))
        return normed

    block.forward = forward

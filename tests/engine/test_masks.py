"""Pooled dropout: the right share, the right scale, the same for the same seed and step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pennyweight.engine.masks import (
    MaskPool,
    PooledDropout,
    drop_and_add_at_once,
    use_pooled_dropout,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_the_expectation_of_a_mask_is_one(dtype: torch.dtype, probability: float) -> None:
    pool = MaskPool()
    pool.begin_step(seed=1, step=1)
    mask = pool.mask((1000, 400), probability=probability, dtype=dtype)
    values = mask.float().unique()
    assert values[0] == 0.0
    assert len(values) == 2
    assert abs(float(values[1]) - 1 / (1 - probability)) < 0.01
    assert abs(float(mask.float().mean()) - 1.0) < 0.01


@given(shape=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_a_mask_has_the_shape_that_was_asked_for(shape: list[int]) -> None:
    pool = MaskPool()
    pool.begin_step(seed=1, step=1)
    mask = pool.mask(tuple(shape), probability=0.5, dtype=torch.float32)
    assert list(mask.shape) == shape
    assert set(mask.unique().tolist()) <= {0.0, 2.0}


def test_masks_follow_from_seed_step_and_process() -> None:
    def first_of(**step: int) -> torch.Tensor:
        pool = MaskPool()
        pool.begin_step(**step)  # type: ignore[arg-type]
        return pool.mask((64, 256), probability=0.5, dtype=torch.float32).clone()

    again = first_of(seed=1, step=5, process=0)
    assert torch.equal(first_of(seed=1, step=5, process=0), again)
    for other in (
        {"seed": 2, "step": 5},
        {"seed": 1, "step": 6},
        {"seed": 1, "step": 5, "process": 1},
    ):
        assert not torch.equal(first_of(**other), again)


def test_two_masks_of_a_step_are_not_the_same() -> None:
    pool = MaskPool()
    pool.begin_step(seed=1, step=1)
    one, other = (pool.mask((64, 256), probability=0.5, dtype=torch.float32) for _ in range(2))
    agreement = float((one == other).float().mean())
    assert abs(agreement - 0.5) < 0.05


def test_pooled_dropout_stands_in_for_torch_s() -> None:
    model = nn.Sequential(nn.Linear(300, 300), nn.Dropout(0.25))
    pool = MaskPool()
    use_pooled_dropout(model, pool)
    dropout = model[1]
    assert isinstance(dropout, PooledDropout)
    pool.begin_step(seed=1, step=1)
    x = torch.ones(50, 300, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    # The gradient passes where the value did, with the same scale.
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    model.eval()
    assert dropout(x) is x


class _Output(nn.Module):
    def __init__(self, pool: MaskPool) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(6, 8), nn.LayerNorm(8)
        self.dropout = PooledDropout(0.5, pool)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return normed


@pytest.mark.parametrize("training", [True, False])
def test_dropping_and_adding_at_once_changes_nothing(training: bool) -> None:
    pool = MaskPool()
    block = _Output(pool).train(training)
    x, residual = torch.randn(300, 6), torch.randn(300, 8)
    found = []
    for at_once in (False, True):
        if at_once:
            drop_and_add_at_once(block)
        given = [tensor.clone().requires_grad_() for tensor in (x, residual)]
        pool.begin_step(seed=0, step=0)
        y = block(*given)
        y.pow(3).sum().backward()
        found.append([y, *(tensor.grad for tensor in given)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)

"""Dropout masks: keep probability, scale, seeds, and which bits pooled masks share."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pennyweight.engine.kernels.masks import (
    MaskPool,
    PooledDropout,
    dropout_mask,
    fuse_dropout_and_residual,
    pool_of,
    use_pooled_dropout,
)

KINDS = pytest.mark.parametrize("independent", [False, True])


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_the_expectation_of_a_mask_is_one(
    independent: bool, dtype: torch.dtype, probability: float
) -> None:
    pool = MaskPool(independent=independent)
    pool.begin_step(seed=1, step=1)
    mask = pool.mask((1000, 400), probability=probability, dtype=dtype)
    values = mask.float().unique()
    assert values[0] == 0.0
    assert len(values) == 2
    assert abs(float(values[1]) - 1 / (1 - probability)) < 0.01
    assert abs(float(mask.float().mean()) - 1.0) < 0.01


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4).filter(
        lambda shape: math.prod(shape) < 200_000
    ),
    independent=st.booleans(),
)
def test_a_mask_has_the_requested_shape(shape: list[int], independent: bool) -> None:
    pool = MaskPool(independent=independent)
    pool.begin_step(seed=1, step=1)
    mask = pool.mask(tuple(shape), probability=0.5, dtype=torch.float32)
    assert list(mask.shape) == shape
    assert set(mask.unique().tolist()) <= {0.0, 2.0}


@KINDS
def test_masks_follow_from_seed_step_and_process(independent: bool) -> None:
    def first_of(**step: int) -> torch.Tensor:
        pool = MaskPool(independent=independent)
        pool.begin_step(seed=9, step=9)
        pool.mask((8, 8), probability=0.5, dtype=torch.float32)
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


@KINDS
def test_a_mask_does_not_depend_on_larger_ones_drawn_before(independent: bool) -> None:
    def last(*larger: int) -> torch.Tensor:
        pool = MaskPool(independent=independent)
        for step in (1, 17):
            pool.begin_step(seed=1, step=step)
            for rows in larger if step == 1 else ():
                pool.mask((rows, 384), probability=0.1, dtype=torch.float32)
        return pool.mask((64, 384), probability=0.1, dtype=torch.float32).clone()

    # 9,000 rows need a pool of more than 2 ** 20 elements.
    assert torch.equal(last(9000), last())
    assert torch.equal(last(64, 9000), last())


@KINDS
def test_two_masks_of_a_step_are_not_the_same(independent: bool) -> None:
    pool = MaskPool(independent=independent)
    pool.begin_step(seed=1, step=1)
    one, other = (pool.mask((64, 256), probability=0.5, dtype=torch.float32) for _ in range(2))
    agreement = float((one == other).float().mean())
    assert abs(agreement - 0.5) < 0.05


def _agreement(mask: torch.Tensor) -> float:
    """Share of equal bits in each token and the next, moved by 64 features."""
    return float((mask[1:, :-64] == mask[:-1, 64:]).float().mean())


def test_pooled_tokens_share_bits_and_independent_ones_do_not() -> None:
    pooled, independent = MaskPool(), MaskPool(independent=True)
    for pool in (pooled, independent):
        pool.begin_step(seed=1, step=1)
    shape, options = (200, 768), {"probability": 0.5, "dtype": torch.float32}
    assert _agreement(pooled.mask(shape, **options)) == 1.0  # type: ignore[arg-type]
    assert abs(_agreement(independent.mask(shape, **options)) - 0.5) < 0.01  # type: ignore[arg-type]


def test_both_kinds_of_mask_have_the_same_scale() -> None:
    scales = []
    for is_independent in (False, True):
        pool = MaskPool(independent=is_independent)
        pool.begin_step(seed=1, step=1)
        scales.append(float(pool.mask((900,), probability=0.1, dtype=torch.bfloat16).max()))
    assert scales[0] == scales[1] == float(torch.tensor(1 / 0.9).bfloat16())


def test_a_mask_without_a_pool_is_torch_s_own() -> None:
    x = torch.randn(300, 20, dtype=torch.float64)
    torch.manual_seed(0)
    mask = dropout_mask(x, 0.25, None)
    torch.manual_seed(0)
    torch.testing.assert_close(x * mask, nn.functional.dropout(x, 0.25))


def test_pooled_dropout_stands_in_for_torch_s() -> None:
    model = nn.Sequential(nn.Linear(300, 300), nn.Dropout(0.25))
    pool = MaskPool()
    use_pooled_dropout(model, pool)
    dropout = model[1]
    assert isinstance(dropout, PooledDropout)
    assert pool_of(dropout) is pool
    assert pool_of(nn.Dropout(0.25)) is None
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
    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(6, 8), nn.LayerNorm(8)
        self.dropout = dropout

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return normed


@pytest.mark.parametrize("training", [True, False])
def test_fusing_dropout_and_residual_changes_nothing(training: bool) -> None:
    pool = MaskPool()
    block = _Output(PooledDropout(0.5, pool)).train(training)
    x, residual = torch.randn(300, 6), torch.randn(300, 8)
    results = []
    for is_fused in (False, True):
        if is_fused:
            fuse_dropout_and_residual(block)
        inputs = [tensor.clone().requires_grad_() for tensor in (x, residual)]
        pool.begin_step(seed=0, step=0)
        y = block(*inputs)
        y.pow(3).sum().backward()
        results.append([y, *(tensor.grad for tensor in inputs)])
    for unfused, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, unfused)


def test_a_residual_is_not_fused_with_dropout_that_is_not_pooled() -> None:
    block = _Output(nn.Dropout(0.5)).train()
    x, residual = torch.randn(30, 6), torch.randn(30, 8)
    torch.manual_seed(0)
    unfused = block(x, residual)
    fuse_dropout_and_residual(block)
    torch.manual_seed(0)
    assert torch.equal(block(x, residual), unfused)

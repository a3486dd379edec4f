"""Packed attention with the kernel of a GPU, for which a stand-in keeps to its contract."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.families import rows_of
from pennyweight.engine.batches.packing import pack
from pennyweight.engine.kernels.attention import (
    AttentionOptions,
    _TiledAttention,
    _variable_length,
)


class _Kernel(torch.autograd.Function):
    """Variable-length attention that leaves tokens outside of all texts as they are in memory."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *given: Any) -> Any:
        offsets, scale, window = given
        ctx.save_for_backward(q, k, v)
        ctx.given = given
        out = torch.full_like(q, torch.nan)
        for start, end in pairwise(offsets):
            out[start:end] = _attend(q[start:end], k[start:end], v[start:end], scale, window)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        offsets, scale, window = ctx.given
        results = [torch.full_like(tensor, torch.nan) for tensor in ctx.saved_tensors]
        for start, end in pairwise(offsets):
            parts = [tensor[start:end].detach().requires_grad_() for tensor in ctx.saved_tensors]
            with torch.enable_grad():
                out = _attend(*parts, scale, window)
            for result, gradient in zip(
                results, torch.autograd.grad(out, parts, gradients[0][start:end]), strict=True
            ):
                result[start:end] = gradient
        return *results, None, None, None


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window: int
) -> torch.Tensor:
    place = torch.arange(len(q))
    mask = None if window < 0 else (place[:, None] - place).abs() <= window
    q, k, v = (tensor.transpose(0, 1) for tensor in (q, k, v))
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.transpose(0, 1)


def _varlen_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_offsets: torch.Tensor,
    key_offsets: torch.Tensor,
    *longest: int,
    scale: float,
    window_size: tuple[int, int],
) -> torch.Tensor:
    assert query_offsets is key_offsets
    assert longest == (int(query_offsets.diff().max()),) * 2
    assert window_size[0] == window_size[1]
    out = _Kernel.apply(q, k, v, query_offsets.tolist(), scale, window_size[0])  # type: ignore[no-untyped-call]
    assert isinstance(out, torch.Tensor)
    return out


@pytest.mark.parametrize("sliding_window", [None, 4])
def test_the_gpus_kernel_gives_outputs_and_gradients_of_tiles_and_nothing_after_the_last_text(
    sliding_window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", _varlen_attn)
    packing = pack(rows_of(21), np.arange(21), first_position=0, masks=None, device="cpu")[
        "packing"
    ]
    width = len(packing.places_of_tokens)
    assert packing.tokens < width
    options = AttentionOptions(packing, scale=0.3, sliding_window=sliding_window)
    torch.manual_seed(0)
    tensors = [torch.randn(width, 2, 8) for _ in range(4)]
    results = []
    for attend in (
        lambda q, k, v: _variable_length(q, k, v, options),
        lambda q, k, v: _TiledAttention.apply(q, k, v, None, options),  # type: ignore[no-untyped-call]
    ):
        inputs = [tensor.clone().requires_grad_() for tensor in tensors[:3]]
        out = attend(*inputs)
        results.append([out, *torch.autograd.grad(out, inputs, tensors[3])])
    for of_kernel, of_tiles in zip(*results, strict=True):
        torch.testing.assert_close(of_kernel, of_tiles, atol=1e-5, rtol=1e-5)
        assert not of_kernel[packing.tokens :].any()

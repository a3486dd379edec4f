"""The frozen encoder in half precision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from engine.families import CONFIGS, adapted, rows_of
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels import frozen
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.frozen import affine, input_gradient, use_fused_bias
from pennyweight.engine.kernels.prepare import prepare_model


@pytest.mark.parametrize("family", CONFIGS)
def test_frozen_weights_are_bf16_and_trained_ones_and_the_head_float32(family: str) -> None:
    model = adapted(family, attention=PACKED)
    rows, indices = rows_of(9), np.arange(9)
    exact = prepare_model(model, Compute("cpu", "fp32", PACKED, ""), max_tokens=512)
    with torch.no_grad():
        model.eval()
        expected = model(**exact.inputs(rows, indices)[0]).logits
    half = adapted(family, attention=PACKED)
    batcher = prepare_model(half, Compute("cpu", "bf16", PACKED, ""), max_tokens=512)
    for name, parameter in half.named_parameters():
        is_matrix_of_encoder = "layer" in name and not parameter.requires_grad
        expected_dtype = torch.bfloat16 if is_matrix_of_encoder else None
        if parameter.requires_grad or "classifier" in name:
            expected_dtype = torch.float32
        assert expected_dtype is None or parameter.dtype == expected_dtype, name
    with torch.no_grad():
        logits = half.eval()(**batcher.inputs(rows, indices)[0]).logits
    assert logits.dtype == torch.float32
    assert float((logits - expected).abs().max()) < 0.1 * float(expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_fused_bias_is_a_linear_layer_s(dtype: torch.dtype, has_bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(24, 40, bias=has_bias).to(dtype).requires_grad_(False)
    fused = copy.deepcopy(plain)
    use_fused_bias(nn.Sequential(fused))
    x = torch.randn(3, 7, 24, dtype=dtype)
    results = []
    for layer in (plain, fused):
        inputs = x.clone().requires_grad_()
        out = layer(inputs)
        out.square().sum().backward()
        results.append((out.detach(), inputs.grad))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_product_in_blocks_is_the_whole_product(
    has_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "_is_measured_processor", lambda: True)
    torch.manual_seed(0)
    x, dy, sum_so_far = torch.randn(3, 900, 768).bfloat16().unbind()
    weight = torch.randn(768, 768).bfloat16() / 28
    bias = torch.randn(768).bfloat16() if has_bias else None
    assert len(frozen._row_blocks(x, columns=768)) == 2
    for left, columns in ((x[:640], 768), (x, 384), (x.float(), 768)):
        assert frozen._row_blocks(left, columns=columns) == []
    wide = None if bias is None else bias.float()
    expected = nn.functional.linear(x.float(), weight.float(), wide)
    torch.testing.assert_close(affine(x, weight, bias).float(), expected, rtol=0.02, atol=0.02)
    expected = dy.float() @ weight.float()
    torch.testing.assert_close(input_gradient(dy, weight).float(), expected, rtol=0.02, atol=0.02)
    expected += sum_so_far.float()
    total = input_gradient(dy, weight, add_to=sum_so_far.clone())
    torch.testing.assert_close(total.float(), expected, rtol=0.02, atol=0.03)


def test_products_are_in_blocks_only_on_the_processor_where_that_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.zeros(900, 8, dtype=torch.bfloat16)

    def blocks(*, amx: bool | None, threads: int) -> int:
        frozen._has_amx.cache_clear()
        if amx is None:
            monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
        else:
            monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return len(frozen._row_blocks(x, columns=768))

    try:
        assert blocks(amx=True, threads=2) == 2
        assert blocks(amx=True, threads=1) == 0
        assert blocks(amx=True, threads=8) == 0
        assert blocks(amx=False, threads=2) == 0
        assert blocks(amx=None, threads=2) == 0
    finally:
        frozen._has_amx.cache_clear()


def test_a_trained_bias_keeps_its_gradient() -> None:
    layer = nn.Linear(4, 4).bfloat16()
    layer.weight.requires_grad_(False)
    use_fused_bias(layer)
    layer(torch.randn(2, 4, dtype=torch.bfloat16)).sum().backward()
    assert layer.bias.grad is not None

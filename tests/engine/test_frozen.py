"""The frozen encoder in half precision, and torch.compile on its feed-forward blocks."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from engine.families import CONFIGS, adapted, rows_of
from pennyweight.engine import compiled, frozen
from pennyweight.engine.attention import PACKED
from pennyweight.engine.compiled import choose_compile, compile_blocks
from pennyweight.engine.device import Compute, Precision
from pennyweight.engine.feed import make_ready
from pennyweight.engine.frozen import affine, through, use_fused_bias
from pennyweight.errors import TrainingError


@pytest.mark.parametrize("family", CONFIGS)
def test_frozen_weights_are_bf16_and_trained_ones_and_the_head_float32(family: str) -> None:
    model = adapted(family, attention=PACKED)
    tokens, rows = rows_of(9), np.arange(9)
    exact = make_ready(model, Compute("cpu", "fp32", PACKED, ""), most_tokens=512)
    with torch.no_grad():
        model.eval()
        expected = model(**exact.inputs(tokens, rows)[0]).logits
    half = adapted(family, attention=PACKED)
    feed = make_ready(half, Compute("cpu", "bf16", PACKED, ""), most_tokens=512)
    for name, parameter in half.named_parameters():
        is_matrix_of_encoder = "layer" in name and not parameter.requires_grad
        wanted = torch.bfloat16 if is_matrix_of_encoder else None
        if parameter.requires_grad or "classifier" in name:
            wanted = torch.float32
        assert wanted is None or parameter.dtype == wanted, name
    with torch.no_grad():
        logits = half.eval()(**feed.inputs(tokens, rows)[0]).logits
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
    found = []
    for layer in (plain, fused):
        given = x.clone().requires_grad_()
        out = layer(given)
        out.square().sum().backward()
        found.append((out.detach(), given.grad))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_product_in_parts_is_the_whole_product(has_bias: bool) -> None:
    torch.manual_seed(0)
    x, dy, sum_so_far = torch.randn(3, 900, 768).bfloat16().unbind()
    weight = torch.randn(768, 768).bfloat16() / 28
    bias = torch.randn(768).bfloat16() if has_bias else None
    assert len(frozen._parts_for_all_cores(x, columns=768)) == 2
    for left, columns in ((x[:640], 768), (x, 384), (x.float(), 768)):
        assert frozen._parts_for_all_cores(left, columns=columns) == []
    wide = None if bias is None else bias.float()
    expected = nn.functional.linear(x.float(), weight.float(), wide)
    torch.testing.assert_close(affine(x, weight, bias).float(), expected, rtol=0.02, atol=0.02)
    expected = dy.float() @ weight.float()
    torch.testing.assert_close(through(dy, weight).float(), expected, rtol=0.02, atol=0.02)
    expected += sum_so_far.float()
    found = through(dy, weight, onto=sum_so_far.clone())
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.03)


def test_a_trained_bias_keeps_its_gradient() -> None:
    layer = nn.Linear(4, 4).bfloat16()
    layer.weight.requires_grad_(False)
    use_fused_bias(layer)
    layer(torch.randn(2, 4, dtype=torch.bfloat16)).sum().backward()
    assert layer.bias.grad is not None


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["roberta", "modernbert-cls"])
def test_compiled_blocks_compute_the_same(family: str, precision: Precision) -> None:
    # Adapters on the attention alone, so that the feed-forward blocks are frozen.
    rows = np.arange(9)
    tokens = rows_of(9)
    found = []
    for is_compiled in (False, True):
        model = adapted(family, attention=PACKED, targets=["query", "Wqkv"])
        feed = make_ready(
            model,
            Compute("cpu", precision, PACKED, ""),
            most_tokens=512,
            compiled=is_compiled,
        )
        model.train()
        logits = model(**feed.inputs(tokens, rows)[0]).logits
        logits.pow(2).sum().backward()
        found.append([logits, *(p.grad for p in model.parameters() if p.requires_grad)])
    for one, other in zip(*found, strict=True):
        close = 1e-4 if precision == "fp32" else 0.1
        torch.testing.assert_close(
            one, other, atol=close * float(one.detach().abs().max()), rtol=close
        )


def test_blocks_with_an_adapter_are_not_compiled() -> None:
    assert compile_blocks(adapted("roberta", attention=PACKED).get_base_model()) == 0
    some = adapted("roberta", attention=PACKED, targets=["query"])
    # Two blocks in each of three layers.
    assert compile_blocks(some.get_base_model()) == 6


def test_compile_is_for_gpus_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_compile("off", device="cuda") == (False, "")
    assert choose_compile("auto", device="cpu") == (False, "")
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    with pytest.raises(TrainingError, match=r"train\.compile: .* C\+\+ compiler"):
        choose_compile("on", device="cpu")
    monkeypatch.setattr(compiled.shutil, "which", shutil.which)

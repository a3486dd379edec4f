"""Device, precision and attention: what is chosen, what is refused, and what is logged."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, DebertaConfig, DistilBertConfig

from pennyweight.engine import device
from pennyweight.engine.device import choose_compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.errors import TrainingError


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(("has_fast_bf16", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_cpu_uses_bf16_where_it_is_fast(
    has_fast_bf16: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_has_fast_bf16", lambda: has_fast_bf16)
    compute = choose_compute(precision="auto", attention="auto", config=BertConfig())
    assert (compute.device, compute.precision, compute.attention) == ("cpu", precision, PACKED)
    assert compute.why == f"CPU, {precision} (chosen automatically), packed batches"
    assert not compute.autocast
    both = choose_compute(precision="bf16", attention="eager", config=BertConfig(), trains_all=True)
    assert both.autocast
    assert both.why == (
        "CPU, bf16 (set by train.precision), padded batches with eager attention "
        "(set by base.attention)"
    )


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_uses_half_precision(
    has_bf16: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    compute = choose_compute(precision="auto", attention="auto")
    assert (compute.device, compute.precision) == ("cuda", precision)
    assert compute.autocast == (precision == "fp16")
    assert compute.why.startswith(f"Some GPU, {precision} (chosen automatically)")
    assert choose_compute(precision="fp16", attention="auto").for_inference().autocast
    distilbert = choose_compute(precision="auto", attention="auto", config=DistilBertConfig())
    assert distilbert.attention == "sdpa"
    with pytest.raises(TrainingError, match=r"train\.frozen_products: int8 is for CPUs.*Some GPU"):
        choose_compute(precision="auto", attention="auto", products="int8")


def test_a_precision_that_the_device_lacks_is_refused_with_the_ones_it_has() -> None:
    with pytest.raises(
        TrainingError,
        match=r"train\.precision: fp16 is not supported on this device \(CPU\); "
        "allowed here: auto, bf16, fp32",
    ):
        choose_compute(precision="fp16", attention="auto")


def test_packed_batches_are_refused_for_an_architecture_without_them() -> None:
    with pytest.raises(
        TrainingError,
        match=r"base\.attention: distilbert encoders do not support packed batches, only bert, .* "
        "encoders do; use --set base.attention=auto",
    ):
        choose_compute(precision="fp32", attention="packed", config=DistilBertConfig())
    compute = choose_compute(precision="fp32", attention="auto", config=DistilBertConfig())
    assert compute.attention == "eager"
    assert compute.why.endswith(
        "padded batches with eager attention (distilbert encoders do not support packed batches)"
    )


def test_encoders_that_mix_dtypes_run_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_has_fast_bf16", lambda: True)
    compute = choose_compute(precision="auto", attention="auto", config=DebertaConfig())
    assert compute.precision == "fp32"
    message = r"train\.precision: bf16 is not supported by transformers' deberta encoders; allowed"
    with pytest.raises(TrainingError, match=message):
        choose_compute(precision="bf16", attention="auto", config=DebertaConfig())

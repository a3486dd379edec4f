"""The fused LoRA layer against PEFT's own forward, and against numerical gradients."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from torch import nn

from pennyweight.engine.kernels.lora import is_plain_lora, lora_linear, share_inputs, use_fused_lora
from pennyweight.engine.kernels.masks import MaskPool, PooledDropout


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 8)
        self.two = nn.Linear(8, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.one(x)))


def _adapted(dtype: torch.dtype = torch.float64, **config: Any) -> Any:
    torch.manual_seed(0)
    settings = {"r": 3, "lora_alpha": 5, "init_lora_weights": False} | config
    lora = peft.LoraConfig(target_modules=["one", "two"], **settings)
    return peft.get_peft_model(_Net(), lora).to(dtype)


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"bias": "lora_only"}])
def test_values_and_gradients_are_peft_s(config: dict[str, Any]) -> None:
    x = torch.randn(4, 7, 6, dtype=torch.float64)
    results = []
    for fused in (False, True):
        model = _adapted(**config)
        if fused:
            assert use_fused_lora(model) == 2
        inputs = x.clone().requires_grad_()
        y = model(inputs)
        y.pow(2).sum().backward()
        results.append([y, inputs.grad, *(p.grad for p in model.parameters() if p.requires_grad)])
    for expected, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_gradients_are_the_numerical_ones_part_by_part() -> None:
    first, second = (_adapted(r=rank).base_model.model.one for rank in (2, 4))
    x = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    factors = [p for layer in (first, second) for p in layer.parameters() if p.requires_grad]

    def apply(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        # The last two rows belong to no part.
        return lora_linear(first.base_layer, x, [(slice(0, 2), first), (slice(2, 5), second)])

    assert torch.autograd.gradcheck(apply, (x, *factors))
    y = apply(x)
    torch.testing.assert_close(y[:2], first(x[:2]))
    torch.testing.assert_close(y[5:], first.base_layer(x[5:]))


def test_dropout_masks_the_adapter_s_input_and_not_the_base_s() -> None:
    model = _adapted(torch.float32, lora_dropout=0.5)
    use_fused_lora(model)
    pool = MaskPool()
    pool.begin_step(seed=0, step=0)
    layer = model.base_model.model.one
    layer.lora_dropout["default"] = PooledDropout(0.5, pool)
    x = torch.randn(300, 6, requires_grad=True)
    y = layer.train()(x)
    pool.begin_step(seed=0, step=0)
    mask = pool.mask((300, 6), probability=0.5, dtype=torch.float32)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    again = x.detach().clone().requires_grad_()
    expected = layer.base_layer(again) + (again * mask) @ a.t() @ b.t() * (5 / 3)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(x.grad, again.grad)


def test_a_switched_off_or_merged_adapter_goes_through_peft() -> None:
    model = _adapted()
    use_fused_lora(model)
    x = torch.randn(3, 6, dtype=torch.float64)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), _Net.forward(model.get_base_model(), x))
    before = model(x)
    model.merge_adapter()
    torch.testing.assert_close(model(x), before)


def test_variants_are_left_to_peft() -> None:
    assert use_fused_lora(_adapted(use_dora=True)) == 0
    assert not is_plain_lora(nn.Linear(2, 2))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = torch.tanh(self.query(x)) * self.key(x) + self.value(x)
        return mixed


def _attention(targets: list[str], **config: Any) -> Any:
    torch.manual_seed(0)
    settings = {"r": 3, "lora_alpha": 5, "init_lora_weights": False} | config
    lora = peft.LoraConfig(target_modules=targets, **settings)
    return peft.get_peft_model(_Attention(), lora).to(torch.float64)


@pytest.mark.parametrize(
    ("targets", "config"),
    [(["query", "value"], {}), (["query", "key", "value"], {}), (["key"], {"bias": "lora_only"})],
)
def test_layers_that_share_an_input_have_peft_s_values_and_gradients(
    targets: list[str], config: dict[str, Any]
) -> None:
    x = torch.randn(4, 7, 6, dtype=torch.float64)
    results = []
    for shared in (False, True):
        model = _attention(targets, **config)
        if shared:
            use_fused_lora(model)
            assert share_inputs(model) == 1
        inputs = x.clone().requires_grad_()
        # Twice, because the outputs of one call must not be used in the next.
        y = model(inputs) + model(inputs * 2)
        y.pow(2).sum().backward()
        results.append([y, inputs.grad, *(p.grad for p in model.parameters() if p.requires_grad)])
    for expected, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_a_layer_called_on_its_own_computes_its_own() -> None:
    model = _attention(["query", "value"])
    use_fused_lora(model)
    share_inputs(model)
    attention = model.get_base_model()
    x, other = torch.randn(2, 5, 6, dtype=torch.float64).unbind()
    attention.query(x)
    torch.testing.assert_close(attention.key(other), nn.Linear.forward(attention.key, other))
    # Only one of the three outputs is used.
    inputs = x.clone().requires_grad_()
    attention.query(inputs)
    attention.key(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, attention.key.weight.sum(0).expand_as(x))


def test_layers_with_a_variant_or_a_trained_weight_do_not_share() -> None:
    assert share_inputs(_attention(["query"], use_dora=True)) == 0
    assert share_inputs(_Attention()) == 0


def test_shared_layers_go_through_peft_while_an_adapter_is_off() -> None:
    model = _attention(["query", "value"])
    use_fused_lora(model)
    share_inputs(model)
    x = torch.randn(3, 6, dtype=torch.float64)
    on = model(x)
    with model.disable_adapter():
        torch.manual_seed(0)
        torch.testing.assert_close(model(x), _Attention().to(torch.float64)(x))
    model.merge_adapter()
    torch.testing.assert_close(model(x), on)

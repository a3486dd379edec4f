"""Parameter groups, and every optimizer in the table."""

from __future__ import annotations

import copy
import typing
from typing import Any

import peft
import pytest
import torch
from torch import nn

from engine.families import adapted
from engine.train.setups import adamw
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.train.optimizer import (
    OPTIMIZERS,
    OptimizerOptions,
    ScheduleOptions,
    make_optimizer,
    make_scheduler,
    parameter_groups,
)
from pennyweight.errors import TrainingError
from pennyweight.recipe import optimizers

_SHARED = {"method", "learning_rate", "weight_decay", "b_ratio", "layer_decay", "schedule"}
_SECTIONS = {
    section.model_fields["method"].default: section
    for section in typing.get_args(typing.get_args(optimizers.Optimizer)[0])
}
# Large enough for three steps to show.
_RATES = {"sgd": 0.05, "muon": 0.05}


def _options(method: str) -> OptimizerOptions:
    """The recipe's defaults for a method."""
    values = _SECTIONS[method]().model_dump()
    extra = {key: value for key, value in values.items() if key not in _SHARED}
    return OptimizerOptions(method, _RATES.get(method, 0.01), 0.01, extra=extra)


def _model() -> peft.PeftModel:
    return adapted("bert", attention=PACKED, targets=["query", "value"])


def _loss(model: peft.PeftModel) -> torch.Tensor:
    trained = [p for p in model.parameters() if p.requires_grad]
    total: Any = sum((p - 0.5).square().sum() for p in trained)
    loss: torch.Tensor = total
    return loss


def test_the_table_has_every_method_of_the_recipe() -> None:
    assert set(OPTIMIZERS) == set(_SECTIONS)
    for name, row in OPTIMIZERS.items():
        assert row.name == name
        assert row.summary
        assert row.paper


@pytest.mark.parametrize("method", OPTIMIZERS)
def test_every_optimizer_lowers_a_loss_and_resumes_exactly(method: str) -> None:
    if method == "lion":
        pytest.importorskip("pytorch_optimizer")
    model, other = _model(), _model()
    optimizer, resumed = (make_optimizer(each, _options(method)) for each in (model, other))

    def step(model: peft.PeftModel, optimizer: torch.optim.Optimizer) -> float:
        loss = _loss(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    losses = [step(model, optimizer) for _ in range(3)]
    assert losses[2] < losses[0]
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert step(model, optimizer) == step(other, resumed)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_groups_follow_layer_matrix_and_shape() -> None:
    model = _model()
    groups = parameter_groups(model, adamw(0.1, b_ratio=4.0, layer_decay=0.5))
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: g["lr"] for g in groups for p in g["params"]}
    decays = {names[id(p)]: g["weight_decay"] for g in groups for p in g["params"]}
    assert set(rates) == {name for name, p in model.named_parameters() if p.requires_grad}
    layer = "base_model.model.bert.encoder.layer.{}.attention.self.query.lora_{}.default.weight"
    head = "base_model.model.classifier.modules_to_save.default.{}"
    assert rates[layer.format(2, "A")] == pytest.approx(0.1)
    assert rates[layer.format(2, "B")] == pytest.approx(0.4)
    assert rates[layer.format(0, "A")] == pytest.approx(0.025)
    assert rates[head.format("weight")] == pytest.approx(0.1)
    assert decays[head.format("weight")] == 0.01
    assert decays[head.format("bias")] == 0.0


def test_a_rate_of_b_needs_an_adapter_with_b() -> None:
    with pytest.raises(
        TrainingError, match=r"optimizer\.b_ratio: given 4, but this adapter has no"
    ):
        parameter_groups(nn.Linear(2, 2), adamw(0.1, b_ratio=4.0))


def test_muon_takes_the_low_rank_matrices_and_its_schedule_reaches_both_parts() -> None:
    optimizer = make_optimizer(_model(), _options("muon"))
    scheduler = make_scheduler(optimizer, ScheduleOptions("linear", warmup_steps=1), total_steps=3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0, 0.0]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 2e-4, 2e-4]


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        (ScheduleOptions("linear"), [1.0, 0.75, 0.5, 0.25]),
        (ScheduleOptions("linear", warmup_steps=2), [0.0, 0.5, 1.0, 0.5]),
        (ScheduleOptions("linear", warmup_ratio=0.5), [0.0, 0.5, 1.0, 0.5]),
        (ScheduleOptions("cosine"), [1.0, 0.8535533905932737, 0.5, 0.14644660940672627]),
        (ScheduleOptions("constant", warmup_steps=2), [0.0, 0.5, 1.0, 1.0]),
    ],
)
def test_schedules_warm_up_and_decay(options: ScheduleOptions, rates: list[float]) -> None:
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = make_scheduler(optimizer, options, total_steps=4)
    seen = []
    for _ in range(4):
        seen.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx(rates)

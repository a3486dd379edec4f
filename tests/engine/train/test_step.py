"""The optimizer step that single models and adapter banks share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from engine.families import TRAIN_OPTIONS as OPTIONS
from engine.families import adapted, rows_of
from engine.train.setups import context, learner
from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.train.loop import Learner, TrainContext
from pennyweight.engine.train.objective import Objective, ObjectiveOptions
from pennyweight.engine.train.step import OptimizerStep, single_model
from pennyweight.errors import NonFiniteLossError

ROWS = rows_of(24)
BATCH = np.arange(3, 15)


def _model(*, dropout: float = 0.0) -> tuple[Any, Batcher]:
    model = adapted("roberta", attention=PACKED, targets=["query", "value"], dropout=dropout)
    # Several pieces per step.
    return model, prepare_model(model, Compute("cpu", "fp32", PACKED, ""), max_tokens=128)


def _step(member: Learner, setting: TrainContext, *, step: int = 1) -> tuple[float, float]:
    take_step = OptimizerStep([member], single_model(member.model, setting), setting)
    (outcome,) = take_step(ROWS, BATCH, step).read()
    return outcome.loss, outcome.gradient_norm


def _trained(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


def test_penalties_change_the_weights_once_per_step_and_not_the_reported_loss() -> None:
    calls = []
    results = []
    for weight in (0.0, 1.0):
        model, batcher = _model()
        parameter = next(p for p in model.parameters() if p.requires_grad)

        def penalty(weight: float = weight, parameter: torch.Tensor = parameter) -> torch.Tensor:
            calls.append(weight)
            return weight * parameter.square().sum()

        member = learner(model, steps=5, objective=Objective(penalties=(penalty,)))
        loss, norm = _step(member, context(batcher, OPTIONS))
        results.append((loss, norm, _trained(model)))
    assert calls == [0.0, 1.0]
    (loss, norm, weights), (penalized_loss, penalized_norm, penalized) = results
    assert loss == penalized_loss
    assert norm != penalized_norm
    assert not all(torch.equal(a, b) for a, b in zip(weights, penalized, strict=True))


@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_a_step_without_an_accelerator_is_the_same_to_the_bit(accumulation_steps: int) -> None:
    options = dataclasses.replace(OPTIONS, accumulation_steps=accumulation_steps)
    results = []
    for has_accelerator in (True, False):
        model, batcher = _model(dropout=0.1)
        model.train()
        objective = Objective(ObjectiveOptions(label_smoothing=0.1, r_drop=1.0))
        member = learner(model, steps=5, objective=objective)
        setting = context(batcher, options) if has_accelerator else TrainContext(batcher, options)
        values = [_step(member, setting, step=step) for step in (1, 2)]
        results.append((values, _trained(model)))
    (values, weights), (others, other_weights) = results
    assert values == others
    assert all(torch.equal(a, b) for a, b in zip(weights, other_weights, strict=True))


def test_the_gradient_is_clipped_and_its_norm_is_reported_from_before() -> None:
    norms, changes = [], []
    for limit in (None, 1e-3):
        model, batcher = _model()
        before = _trained(model)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        member = Learner(model, optimizer, scheduler)
        setting = context(batcher, dataclasses.replace(OPTIONS, max_gradient_norm=limit))
        norms.append(_step(member, setting)[1])
        moves = [a - b for a, b in zip(before, _trained(model), strict=True)]
        changes.append(float(torch.cat([move.flatten() for move in moves]).norm()))
    assert norms[0] == norms[1] == pytest.approx(changes[0], rel=1e-4)
    assert changes[1] == pytest.approx(1e-3, rel=1e-2)


def test_a_loss_that_is_not_finite_stops_before_any_model_changes() -> None:
    models = [_model() for _ in range(2)]
    before = [_trained(model) for model, _ in models]

    def forward(*_: Any) -> tuple[list[list[torch.Tensor]], np.ndarray]:
        infinite = next(p for p in models[1][0].parameters() if p.requires_grad).sum() * torch.nan
        return [[torch.zeros(len(BATCH), 4, requires_grad=True), infinite.expand(12, 4)]], BATCH

    learners = [
        dataclasses.replace(learner(model, steps=5), name=f"adapter {number} of 2")
        for number, (model, _) in enumerate(models, start=1)
    ]
    batcher = dataclasses.replace(models[0][1], max_tokens=8192)  # type: ignore[type-var]
    take_step = OptimizerStep(learners, forward, TrainContext(batcher, OPTIONS))
    with pytest.raises(NonFiniteLossError) as caught:
        take_step(ROWS, BATCH, 7)
    rows = ", ".join(map(str, BATCH))
    assert str(caught.value) == (
        f"step 7: the loss of adapter 2 of 2 is nan; rows of the batch: {rows}"
    )
    for (model, _), weights in zip(models, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(_trained(model), weights, strict=True))

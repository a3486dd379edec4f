"""Adapters trained together become what each becomes alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import peft
import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForSequenceClassification

from engine.families import CONFIGS, rows_of
from engine.families import SETTINGS as TWO_EPOCHS
from pennyweight.engine.attention import PACKED
from pennyweight.engine.device import Compute
from pennyweight.engine.feed import Feed, make_ready
from pennyweight.engine.loop import Progress
from pennyweight.engine.loop import train as train_alone
from pennyweight.engine.objective import Objective
from pennyweight.engine.optim import make_optimizer, schedule
from pennyweight.engine.together import Member, Together, train_together
from pennyweight.errors import TrainingError
from pennyweight.recipe.optimizers import AdamW

SETTINGS = dataclasses.replace(TWO_EPOCHS, epochs=1)
# Other targets, ranks, layers and heads in each; DoRA goes through PEFT's own forward.
ADAPTERS: dict[str, dict[str, Any]] = {
    "query and value": {"target_modules": ["query", "value"], "r": 2},
    "all linear": {"target_modules": ["query", "key", "value", "dense"], "r": 3, "lora_alpha": 9},
    "upper layer": {"target_modules": ["value"], "r": 2, "layers_to_transform": [2]},
    "dora": {"target_modules": ["query"], "r": 2, "use_dora": True, "layers_to_transform": [1, 2]},
}
RATES = (0.01, 0.003, 0.02, 0.01)


def _model(family: str, attention: str, config: dict[str, Any]) -> tuple[Any, Feed]:
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_config(
        CONFIGS[family], attn_implementation=attention
    )
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", **config))
    compute = Compute("cpu", "fp32", attention, "")
    return model, make_ready(model, compute, most_tokens=512)


def _optimizer(model: Any, rate: float, steps: int) -> Any:
    optimizer = make_optimizer(model, AdamW(learning_rate=rate).model_dump())
    scheduler = schedule(
        optimizer, method="linear", warmup_steps=0, warmup_ratio=0.0, total_steps=steps
    )
    return optimizer, scheduler


def _nothing() -> Mapping[str, float]:
    return {"accuracy": 0.0}


def _trained(model: Any) -> list[torch.Tensor]:
    return [p.detach() for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("family", ["roberta", "bert", "electra"])
@pytest.mark.parametrize("attention", [PACKED, "eager"])
@pytest.mark.parametrize(
    "names", [("query and value", "all linear"), ("upper layer", "dora"), tuple(ADAPTERS)]
)
def test_trained_together_or_alone_is_the_same(
    family: str, attention: str, names: tuple[str, ...]
) -> None:
    tokens = rows_of(40)
    alone, losses = [], []
    for name, rate in zip(names, RATES, strict=False):
        model, feed = _model(family, attention, ADAPTERS[name])
        optimizer, scheduler = _optimizer(model, rate, 5)
        steps = train_alone(
            model,
            tokens,
            feed=feed,
            optimizer=optimizer,
            scheduler=scheduler,
            accelerator=Accelerator(cpu=True),
            settings=SETTINGS,
            evaluate=_nothing,
            progress=Progress(),
        )
        losses.append([step.loss for step in steps])
        alone.append(_trained(model))
    made = [_model(family, attention, ADAPTERS[name]) for name in names]
    group = Together([model for model, _ in made], made[0][1])
    members = [
        Member(model, *_optimizer(model, rate, 5), Objective(), Progress(), _nothing)
        for (model, _), rate in zip(made, RATES, strict=False)
    ]
    found: list[list[float]] = [[] for _ in names]
    for at, step in train_together(group, members, tokens, settings=SETTINGS):
        found[at].append(step.loss)
    np.testing.assert_allclose(found, losses, atol=1e-4)
    for member, weights in zip(members, alone, strict=True):
        for one, other in zip(_trained(member.model), weights, strict=True):
            torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_the_frozen_base_is_held_once() -> None:
    made = [_model("roberta", PACKED, ADAPTERS[n]) for n in ("query and value", "all linear")]
    Together([model for model, _ in made], made[0][1])
    one, other = (
        model.get_base_model().roberta.encoder.layer[0].intermediate.dense for model, _ in made
    )
    assert one.weight.data_ptr() == other.base_layer.weight.data_ptr()


def test_after_training_together_each_model_works_alone() -> None:
    names = ("query and value", "all linear")
    made = [_model("bert", PACKED, ADAPTERS[name]) for name in names]
    group = Together([model for model, _ in made], made[0][1])
    tokens, rows = rows_of(9), np.arange(9)
    for model, _ in made:
        model.eval()
    with torch.no_grad():
        joint, order = group.logits(tokens, rows, [0, 1])
        for (model, feed), logits in zip(made, joint, strict=True):
            inputs, own_order = feed.inputs(tokens, rows)
            assert np.array_equal(order, own_order)
            torch.testing.assert_close(model(**inputs).logits, logits, atol=1e-5, rtol=1e-5)


def test_early_stopping_takes_a_member_out_and_the_others_go_on() -> None:
    names = ("query and value", "upper layer")
    made = [_model("bert", PACKED, ADAPTERS[name]) for name in names]
    group = Together([model for model, _ in made], made[0][1])
    rising = iter(range(100))

    def better() -> Mapping[str, float]:
        return {"accuracy": float(next(rising))}

    members = [
        Member(model, *_optimizer(model, 0.01, 5), Objective(), Progress(), evaluate)
        for (model, _), evaluate in zip(made, (_nothing, better), strict=True)
    ]
    settings = dataclasses.replace(SETTINGS, patience=2, evaluate_every=1)
    steps = list(train_together(group, members, rows_of(40), settings=settings))
    assert [step.step for at, step in steps if at == 0] == [1, 2, 3]
    assert [step.step for at, step in steps if at == 1] == [1, 2, 3, 4, 5]


def test_trained_biases_are_refused() -> None:
    made = [
        _model("bert", PACKED, {"target_modules": ["query"], "r": 2, "bias": bias})
        for bias in ("none", "all")
    ]
    with pytest.raises(TrainingError, match=r"adapter\.bias"):
        Together([model for model, _ in made], made[0][1])

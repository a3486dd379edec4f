"""Adapters that are trained together give the same results as adapters trained alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from engine.families import CONFIGS, DEBERTA, rows_of
from engine.families import TRAIN_OPTIONS as TWO_EPOCHS
from engine.train.setups import context, learner
from pennyweight.engine.adapter_bank import AdapterBank, Member, train_together
from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.train.loop import Progress
from pennyweight.engine.train.loop import train as train_alone
from pennyweight.errors import TrainingError

OPTIONS = dataclasses.replace(TWO_EPOCHS, epochs=1)
# Different targets, ranks and layers; DoRA runs PEFT's own forward pass.
ADAPTERS: dict[str, dict[str, Any]] = {
    "query and value": {"target_modules": ["query", "value"], "r": 2},
    "all linear": {"target_modules": ["query", "key", "value", "dense"], "r": 3, "lora_alpha": 9},
    "upper layer": {"target_modules": ["value"], "r": 2, "layers_to_transform": [2]},
    "dora": {"target_modules": ["query"], "r": 2, "use_dora": True, "layers_to_transform": [1, 2]},
}
RATES = (0.01, 0.003, 0.02, 0.01)


def _model(family: str, attention: str, config: dict[str, Any]) -> tuple[Any, Batcher]:
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_config(
        CONFIGS[family], attn_implementation=attention
    )
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", **config))
    compute = Compute("cpu", "fp32", attention, "")
    return model, prepare_model(model, compute, max_tokens=512)


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
    alone, losses_alone = [], []
    for name, rate in zip(names, RATES, strict=False):
        model, batcher = _model(family, attention, ADAPTERS[name])
        steps = train_alone(
            learner(model, steps=5, rate=rate),
            tokens,
            context=context(batcher, OPTIONS),
            evaluate=_nothing,
            progress=Progress(),
        )
        losses_alone.append([step.loss for step in steps])
        alone.append(_trained(model))
    pairs = [_model(family, attention, ADAPTERS[name]) for name in names]
    bank = AdapterBank([model for model, _ in pairs], pairs[0][1])
    members = [
        Member(learner(model, steps=5, rate=rate), _nothing, Progress())
        for (model, _), rate in zip(pairs, RATES, strict=False)
    ]
    losses: list[list[float]] = [[] for _ in names]
    for at, step in train_together(bank, members, tokens, options=OPTIONS):
        losses[at].append(step.loss)
    np.testing.assert_allclose(losses, losses_alone, atol=1e-4)
    for member, weights in zip(members, alone, strict=True):
        for one, other in zip(_trained(member.learner.model), weights, strict=True):
            torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_the_frozen_base_is_held_once() -> None:
    pairs = [_model("roberta", PACKED, ADAPTERS[n]) for n in ("query and value", "all linear")]
    AdapterBank([model for model, _ in pairs], pairs[0][1])
    one, other = (
        model.get_base_model().roberta.encoder.layer[0].intermediate.dense for model, _ in pairs
    )
    assert one.weight.data_ptr() == other.base_layer.weight.data_ptr()


def test_after_training_together_each_model_works_alone() -> None:
    names = ("query and value", "all linear")
    pairs = [_model("bert", PACKED, ADAPTERS[name]) for name in names]
    bank = AdapterBank([model for model, _ in pairs], pairs[0][1])
    tokens, rows = rows_of(9), np.arange(9)
    for model, _ in pairs:
        model.eval()
    with torch.no_grad():
        joint, order = bank.logits(tokens, rows, [0, 1])
        for (model, batcher), logits in zip(pairs, joint, strict=True):
            inputs, own_order = batcher.inputs(tokens, rows)
            assert np.array_equal(order, own_order)
            torch.testing.assert_close(model(**inputs).logits, logits, atol=1e-5, rtol=1e-5)


def test_early_stopping_takes_a_member_out_and_the_others_go_on() -> None:
    names = ("query and value", "upper layer")
    pairs = [_model("bert", PACKED, ADAPTERS[name]) for name in names]
    bank = AdapterBank([model for model, _ in pairs], pairs[0][1])
    rising = iter(range(100))

    def better() -> Mapping[str, float]:
        return {"accuracy": float(next(rising))}

    members = [
        Member(learner(model, steps=5), evaluate, Progress())
        for (model, _), evaluate in zip(pairs, (_nothing, better), strict=True)
    ]
    options = dataclasses.replace(OPTIONS, patience=2, evaluate_every=1)
    steps = list(train_together(bank, members, rows_of(40), options=options))
    assert [step.step for at, step in steps if at == 0] == [1, 2, 3]
    assert [step.step for at, step in steps if at == 1] == [1, 2, 3, 4, 5]


def test_trained_biases_are_refused() -> None:
    pairs = [
        _model("bert", PACKED, {"target_modules": ["query"], "r": 2, "bias": bias})
        for bias in ("none", "all")
    ]
    with pytest.raises(TrainingError, match=r"adapter\.bias"):
        AdapterBank([model for model, _ in pairs], pairs[0][1])


def test_a_base_that_an_initialization_has_changed_is_refused() -> None:
    pissa = {"target_modules": ["query"], "r": 2, "init_lora_weights": "pissa"}
    # The same initialization of the same base leaves the same base.
    same = [_model("bert", PACKED, pissa) for _ in range(2)]
    AdapterBank([model for model, _ in same], same[0][1])
    for other in ({"r": 3}, {"init_lora_weights": True}):
        pairs = [_model("bert", PACKED, keys) for keys in (pissa, pissa | other)]
        with pytest.raises(TrainingError, match=r"base differ .* use an adapter\.initialization"):
            AdapterBank([model for model, _ in pairs], pairs[0][1])


def test_a_base_whose_layers_also_read_positions_is_refused() -> None:
    base = AutoModelForSequenceClassification.from_config(DEBERTA, attn_implementation="eager")
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query_proj"], r=2)
    model = peft.get_peft_model(base, config)
    batcher = _model("bert", PACKED, {"target_modules": ["query"], "r": 2})[1]
    with pytest.raises(TrainingError, match="deberta-v2 encoders cannot train several adapters"):
        AdapterBank([model, model], batcher)

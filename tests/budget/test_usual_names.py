"""A recipe's names of weight matrices mean the same matrices of every architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    MPNetConfig,
    PreTrainedConfig,
)

from pennyweight.budget.layout import layout_of
from pennyweight.budget.plan import Plan, Spending, make_plan
from pennyweight.budget.usual_names import usual_name
from pennyweight.errors import RecipeError

_SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 50,
    "num_labels": 4,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**_SHAPE),
    "mpnet": MPNetConfig(**_SHAPE),
    "deberta-v2": DebertaV2Config(**_SHAPE),
    "distilbert": DistilBertConfig(
        dim=16, n_layers=2, n_heads=2, hidden_dim=24, vocab_size=50, num_labels=4
    ),
}


def _skeleton(config: PreTrainedConfig) -> Any:
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def _plan(config: PreTrainedConfig, **keys: Any) -> Plan:
    values: dict[str, Any] = {
        "bias": "none",
        "targets": ("query", "value"),
        "rank": 2,
        "alpha": 4.0,
        "head": "full",
        **keys,
    }
    spending = Spending(method="lora", dropout=0.0, head_rank=1, **values)
    return make_plan(_skeleton(config), spending, labels=4, budget=10**9)


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize(
    ("targets", "matrices"),
    [
        (("query",), 2),
        (("key", "value"), 4),
        (("attention.output.dense",), 2),
        (("intermediate.dense",), 2),
        (("output.dense",), 4),
        (("layer.1.attention.self.query",), 1),
    ],
)
def test_the_usual_names_select_the_same_matrices(
    architecture: str, targets: tuple[str, ...], matrices: int
) -> None:
    plan = _plan(CONFIGS[architecture], targets=targets)
    assert sum(m.kind == "lora" for m in plan.matrices) == matrices


@pytest.mark.parametrize("architecture", CONFIGS)
def test_ranks_and_alphas_are_looked_up_by_either_name(architecture: str) -> None:
    plan = _plan(CONFIGS[architecture], rank={"query": 3, "value": 1}, alpha={"*": 8.0})
    assert sorted(m.rank for m in plan.matrices if m.rank) == [1, 1, 3, 3]


def test_the_plan_for_peft_has_the_model_s_own_names() -> None:
    plan = _plan(CONFIGS["mpnet"])
    assert plan.peft_config is not None
    assert set(plan.peft_config.target_modules) == {  # type: ignore[arg-type]
        f"mpnet.encoder.layer.{layer}.attention.attn.{role}" for layer in (0, 1) for role in "qv"
    }


def test_albert_s_shared_layers_have_the_usual_names_too() -> None:
    layout = layout_of(_skeleton(AlbertConfig(**_SHAPE)), labels=4)
    names = {m.usual_name for m in layout.encoder if m.usual_name}
    assert {name.split("albert_layers.0.")[1] for name in names} == {
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    }


def test_a_relative_position_bias_is_an_embedding_and_not_a_bias() -> None:
    assert _plan(CONFIGS["mpnet"], bias="all").trainable_parameters == (
        _plan(CONFIGS["bert"], bias="all").trainable_parameters
        # BERT's pooler is not trained, and MPNet's head has a dense layer of 16 x 16 weights.
        + 16 * 16
    )


def test_a_name_that_is_the_same_everywhere_has_no_other() -> None:
    assert usual_name("bert.encoder.layer.0.attention.self.query", "bert") is None
    assert usual_name("mpnet.encoder.layer.0.intermediate.dense", "mpnet") is None
    assert usual_name("encoder.layer.0.attention.attn.q", None) is None


def test_distilbert_s_two_head_layers_are_trained_together_or_not_at_all() -> None:
    head = {m.name: m.parameters for m in _plan(CONFIGS["distilbert"]).matrices if m.kind == "head"}
    assert sum(head.values()) == 16 * 16 + 16 + 4 * 16 + 4
    assert not any(m.kind == "head" for m in _plan(CONFIGS["distilbert"], head="frozen").matrices)
    with pytest.raises(RecipeError, match=r'"output-only".* pre_classifier .*base\.pooling'):
        _plan(CONFIGS["distilbert"], head="output-only")

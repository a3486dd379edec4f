"""`adapter.top_layers` restricts adapters to the top layers of every encoder and method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForSequenceClassification

from pennyweight.base import locate, skeleton
from pennyweight.budget import Plan, make_plan
from pennyweight.budget.allocate.pool import make_problem
from pennyweight.budget.allocate.strategies import STRATEGIES
from pennyweight.budget.layout import layout_of
from pennyweight.budget.methods import METHODS
from pennyweight.budget.peft_warnings import ignore_expected_warnings
from pennyweight.budget.plan import Spending
from pennyweight.errors import BudgetError, RecipeError
from pennyweight.recipe import resolve_recipe
from pennyweight.recipe.plan_file import with_plan_file
from small_adapters import SMALL

_SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "num_labels": 4,
    "pad_token_id": 1,
}
# DistilBERT's names of the sizes differ.
_DISTILBERT = {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 48}
_FAMILIES = {
    "bert": "bert.encoder.layer.2.",
    "roberta": "roberta.encoder.layer.2.",
    "electra": "electra.encoder.layer.2.",
    "mpnet": "mpnet.encoder.layer.2.",
    "distilbert": "distilbert.transformer.layer.2.",
    "deberta-v2": "deberta.encoder.layer.2.",
    "modernbert": "model.layers.2.",
}


def _model(family: str = "roberta", *, device: str = "meta") -> Any:
    special = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    sizes = {**_SIZES, **(_DISTILBERT if family == "distilbert" else {}), **special}
    config = AutoConfig.for_model(family, **sizes)
    with torch.device(device):
        return AutoModelForSequenceClassification.from_config(config)


def _spending(**section: Any) -> Spending:
    return Spending.of(resolve_recipe({"adapter": section}).adapter.model_dump())


def _plan(family: str = "roberta", *, budget: int = 1_000_000, **section: Any) -> Plan:
    return make_plan(_model(family), _spending(**section), labels=4, budget=budget)


def _adapters(plan: Plan) -> list[Any]:
    return [matrix for matrix in plan.matrices if matrix.kind == plan.method.name]


@pytest.mark.parametrize(
    ("section", "count", "rank"),
    [
        # The head has 593,668 parameters, and a rank of query and value 3,072 in each layer.
        ({"top_layers": 4, "rank": 8}, 593_668 + 4 * 8 * 3_072, 8),
        ({"top_layers": 4, "rank": "fill"}, 593_668 + 4 * 33 * 3_072, 33),
        ({"top_layers": "all", "rank": "fill"}, 593_668 + 12 * 11 * 3_072, 11),
        ({"top_layers": 12, "rank": "fill"}, 593_668 + 12 * 11 * 3_072, 11),
    ],
)
def test_the_top_layers_of_roberta_base_have_these_counts(
    section: dict[str, Any], count: int, rank: int
) -> None:
    base = locate("roberta-base", labels=tuple("abcd"), config_only=True)
    plan = make_plan(skeleton(base), _spending(**section), labels=4, budget=1_000_000)
    assert plan.trainable_parameters == count
    assert {matrix.rank for matrix in _adapters(plan)} == {rank}
    number = 12 if section["top_layers"] == "all" else section["top_layers"]
    assert {matrix.layer for matrix in _adapters(plan)} == set(range(12 - number, 12))


@pytest.mark.parametrize("family", _FAMILIES)
def test_the_top_layer_is_found_in_every_architecture(family: str) -> None:
    plan = _plan(family, targets=["*"], rank=2, top_layers=1)
    assert _adapters(plan)
    assert all(matrix.name.startswith(_FAMILIES[family]) for matrix in _adapters(plan))


@pytest.mark.parametrize("method", [name for name in METHODS if name in SMALL])
def test_every_method_keeps_to_the_top_layers(method: str) -> None:
    # `make_plan` compares the count with that of the model that PEFT builds.
    plan = _plan(method=method, **SMALL[method], top_layers=1)
    layers = {matrix.layer for matrix in _adapters(plan) if matrix.name != "shared by all matrices"}
    assert layers == {2}


@settings(max_examples=30, deadline=None)
@given(
    top=st.integers(1, 3),
    budget=st.integers(1_400, 30_000),
    targets=st.sampled_from([("query", "value"), ("*",), ("value",)]),
    strategy=st.sampled_from(["uniform", "fill", "by-type"]),
)
def test_no_strategy_exceeds_the_budget_or_leaves_the_top_layers(
    top: int, budget: int, targets: tuple[str, ...], strategy: str
) -> None:
    layout = layout_of(_model(), labels=4)
    spending = _spending(targets=list(targets), rank="fill", top_layers=top)
    problem = make_problem(layout, spending, budget=budget)
    assert {target.matrix.layer for target in problem.targets} == set(range(3 - top, 3))
    allocation = STRATEGIES[strategy].allocate(problem, {"ratios": {"*": 1.0}})
    assert problem.cost(allocation.ranks, allocation.head) <= budget
    plan = make_plan(_model(), spending, labels=4, budget=budget)
    assert plan.trainable_parameters <= budget


def test_a_table_of_ranks_covers_the_top_layers_only() -> None:
    plan = _plan(rank={"*": 2, "value": 3}, top_layers=2)
    assert sorted({(m.layer, m.rank) for m in _adapters(plan)}) == [(1, 2), (1, 3), (2, 2), (2, 3)]


def test_plain_peft_reloads_adapters_of_the_top_layers(tmp_path: Path) -> None:
    plan = _plan(rank=2, top_layers=1)
    with ignore_expected_warnings():
        peft.get_peft_model(_model(device="cpu"), plan.peft_config).save_pretrained(tmp_path)
        model = peft.PeftModel.from_pretrained(_model(device="cpu"), tmp_path)
    names = [
        n for n, module in model.named_modules() if isinstance(module, peft.tuners.lora.Linear)
    ]
    roles = ("query", "value")
    prefix = "base_model.model.roberta.encoder.layer.2.attention.self"
    assert names == [f"{prefix}.{role}" for role in roles]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"top_layers": 4}, r"top_layers: given 4; .* has 3 layers; allowed: 1 to 3"),
        ({"targets": ["layer.0.attention.self.value"], "top_layers": 1}, r"top 1 of 3 layers"),
        ({"bias": "all", "top_layers": 1}, r'bias: "all" trains biases in every layer'),
        ({"top_layers": 0}, r'top_layers: given 0; allowed: a whole number from 1, or "all"'),
    ],
)
def test_what_does_not_fit_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _plan(rank=2, **section)


def test_advice_for_a_plan_over_budget_skips_targets_below_the_top_layers() -> None:
    with pytest.raises(BudgetError, match=r"no change of \[adapter\] .*"):
        _plan(rank=2, targets=["query", "layer.0.output.dense"], top_layers=1, budget=10)


def test_full_fine_tuning_has_no_top_layers() -> None:
    with pytest.raises(RecipeError, match="top_layers"):
        resolve_recipe({"adapter": {"method": "full", "top_layers": 2}})


def test_a_plan_file_names_its_matrices_itself(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(
        '[head]\nkind = "full"\n[matrices]\n"roberta.encoder.layer.0.attention.self.query" = '
        "{ rank = 2 }\n"
    )
    recipe = resolve_recipe({"adapter": {"top_layers": 1, "plan": str(path)}})
    section: Any = with_plan_file(recipe.adapter)
    plan = make_plan(_model(), Spending.of(section.model_dump()), labels=4, budget=1_000_000)
    assert [matrix.layer for matrix in _adapters(plan)] == [0]

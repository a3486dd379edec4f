"""Costs of the methods on well-known bases: by formula, by hand, and counted by plain PEFT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import peft
import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    FlaubertConfig,
    ModernBertConfig,
    MPNetConfig,
)

from pennyweight.base import ConfigChanges, locate, skeleton
from pennyweight.budget import Plan, Spending, make_plan
from pennyweight.budget.allocate.pool import allocation_refusal, make_problem
from pennyweight.budget.layout import Layout, layout_of
from pennyweight.budget.methods import METHODS
from pennyweight.budget.peft_warnings import ignore_expected_warnings
from pennyweight.budget.summary import SHARED
from pennyweight.errors import BudgetError, RecipeError
from pennyweight.recipe import load_recipe, resolve_recipe
from tiny import LABELS

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "num_labels": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
OTHER_SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "num_labels": 4,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 48,
}
ADAPTERS = [name for name, method in METHODS.items() if not method.trains_every_weight]
SIZED = [name for name in ADAPTERS if METHODS[name].dial]
# RoBERTa-base with a head for 4 classes: 768 * 768 + 768 + 4 * 768 + 4.
HEAD = 593_668
D, LAYERS, TARGETS = 768, 12, 24  # the queries and values of 12 layers


def _plan(name: str, *, base: str = "roberta-base", budget: int = 1_000_000, **keys: Any) -> Plan:
    section = resolve_recipe({"adapter": {"method": name, **keys}}).adapter
    return make_plan(
        skeleton(locate(base, labels=LABELS, config_only=True)),
        Spending.of(section.model_dump()),
        labels=4,
        budget=budget,
    )


def _names(*ends: str) -> dict[str, Any]:
    return {"target_modules": list(ends), "task_type": "SEQ_CLS"}


_QV = _names("query", "value")
# Of each method: its keys, plain PEFT's config, and what it trains besides the head, by hand.
GOLDEN: dict[str, tuple[dict[str, Any], peft.PeftConfig, int]] = {
    "road": ({}, peft.RoadConfig(**_QV), TARGETS * D),
    "fourierft": ({}, peft.FourierFTConfig(**_QV), TARGETS * 1000),
    "unilora": ({}, peft.UniLoraConfig(**_QV), 256),
    "vblora": (
        {"vectors": 90, "vector_length": 256},
        peft.VBLoRAConfig(**_QV, num_vectors=90, vector_length=256),
        TARGETS * 4 * 2 * 3 * 90 + 90 * 256,
    ),
    "randlora": ({"rank": 64}, peft.RandLoraConfig(**_QV, r=64), TARGETS * 12 * (64 + D)),
    "tinylora": ({"weight_tying": 0.5}, peft.TinyLoraConfig(**_QV, weight_tying=0.5), 12 * 64),
    "miss": ({"rank": 8}, peft.MissConfig(**_QV, r=8), TARGETS * 8 * D),
    "c3a": ({"block_size": 256}, peft.C3AConfig(**_QV, block_size=256), TARGETS * D * 3),
    "oft": ({}, peft.OFTConfig(**_QV), TARGETS * 24 * 32 * 31 // 2),
    "hra": ({}, peft.HRAConfig(**_QV), TARGETS * 8 * D),
    "delora": ({}, peft.DeloraConfig(**_QV), TARGETS * (8 * 2 * D + 1)),
    "ia3": (
        {},
        peft.IA3Config(
            **_names("key", "value", "output.dense"), feedforward_modules=["output.dense"]
        ),
        # Keys, values and the inputs of the attention's output and of the last matrix of a layer.
        LAYERS * (3 * D + 4 * D),
    ),
    "ln-tuning": ({}, peft.LNTuningConfig(**_names("LayerNorm")), (2 * LAYERS + 1) * 2 * D),
    "lokr": (
        # 768 = 24 * 32: a full matrix of 24 by 24, and one of 32 by 32 with rank 8.
        {},
        peft.LoKrConfig(**_QV),
        TARGETS * (24 * 24 + 8 * (32 + 32)),
    ),
    "bitfit": (
        {},
        peft.BeftConfig(**_names("query", "key", "value", "output.dense", "intermediate.dense")),
        LAYERS * (5 * D + 4 * D),
    ),
    "psoft": ({"rank": 64}, peft.PsoftConfig(**_QV, r=64), TARGETS * (64 * 63 // 2 + 2 * 64)),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_method_costs_on_roberta_base_what_plain_peft_trains_and_what_the_paper_says(
    name: str,
) -> None:
    keys, config, by_hand = GOLDEN[name]
    plan = _plan(name, **keys)
    assert plan.trainable_parameters == by_hand + HEAD
    base = skeleton(locate("roberta-base", labels=LABELS, config_only=True))
    with ignore_expected_warnings():
        model = peft.get_peft_model(base, config)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == by_hand + HEAD


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_defaults_of_a_method_are_counted_exactly_on_the_embedded_base(name: str) -> None:
    # `make_plan` fails where formula and model disagree.
    plan = _plan(name, base="embedded", budget=10_000_000)
    adapters = sum(matrix.parameters for matrix in plan.matrices if matrix.kind == name)
    assert 0 < adapters < plan.trainable_parameters


@pytest.mark.parametrize("recipe", ["quickstart", "spar-lora"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_method_can_replace_that_of_a_shipped_recipe(name: str, recipe: str) -> None:
    keys = {"ln-tuning": 'adapter.targets=["*"]', "adalora": "adapter.target_rank=2"}
    overrides = [f"adapter.method={name}", *([keys[name]] if name in keys else [])]
    adapter = load_recipe(recipe, overrides=overrides).adapter
    base = locate("embedded", labels=LABELS, config_only=True)
    spending = Spending.of(adapter.model_dump())
    plan = make_plan(skeleton(base), spending, labels=4, budget=1_000_000)
    assert plan.within_budget
    assert plan.method.name == name


@pytest.mark.parametrize("name", SIZED)
def test_fill_comes_as_close_to_the_budget_as_the_sizes_allow(name: str) -> None:
    dial = METHODS[name].dial
    assert dial is not None
    budget = 100_000
    plan = _plan(name, base="embedded", budget=budget, **{dial.key: "fill"})
    assert plan.trainable_parameters <= budget
    options = resolve_recipe({"adapter": {"method": name}}).adapter.model_dump()
    base = skeleton(locate("embedded", labels=LABELS, config_only=True))
    targets = [m for m in layout_of(base, labels=4).encoder if m.role.endswith(("query", "value"))]
    values = dial.values(targets, options)
    chosen = values.index(next(m.rank for m in plan.matrices if m.kind == name))
    if chosen + 1 < len(values):
        larger = {dial.key: values[chosen + 1]}
        with pytest.raises(BudgetError, match="over budget"):
            _plan(name, base="embedded", budget=budget, **larger)


@pytest.mark.parametrize("name", sorted({*ADAPTERS} - {*SIZED}))
def test_a_method_of_one_size_refuses_fill(name: str) -> None:
    with pytest.raises(RecipeError, match=f'given "fill", but the adapters of {name} have one si'):
        resolve_recipe({"adapter": {"method": name, "rank": "fill"}})


@pytest.mark.parametrize("name", ADAPTERS)
def test_only_methods_with_a_rank_for_each_matrix_can_be_allocated(name: str) -> None:
    section, row = {"method": name, "rank": "allocate"}, METHODS[name]
    if row.allocation_refusal is None:
        assert resolve_recipe({"adapter": section}).adapter.model_dump()["allocate"]["method"]
        return
    with pytest.raises(RecipeError, match=r'adapter\.rank: given "allocate", but') as error:
        resolve_recipe({"adapter": section})
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_the_able_methods_cost_the_same_for_each_rank() -> None:
    able = [name for name in ADAPTERS if METHODS[name].allocation_refusal is None]
    assert able
    base = skeleton(locate("embedded", labels=LABELS, config_only=True))
    for name in able:
        spending = Spending.of(resolve_recipe({"adapter": {"method": name}}).adapter.model_dump())
        assert allocation_refusal(spending, layout_of(base, labels=4).encoder) is None


def test_ranks_whose_cost_is_not_linear_are_not_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(METHODS["lora"], parameters=lambda matrix, rank, options: rank * rank)
    monkeypatch.setattr(Spending, "row", row)
    spending = Spending.of(resolve_recipe({}).adapter.model_dump())
    layout = layout_of(skeleton(locate("embedded", labels=LABELS, config_only=True)), labels=4)
    with pytest.raises(RecipeError, match="the cost of lora does not grow by the same number"):
        make_problem(layout, spending, budget=100_000)


@pytest.mark.parametrize("name", SIZED)
def test_fill_without_room_says_what_the_smallest_adapters_cost(name: str) -> None:
    dial = METHODS[name].dial
    assert dial is not None
    message = f'adapter.{dial.key}: "fill" has no room: .*the smallest adapter'
    with pytest.raises(BudgetError, match=message):
        _plan(name, base="embedded", budget=1_000, **{dial.key: "fill"})


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        (
            "road",
            {"group_size": 50},
            r"adapter.group_size: given 50, which does not divide the 768",
        ),
        ("hra", {"rank": 3}, r"query: given 3; allowed: 2, 4, .* the even numbers"),
        ("c3a", {"block_size": 100}, r"given 100; allowed: 1, 2, 3, .* the divisors of all rows"),
        ("oft", {"block_size": 1}, r"given 1; allowed: 2, 3, 4, .* from 2"),
        ("boft", {"block_size": 3}, r"given 3; allowed: 2, 4, .* the even divisors"),
        ("gralora", {"blocks": 5, "rank": 5}, r"adapter.blocks: given 5; allowed: a divisor"),
        ("gralora", {"blocks": 1536}, r"no value fits .*query; allowed: the multiples of adap"),
        ("gralora", {"blocks": 1536, "rank": "fill"}, r"no value fits .*query; allowed: the mul"),
        ("gralora", {"rank": 3}, r"given 3; allowed: 2, 4, .* multiples of adapter.blocks"),
        ("vblora", {"vector_length": 100}, r"adapter.vector_length: given 100; allowed: a div"),
        ("vblora", {"vectors": 1}, r"given 1; allowed: 2 to 65536, and at least adapter.top_k"),
        (
            "unilora",
            {"inner_rank": 800},
            r"adapter.inner_rank: .*query: given 800; .* up to 768",
        ),
        ("unilora", {"vector_length": 10**6}, r"given 1000000; allowed: up to 147456"),
        ("osf", {"rank": 768}, r"given 768; allowed: up to 767, less than the rank"),
        ("shira", {"rank": 385}, r"given 385; allowed: up to 384"),
        ("ln-tuning", {"targets": ["query"]}, r'"query" matches no layer that this method can'),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_those_that_do(
    name: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        _plan(name, budget=10_000_000, **keys)


@pytest.mark.parametrize(
    ("config", "norms", "biases"),
    [
        # Embeddings, and two in each of the 2 layers.
        (BertConfig(**SIZES), 5, 2 * (5 * 32 + 48)),
        (DistilBertConfig(**OTHER_SIZES), 5, 2 * (5 * 32 + 48)),
        (MPNetConfig(**SIZES), 5, 2 * (5 * 32 + 48)),
        # One layer that all share, embeddings of 16 and their projection to 32.
        (AlbertConfig(**SIZES, embedding_size=16), 3, 5 * 32 + 48 + 32),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_norms_and_biases_of_other_encoders_are_found(config: Any, norms: int, biases: int) -> None:
    for method, kind in (("ln-tuning", "norms"), ("bitfit", "biases")):
        with torch.device("meta"):
            base = AutoModelForSequenceClassification.from_config(config)
        section = resolve_recipe({"adapter": {"method": method}}).adapter
        plan = make_plan(base, Spending.of(section.model_dump()), labels=4, budget=100_000)
        adapted = [matrix for matrix in plan.matrices if matrix.kind == method]
        if kind == "norms":
            assert len(adapted) == norms
        else:
            assert sum(matrix.parameters for matrix in adapted) == biases


@pytest.mark.parametrize("name", ["bitfit", "beft", "glora"])
def test_only_layers_with_a_bias_can_get_an_adapter_of_it(name: str) -> None:
    layout = _layout()
    without = replace(layout.encoder[0], has_bias=False)
    changed = replace(layout, encoder=(without, *layout.encoder[1:]))
    assert METHODS[name].targets(changed) == layout.encoder[1:]


def _layout() -> Layout:
    return layout_of(skeleton(locate("embedded", labels=LABELS, config_only=True)), labels=4)


def test_adalora_is_refused_where_fill_gives_less_than_its_final_rank() -> None:
    with pytest.raises(RecipeError, match=r'"fill" gives 6, less than adapter.target_rank, 8'):
        _plan("adalora", base="embedded", budget=60_000, rank="fill")


def test_what_all_matrices_share_is_listed_once() -> None:
    plan = _plan("vblora", vectors=90, vector_length=256)
    (shared,) = [matrix for matrix in plan.matrices if matrix.name == SHARED]
    assert (shared.kind, shared.parameters, shared.layer) == ("vblora", 90 * 256, None)


def test_a_head_of_any_name_is_trained() -> None:
    config = FlaubertConfig(
        emb_dim=32, n_layers=2, n_heads=4, vocab_size=100, max_position_embeddings=64, num_labels=3
    )
    with torch.device("meta"):
        base = AutoModelForSequenceClassification.from_config(config)
    section = resolve_recipe({"adapter": {"targets": ["q_lin"], "rank": 1}}).adapter
    plan = make_plan(base, Spending.of(section.model_dump()), labels=3, budget=10_000)
    assert plan.trainable_parameters == 2 * 64 + 3 * 32 + 3


def test_only_pennyweights_own_classifier_has_a_pooled_head() -> None:
    config = ModernBertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        vocab_size=60, pad_token_id=1, num_labels=3, classifier_pooling="mean",
    )  # fmt: skip
    with torch.device("meta"):
        native = AutoModelForSequenceClassification.from_config(config)
    assert not layout_of(native, labels=3).is_pooled
    changes = ConfigChanges(pooling="mean")
    own = skeleton(locate("embedded", labels=LABELS, changes=changes, config_only=True))
    assert layout_of(own, labels=4).is_pooled

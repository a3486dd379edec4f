"""Plans count exactly, list every trained part, and are never over budget."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, RobertaConfig

from pennyweight.base import ConfigChanges, locate, skeleton
from pennyweight.budget import Plan, make_plan
from pennyweight.budget.count import trainable_sizes
from pennyweight.budget.plan import Spending
from pennyweight.budget.prove import prove
from pennyweight.budget.summary import Matrix, PlanSummary
from pennyweight.errors import BudgetError, RecipeError

LABELS = ("World", "Sports", "Business", "Sci/Tech")
_SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "num_labels": 4,
}


ADALORA: dict[str, Any] = {
    "target_rank": 1,
    "start_steps": 200,
    "final_steps": 1000,
    "every": 10,
    "betas": (0.85, 0.95),
    "orthogonality": 0.5,
}


def _spending(**changes: Any) -> Spending:
    values: dict[str, Any] = {
        "method": "lora",
        "targets": ("query", "value"),
        "rank": 4,
        "alpha": 16.0,
        "dropout": 0.0,
        "bias": "none",
        "head": "full",
        "head_rank": 8,
    }
    return Spending(**{**values, **changes})


def _roberta_base(*, budget: int = 1_000_000, labels: int = 4, **changes: Any) -> Plan:
    names = LABELS if labels == 4 else tuple(map(str, range(labels)))
    base = locate("roberta-base", labels=names, config_only=True)
    return make_plan(skeleton(base), _spending(**changes), labels=labels, budget=budget)


def _tiny(kind: str = "roberta", *, device: str = "meta") -> nn.Module:
    config = RobertaConfig(**_SIZES) if kind == "roberta" else BertConfig(**_SIZES)
    with torch.device(device):
        model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    return model


def _plan_tiny(kind: str = "roberta", *, budget: int = 1_000_000, **changes: Any) -> Plan:
    return make_plan(_tiny(kind), _spending(**changes), labels=4, budget=budget)


def _listed(plan: Plan, kind: str) -> dict[str, int]:
    return {m.name: m.parameters for m in plan.matrices if m.kind == kind}


def _built(plan: Plan, kind: str = "roberta") -> dict[str, tuple[int, float]]:
    """Rank and scaling of every adapter that PEFT really builds from the plan."""
    model = peft.get_peft_model(_tiny(kind, device="cpu"), plan.peft_config)
    assert sum(trainable_sizes(model).values()) == plan.trainable_parameters
    return {
        name.removeprefix("base_model.model."): (module.r["default"], module.scaling["default"])
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


@pytest.mark.parametrize(
    ("changes", "trainable", "total"),
    [
        ({"rank": 4}, 741_124, 125_389_832),
        ({"rank": 8}, 888_580, 125_537_288),
        ({"targets": ("query", "key", "value"), "bias": "all"}, 916_996, 125_463_560),
        ({"targets": ("query", "output.dense")}, 925_444, 125_574_152),
        ({"targets": ("query", "value", "output.dense"), "rank": 2}, 796_420, 125_445_128),
        ({"method": "rsdora"}, 759_556, 125_408_264),
        ({"method": "adalora", "rank": 8, "options": ADALORA}, 888_772, 125_537_504),
        ({"method": "loha", "rank": 4}, 888_580, 125_537_288),
    ],
)
def test_counts_of_roberta_base_are_those_published(
    changes: Mapping[str, Any], trainable: int, total: int
) -> None:
    plan = _roberta_base(**changes)
    assert (plan.trainable_parameters, plan.total_parameters) == (trainable, total)
    assert plan.within_budget
    assert sum(m.parameters for m in plan.matrices) == trainable


def test_fill_takes_the_largest_rank_that_fits() -> None:
    plan = _roberta_base(rank="fill")
    assert {m.rank for m in plan.matrices if m.kind == "lora"} == {11}
    assert plan.trainable_parameters == 999_172


def test_plan_over_budget_is_refused_with_its_excess_and_changes_that_fit() -> None:
    targets = ("query", "key", "value", "output.dense")
    with pytest.raises(BudgetError) as caught:
        _roberta_base(rank=16, targets=targets)
    count = 593_668 + 16 * 12 * (4 * 1536 + 3840)
    assert f"{count:,} trainable" in str(caught.value)
    assert f"{count - 1_000_000:,} more than the 1,000,000" in str(caught.value)
    assert "smallest changes that fit: " in str(caught.value)
    assert "adapter.rank=" in str(caught.value)


def test_fill_is_refused_without_room_and_stops_at_the_rank_of_the_matrix() -> None:
    with pytest.raises(BudgetError, match='"fill" has no room'):
        _plan_tiny(rank="fill", budget=1000)
    assert {m.rank for m in _plan_tiny(rank="fill").matrices if m.kind == "lora"} == {32}


def test_the_smallest_budget_of_a_plan_that_fills_it_is_named() -> None:
    message = "132 .* smallest adapter costs 64, .*; raise .* to at least 196$"
    with pytest.raises(BudgetError, match=message):
        _plan_tiny(rank="fill", head="output-only", budget=120)
    plan = _plan_tiny(rank="fill", head="output-only", budget=196)
    assert plan.trainable_parameters == 196


@pytest.mark.parametrize("rank", [8, "fill"])
def test_advice_lists_only_changes_that_fit(rank: Any) -> None:
    with pytest.raises(BudgetError) as caught:
        _roberta_base(rank=rank, labels=3000)
    message = str(caught.value)
    # A low-rank head would cost more than the budget too: the output layer alone has 2,307,000.
    assert "head=low-rank" not in message
    assert "the smallest, --set adapter.head=output-only --set adapter.rank=1" in message
    assert message.endswith("raise budget.trainable_parameters to at least 2,325,432")


def test_changes_that_fit_only_together_are_named_together() -> None:
    with pytest.raises(BudgetError, match="no single change fits; these together do: ") as caught:
        _roberta_base(rank="fill", bias="all", budget=30_000)
    advice = str(caught.value).partition("these together do: ")[2]
    assert advice == (
        "--set adapter.head=output-only --set adapter.rank=1 "
        "--set 'adapter.targets=[\"query\"]' --set adapter.bias=none (21,508)"
    )


@pytest.mark.parametrize(
    ("head", "whole", "adapted"),
    [
        ("full", 32 * 32 + 32 + 32 * 4 + 4, set()),
        ("low-rank", 32 * 4 + 4, {"classifier.dense"}),
        ("output-only", 32 * 4 + 4, set()),
        ("frozen", 0, set()),
    ],
)
def test_head_is_trained_as_much_as_requested(head: str, whole: int, adapted: set[str]) -> None:
    plan = _plan_tiny(head=head, head_rank=3)
    assert sum(_listed(plan, "head").values()) == whole
    adapters = _listed(plan, "lora")
    assert {name for name in adapters if "layer" not in name} == adapted
    if adapted:
        assert adapters["classifier.dense"] == 3 * 64
    assert set(_built(plan)) == set(adapters)


def test_head_rank_above_its_matrix_names_its_own_key() -> None:
    with pytest.raises(RecipeError, match=r"adapter\.head_rank: classifier\.dense: given 33"):
        _plan_tiny(head="low-rank", head_rank=33)
    with pytest.raises(RecipeError, match=r"adapter\.rank: .*given 33; allowed: up to 32"):
        _plan_tiny(rank=33)


@pytest.mark.parametrize("head", ["full", "low-rank", "output-only", "frozen"])
@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_biases_are_none_all_or_those_of_the_targets(head: str, kind: str) -> None:
    assert not _listed(_plan_tiny(kind, head=head), "bias")
    of_targets = _listed(_plan_tiny(kind, head=head, bias="lora_only"), "bias")
    own = {name for name in of_targets if ".layer." in name}
    assert len(own) == 4
    assert all(name.endswith((".query.bias", ".value.bias")) for name in own)
    plan = _plan_tiny(kind, head=head, bias="all")
    all_biases = {name for name, _ in _tiny(kind).named_parameters() if "bias" in name}
    in_head = {name for name in _listed(plan, "head") if "bias" in name}
    assert set(_listed(plan, "bias")) | in_head == all_biases
    _built(plan, kind)


def test_patterns_reach_the_modules_that_peft_builds() -> None:
    one = "encoder.layer.1.attention.self.value"
    plan = _plan_tiny(
        rank={"*": 2, "value": 3, "layer.1": 5, one: 7},
        alpha={"*": 4.0, "query": 6.0, "layer.0.attention.self.query": 12.0},
    )
    prefix = "roberta.encoder.layer"
    assert _built(plan) == {
        f"{prefix}.0.attention.self.query": (2, 6.0),
        f"{prefix}.0.attention.self.value": (3, 4.0 / 3),
        f"{prefix}.1.attention.self.query": (5, 6.0 / 5),
        f"{prefix}.1.attention.self.value": (7, 4.0 / 7),
    }


def test_rank_zero_leaves_a_matrix_out() -> None:
    plan = _plan_tiny(rank={"*": 4, "layer.0": 0})
    assert all(".layer.1." in name for name in _built(plan))
    assert len(_listed(plan, "lora")) == 2
    with pytest.raises(RecipeError, match="nothing to adapt"):
        _plan_tiny(rank={"*": 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("querry",)}, r'adapter\.targets: "querry" matches no .*query'),
        ({"rank": {"*": 2, "key": 4}}, r'adapter\.rank: "key" matches none'),
        ({"alpha": {"*": 2.0, "layer.9": 4.0}}, r'adapter\.alpha: "layer\.9" matches none'),
        ({"rank": {"query": 2}}, r"adapter\.rank: no pattern covers .*value"),
        ({"alpha": {"query": 2.0}}, r"adapter\.alpha: no pattern covers .*value"),
        (
            {"method": "loha", "rank": {"*": 2, "query": 4}},
            r"adapter\.rank: given a table, but loha has one rank for all targets",
        ),
        ({"method": "vera", "head": "low-rank"}, r'"low-rank", which vera does not support'),
    ],
)
def test_pattern_that_matches_nothing_or_too_little_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        _plan_tiny(**changes)


def test_alpha_pattern_may_name_the_low_rank_head() -> None:
    plan = _plan_tiny(head="low-rank", head_rank=2, alpha={"*": 4.0, "classifier.dense": 6.0})
    assert _built(plan)["classifier.dense"] == (2, 3.0)


_ENDS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["bert", "roberta"]),
    targets=st.lists(st.sampled_from([*_ENDS, "*"]), min_size=1, max_size=4, unique=True),
    rank=st.one_of(
        st.integers(1, 40),
        st.just("fill"),
        st.fixed_dictionaries({"*": st.integers(0, 32)}, optional={"layer.1": st.integers(0, 32)}),
    ),
    head=st.sampled_from(["full", "low-rank", "output-only", "frozen"]),
    bias=st.sampled_from(["none", "all", "lora_only"]),
    budget=st.integers(1, 40_000),
)
def test_any_plan_adds_up_and_is_never_over_budget(
    kind: str, budget: int, targets: list[str], **changes: Any
) -> None:
    try:
        plan = _plan_tiny(kind, budget=budget, targets=tuple(targets), **changes)
    except RecipeError:
        return
    except BudgetError as error:
        assert "report this defect" not in str(error)  # noqa: PT017
        return
    assert plan.trainable_parameters <= budget
    assert plan.within_budget
    assert sum(m.parameters for m in plan.matrices) == plan.trainable_parameters
    _built(plan, kind)


def test_the_three_counts_must_agree_and_keep_to_the_budget() -> None:
    prove(planned=5, model=5, file=5, budget=5)
    for planned, model, file in ((4, 5, 5), (5, 4, 5), (5, 5, 4)):
        with pytest.raises(BudgetError, match="differ"):
            prove(planned=planned, model=model, file=file, budget=10)
    with pytest.raises(BudgetError, match="over the budget of 4"):
        prove(planned=5, model=5, file=5, budget=4)


def test_every_trained_part_knows_its_layer_and_its_role() -> None:
    plan = _plan_tiny(head="output-only", bias="lora_only", targets=("query",))
    places = {matrix.name: (matrix.layer, matrix.role) for matrix in plan.matrices}
    prefix = "roberta.encoder.layer.1.attention.self"
    assert places[f"{prefix}.query"] == (1, "attention.self.query")
    assert places[f"{prefix}.query.bias"] == (1, "attention.self.query.bias")
    assert places["classifier.out_proj.weight"] == (None, "classifier.out_proj.weight")


def test_the_summary_of_a_plan_survives_json() -> None:
    adapter = TypeAdapter(PlanSummary)
    summary = _plan_tiny(rank={"*": 2, "layer.1": 3}).summary
    assert adapter.validate_json(adapter.dump_json(summary)) == summary
    assert all(isinstance(matrix, Matrix) for matrix in summary.matrices)


def test_a_plan_of_full_fine_tuning_trains_every_weight_and_may_be_over_budget() -> None:
    plan = _plan_tiny(method="full", budget=1000)
    total = sum(p.numel() for p in _tiny().parameters())
    assert plan.trainable_parameters == plan.total_parameters == total
    assert sum(matrix.parameters for matrix in plan.matrices) == total
    assert not plan.within_budget
    assert plan.peft_config is None
    assert _plan_tiny(method="full").within_budget


def test_vera_may_have_a_rank_above_that_of_the_matrix() -> None:
    plan = _plan_tiny(method="vera", rank=64, alpha=None, options={"d_initial": 0.1})
    assert {m.parameters for m in plan.matrices if m.kind == "vera"} == {32 + 64}


def test_planning_modules_load_neither_torch_nor_peft() -> None:
    code = (
        "import sys, pennyweight.budget.methods, pennyweight.budget.inspect, pennyweight.recipe\n"
        "heavy = {'torch', 'peft', 'transformers'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_advice_for_many_classes_proposes_a_pooled_head_of_a_low_rank() -> None:
    many = [f"class {number}" for number in range(2_000)]
    base = locate(
        "roberta-base", labels=many, config_only=True, changes=ConfigChanges(pooling="mean")
    )
    spending = _spending(rank="fill", targets=("query",))
    with pytest.raises(BudgetError) as caught:
        make_plan(skeleton(base), spending, labels=2_000, budget=1_000_000)
    # 8 (768 + 2,000) + 2,000 for the head, and ranks of 12 * 1,536.
    rank = (1_000_000 - 24_144) // (12 * 1_536)
    count = 24_144 + rank * 12 * 1_536
    change = f"--set adapter.head=low-rank --set adapter.rank={rank} ({count:,})"
    assert change in str(caught.value)

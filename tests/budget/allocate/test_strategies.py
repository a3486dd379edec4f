"""Every allocation strategy keeps to the budget, uses it, and gives the same result twice."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget.allocate.problems import OPTIONS, next_costs, problems, total_gain
from pennyweight.base import locate, skeleton
from pennyweight.budget.allocate.knapsack import knapsack
from pennyweight.budget.allocate.pool import make_problem, measured_matrices
from pennyweight.budget.allocate.problem import Allocation, HeadOption, Problem
from pennyweight.budget.allocate.sections import Allocate
from pennyweight.budget.allocate.strategies import STRATEGIES
from pennyweight.budget.layout import Layout, layout_of
from pennyweight.budget.spending import Spending
from pennyweight.errors import BudgetError, RecipeError
from pennyweight.recipe.fields import literals_of, models_in

NAMES = list(STRATEGIES)


def _allocate(name: str, problem: Problem) -> Allocation:
    return STRATEGIES[name].allocate(problem, OPTIONS.get(name, {}))


@pytest.fixture(scope="module")
def roberta_base() -> Layout:
    base = locate("roberta-base", labels=("a", "b", "c", "d"), config_only=True)
    return layout_of(skeleton(base), labels=4)


def _spending(**changes: Any) -> Spending:
    values: dict[str, Any] = {
        "method": "lora",
        "targets": ("*",),
        "rank": 1,
        "alpha": "auto",
        "dropout": 0.0,
        "bias": "none",
        "head": "output-only",
        "head_rank": 8,
    }
    return Spending(**{**values, **changes})


def _problem(layout: Layout, budget: int, *, plans_head: bool = True, **changes: Any) -> Problem:
    generator = np.random.default_rng(0)
    spending = _spending(**changes)
    gains = {
        matrix.name: np.sort(generator.exponential(size=matrix.largest_rank))[::-1]
        * generator.lognormal()
        for matrix in measured_matrices(layout, spending)
    }
    return make_problem(layout, spending, budget=budget, gains=gains, plans_head=plans_head)


@settings(max_examples=60, deadline=None)
@given(problem=problems())
@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_never_exceeds_the_budget_and_uses_it(name: str, problem: Problem) -> None:
    allocation = _allocate(name, problem)
    used = problem.cost(allocation.ranks, allocation.head)
    assert used <= problem.budget
    assert allocation.head in problem.heads
    assert allocation.ranks
    assert all(rank >= 1 for rank in allocation.ranks.values())
    for target in problem.targets:
        assert allocation.ranks.get(target.name, 0) <= target.largest
    if STRATEGIES[name].uses_all:
        assert all(cost > problem.budget - used for cost in next_costs(problem, allocation))
    assert _allocate(name, problem) == allocation


@pytest.mark.parametrize("name", [name for name in NAMES if STRATEGIES[name].uses_all])
@pytest.mark.parametrize("budget", [1_000_000, 100_000, 30_000, 5_000])
def test_on_roberta_base_a_strategy_lands_within_half_a_percent(
    name: str, budget: int, roberta_base: Layout
) -> None:
    problem = _problem(roberta_base, budget)
    allocation = _allocate(name, problem)
    left = budget - problem.cost(allocation.ranks, allocation.head)
    # Or as close as the cheapest rank allows.
    assert 0 <= left <= max(0.005 * budget, 2 * 768 - 1)


@settings(max_examples=60, deadline=None)
@given(problem=problems(layers=1, largest=3))
def test_the_knapsack_is_the_best_of_all_allocations(problem: Problem) -> None:
    best = max(
        total_gain(problem, allocation)
        for head in problem.heads
        for ranks in itertools.product(*(range(t.largest + 1) for t in problem.targets))
        for allocation in [
            Allocation({t.name: r for t, r in zip(problem.targets, ranks, strict=True) if r}, head)
        ]
        if any(ranks) and problem.cost(allocation.ranks, head) <= problem.budget
    )
    found = total_gain(problem, knapsack(problem, {}))
    assert found == pytest.approx(best, rel=1e-5, abs=1e-9)


def test_of_two_equal_gains_the_knapsack_takes_the_cheaper_matrix(roberta_base: Layout) -> None:
    spending = _spending(targets=("query", "intermediate.dense"))
    gains = {m.name: np.ones(4) for m in measured_matrices(roberta_base, spending)}
    problem = make_problem(roberta_base, spending, budget=3_076 + 24 * 1_536, gains=gains)
    assert {name.rpartition(".")[2] for name in knapsack(problem, {}).ranks} == {"query"}


def test_a_head_competes_with_the_matrices(roberta_base: Layout) -> None:
    def head(gain: float, budget: int) -> HeadOption:
        problem = _problem(roberta_base, budget, targets=("query",))
        dense = roberta_base.head_dense
        assert dense is not None
        gains = {**problem.gains, dense.name: np.full(768, gain)}
        spending = _spending(targets=("query",))
        again = make_problem(roberta_base, spending, budget=budget, gains=gains, plans_head=True)
        return knapsack(again, {}).head

    assert head(0.0, 100_000) == HeadOption("output-only", None, 3_076, head(0.0, 100_000).gain)
    low_rank = head(1e3, 100_000)
    assert low_rank.kind == "low-rank"
    assert low_rank.rank is not None
    assert low_rank.cost == 3_076 + 1_536 * low_rank.rank
    full = head(1e6, 1_000_000)
    assert (full.kind, full.cost) == ("full", 593_668)


def test_without_a_measure_a_head_takes_at_most_half_of_the_budget(roberta_base: Layout) -> None:
    def kind(budget: int) -> tuple[str, int | None]:
        problem = make_problem(roberta_base, _spending(), budget=budget, plans_head=True)
        head = STRATEGIES["uniform"].allocate(problem, {}).head
        return head.kind, head.rank

    assert kind(2_000_000) == ("full", None)
    assert kind(1_000_000) == ("low-rank", 8)
    assert kind(20_000) == ("low-rank", 4)
    assert kind(5_000) == ("output-only", None)


def test_uniform_ranks_differ_by_at_most_one(roberta_base: Layout) -> None:
    problem = _problem(roberta_base, 100_000, plans_head=False, targets=("query", "value"))
    ranks = _allocate("uniform", problem).ranks
    assert sorted(set(ranks.values())) == [2, 3]
    # (100,000 - 3,076) / 1,536 is 63.1: 24 matrices get 2, and the top 15 of them 3.
    assert sum(ranks.values()) == 63
    layers = [int(name.split(".")[3]) for name, rank in ranks.items() if rank == 3]
    # Both matrices of layers 11 to 5, and the value matrix of layer 4.
    assert sorted(layers) == [4, *(layer for layer in range(5, 12) for _ in "qv")]


def test_by_type_gives_ranks_in_the_ratios(roberta_base: Layout) -> None:
    problem = _problem(roberta_base, 1_000_000, plans_head=False)
    ratios = {"*": 0.0, "attention": 1.0, "value": 3.0}
    ranks = STRATEGIES["by-type"].allocate(problem, {"ratios": ratios}).ranks
    assert not any("intermediate" in name for name in ranks)
    by_role = {role: [r for name, r in ranks.items() if role in name] for role in ("value", "key")}
    assert np.mean(by_role["value"]) / np.mean(by_role["key"]) == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ({"*": 1.0, "layer.99": 2.0}, '"layer.99" matches none of the targets'),
        ({"query": 1.0}, "no pattern covers .*key"),
        ({"*": 0.0}, "all are 0"),
    ],
)
def test_ratios_that_do_not_fit_are_refused(
    ratios: dict[str, float], message: str, roberta_base: Layout
) -> None:
    with pytest.raises(RecipeError, match=message):
        STRATEGIES["by-type"].allocate(_problem(roberta_base, 100_000), {"ratios": ratios})


@pytest.mark.parametrize(
    ("budget", "adapted", "rank"),
    [
        # All 72 matrices, at 165,888 for each rank.
        (3_076 + 2 * 165_888, 72, 2),
        # One parameter less than rank 1 of all: query and value, at 36,864 for each rank.
        (3_076 + 165_887, 24, 4),
        (3_076 + 36_864, 24, 1),
        # Value and query of the upper layers, value before query.
        (3_076 + 36_863, 23, 1),
        (3_076 + 3 * 1_536, 3, 1),
        (3_076 + 1_536, 1, 1),
    ],
)
def test_fill_leaves_out_other_types_first_and_then_lower_layers(
    budget: int, adapted: int, rank: int, roberta_base: Layout
) -> None:
    ranks = _allocate("fill", _problem(roberta_base, budget, plans_head=False)).ranks
    assert len(ranks) == adapted
    assert set(ranks.values()) == {rank}
    if adapted < 24:
        dropped = 24 - adapted
        assert f"roberta.encoder.layer.{(dropped - 1) // 2}.attention.self.query" not in ranks
        assert "roberta.encoder.layer.11.attention.self.value" in ranks


def test_fill_treats_all_targets_alike_if_none_is_query_or_value(roberta_base: Layout) -> None:
    problem = _problem(
        roberta_base, 3_076 + 5 * 1_536, plans_head=False, targets=("attention.output.dense",)
    )
    layers = sorted(int(name.split(".")[3]) for name in _allocate("fill", problem).ranks)
    assert layers == [7, 8, 9, 10, 11]


@settings(max_examples=30, deadline=None)
@given(problem=problems(), missing=st.integers(1, 50))
@pytest.mark.parametrize("name", NAMES)
def test_a_budget_without_room_for_a_rank_is_refused(
    name: str, problem: Problem, missing: int
) -> None:
    least = min(h.cost for h in problem.heads) + min(t.cost(1) for t in problem.targets)
    with pytest.raises(BudgetError, match="has no room"):
        _allocate(name, replace(problem, budget=least - missing))


def test_every_strategy_has_a_section_and_every_section_a_strategy() -> None:
    sections = models_in(Allocate)
    methods = [name for s in sections for name in literals_of(s.model_fields["method"].annotation)]
    assert sorted(map(str, methods)) == sorted(STRATEGIES)
    assert all(row.summary and row.paper and row.name == name for name, row in STRATEGIES.items())


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize("method", ["lora", "dora", "lora-fa"])
def test_costs_are_those_of_the_plan(method: str, bias: Any, roberta_base: Layout) -> None:
    from pennyweight.budget import make_plan

    spending = _spending(method=method, bias=bias, targets=("query", "output.dense"))
    problem = make_problem(roberta_base, spending, budget=400_000)
    allocation = STRATEGIES["uniform"].allocate(problem, {})
    base = locate("roberta-base", labels=("a", "b", "c", "d"), config_only=True)
    ranks = dict.fromkeys((t.name for t in problem.targets), 0) | dict(allocation.ranks)
    plan = make_plan(skeleton(base), replace(spending, rank=ranks), labels=4, budget=400_000)
    assert plan.trainable_parameters == problem.cost(allocation.ranks, allocation.head)

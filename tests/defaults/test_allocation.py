"""An allocation becomes explicit ranks, measured once, whatever the strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pennyweight.budget.allocate.strategies import STRATEGIES
from pennyweight.budget.plan import Plan
from pennyweight.defaults import Allocated, allocate, is_completion, measurement
from pennyweight.errors import BudgetError, RecipeError
from pennyweight.recipe import Recipe
from pennyweight.recipe.plan_file import dump_plan_file
from pennyweight.settings import plan
from tiny import tiny_recipe

BUDGET = 2_500
PREFIX = "roberta.encoder.layer"


def _recipe(
    roberta: Path, sets: Path, *, budget: int = BUDGET, base: Any = None, **adapter: Any
) -> Recipe:
    values = {"targets": ["*"], "rank": "allocate", "head": "output-only", **adapter}
    return tiny_recipe(
        roberta,
        sets,
        adapter=values,
        budget={"trainable_parameters": budget},
        base=base or {},
    )


def _plan(allocated: Allocated) -> Plan:
    return plan(allocated.recipe)


@pytest.mark.parametrize("method", STRATEGIES)
def test_every_strategy_plans_a_real_model_within_its_budget(
    method: str, roberta: Path, sets: Path
) -> None:
    options = {"method": method}
    if STRATEGIES[method].needs != "nothing":
        options |= {"rows": 12}
    if method == "adalora":
        options |= {"steps": 3}
    recipe = _recipe(roberta, sets, allocate=options, head="planned")
    allocated = allocate(recipe)
    planned = _plan(allocated)
    assert planned.trainable_parameters <= BUDGET
    if STRATEGIES[method].uses_all:
        assert planned.trainable_parameters > BUDGET - 64
    # The scaling is the same for all: alpha is twice the rank.
    assert {m.alpha / m.rank for m in planned.matrices if m.rank and m.alpha} == {2.0}
    assert allocated.section == recipe.adapter
    assert allocate(recipe).recipe == allocated.recipe
    assert allocate(allocated.recipe) == Allocated(allocated.recipe)


def test_a_measurement_is_kept_for_other_budgets(
    roberta: Path, sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    options = {"method": "fisher", "rows": 13}
    allocate(_recipe(roberta, sets, allocate=options), log=lines.append)
    assert lines == ['adapter.allocate: measuring with "fisher" on at most 13 training rows']
    monkeypatch.setattr(measurement, "load_base", None)
    allocated = allocate(_recipe(roberta, sets, allocate=options, budget=1_000), log=lines.append)
    assert _plan(allocated).trainable_parameters <= 1_000
    assert len(lines) == 1
    assert allocated.notes[0].startswith("allocation: measured on 13 training rows in ")
    with pytest.raises(TypeError):
        allocate(_recipe(roberta, sets, allocate=options | {"seed": 1}))


def test_a_pooled_head_competes_too(roberta: Path, sets: Path) -> None:
    pooled = {"pooling": "mean"}
    options = {"method": "gradient", "rows": 12}
    recipe = _recipe(roberta, sets, base=pooled, head="planned", allocate=options, budget=700)
    adapter: Any = allocate(recipe).recipe.adapter
    # Its gradient has a rank of 3, because the gradients of the classes add up to 0.
    assert adapter.head == "full" or adapter.head_rank <= 3
    assert _plan(allocate(recipe)).trainable_parameters <= 700


def test_a_budget_without_room_names_the_strategy(roberta: Path, sets: Path) -> None:
    recipe = _recipe(roberta, sets, allocate={"method": "uniform"}, budget=150)
    with pytest.raises(BudgetError, match=r'adapter\.allocate: "uniform" has no room: 132 param'):
        allocate(recipe)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"alpha": 16.0}, 'use alpha = "auto"'),
        ({"rank": 2, "allocate": {"method": "fill"}}, "has no effect without"),
        ({"rank": 2, "head": "planned"}, '"planned" needs adapter.rank = "allocate"'),
        ({"allocate": {"method": "gradiant"}}, "allowed: .*'gradient'"),
        ({"allocate": {"method": "fisher", "rwos": 3}}, 'did you mean "rows"'),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(
    adapter: dict[str, Any], message: str, roberta: Path, sets: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        _recipe(roberta, sets, **adapter)


def _plan_file(folder: Path, recipe: Recipe, *changes: tuple[str, str]) -> Path:
    allocated = allocate(recipe)
    text = dump_plan_file(
        _plan(allocated).summary,
        allocated.recipe.adapter,
        head_dense="classifier.dense",
        left_out=(),
        origin="a test",
    )
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("head", ["full", "low-rank", "output-only"])
def test_a_plan_file_gives_the_plan_again(
    head: str, roberta: Path, sets: Path, tmp_path: Path
) -> None:
    uniform = {"method": "uniform"}
    recipe = _recipe(roberta, sets, allocate=uniform, head=head, head_rank=2)
    path = _plan_file(tmp_path, recipe)
    again = allocate(_recipe(roberta, sets, rank="fill", plan=str(path)))
    assert _plan(again).summary == _plan(allocate(recipe)).summary


def test_an_edited_plan_file_is_checked(roberta: Path, sets: Path, tmp_path: Path) -> None:
    recipe = _recipe(roberta, sets, allocate={"method": "fill"}, targets=["query"])
    query = f"{PREFIX}.1.attention.self.query"

    def refused(*change: tuple[str, str]) -> str:
        path = _plan_file(tmp_path, recipe, *change)
        with pytest.raises((RecipeError, BudgetError)) as caught:
            allocate(_recipe(roberta, sets, plan=str(path)))
        assert str(caught.value).startswith(f"plan {path}: ")
        return str(caught.value)

    rank = 'query" = { rank = 18, alpha = 36.0 }'
    # 132 for the output layer, and 64 for each rank.
    assert "over budget: 3,332 trainable parameters, 832 more than the 2,500" in refused(
        (f"layer.1.attention.self.{rank}", 'layer.1.attention.self.query" = { rank = 32 }')
    )
    assert f'is not a matrix of the encoder; did you mean "{query}"' in refused(
        (query, query.replace("query", "qeury"))
    )
    assert "rank 33 is given; allowed: up to 32" in refused((rank, 'query" = { rank = 33 }'))


def test_what_was_allocated_is_known_again(roberta: Path, sets: Path, tmp_path: Path) -> None:
    recipe = _recipe(roberta, sets, allocate={"method": "fill"})
    allocated = allocate(recipe)
    assert is_completion(allocated.recipe, recipe, allocated=allocated.section)
    assert is_completion(allocated.recipe, allocated.recipe, allocated=allocated.section)
    assert not is_completion(allocated.recipe, recipe)
    other = _recipe(roberta, sets, allocate={"method": "uniform"})
    assert not is_completion(allocated.recipe, other, allocated=allocated.section)
    path = _plan_file(tmp_path, recipe)
    planned = _recipe(roberta, sets, plan=str(path))
    assert is_completion(allocate(planned).recipe, planned)
    before = allocate(planned).recipe
    path.write_text(path.read_text().replace('kind = "output-only"', 'kind = "frozen"'))
    assert not is_completion(before, planned)

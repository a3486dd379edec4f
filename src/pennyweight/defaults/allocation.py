"""Settle the ranks of a recipe that leaves them to a plan file or to an allocation strategy.

What comes out is an ordinary recipe with a rank for each matrix, so that a run which starts from it
measures nothing again.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pennyweight.base import BaseModel, skeleton
from pennyweight.budget.allocate.pool import make_problem
from pennyweight.budget.allocate.problem import Allocation, Gains, Problem
from pennyweight.budget.allocate.strategies import STRATEGIES
from pennyweight.budget.choose import choose
from pennyweight.budget.formula import count_by_formula
from pennyweight.budget.layout import Layout, layout_of
from pennyweight.budget.methods import AdapterSection
from pennyweight.budget.spending import Spending
from pennyweight.errors import BudgetError, RecipeError
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.recipe.plan_file import with_plan_file
from pennyweight.settings import find_base

__all__ = ["Allocated", "allocate"]


@dataclass(frozen=True, slots=True)
class Allocated:
    """A recipe whose ranks are settled.

    Attributes:
        recipe: with a rank for each matrix; the one that was given, if it leaves none open.
        section: the `[adapter]` section that a strategy settled; None without one.
        notes: lines on how the ranks came about.
    """

    recipe: Recipe
    section: AdapterSection | None = None
    notes: tuple[str, ...] = ()


def allocate(
    recipe: Recipe, *, base: BaseModel | None = None, log: Callable[[str], None] = lambda _: None
) -> Allocated:
    """Return the recipe with its plan file or its allocation turned into explicit ranks.

    Training rows are read, and the base's weights loaded, only for a strategy that measures.

    Args:
        recipe: complete; see `pennyweight.defaults.complete`.
        base: its base model, where it has been found already.
        log: receives a line before something takes time.

    Raises:
        RecipeError: the plan file cannot be used, or a pattern does not fit the base.
        BudgetError: the plan file is over budget, or the budget has no room for an adapter.
        DataError: the training rows cannot be read.
        BaseModelError: the base cannot be found, or its weights are needed and cannot be loaded.
    """
    section: Any = recipe.adapter
    values = section.model_dump()
    if values.get("plan") is not None:
        return _from_plan_file(recipe, values["plan"], base)
    if values.get("rank") != "allocate":
        return Allocated(recipe)
    options = values["allocate"]
    strategy = STRATEGIES[options["method"]]
    plans_head = values["head"] == "planned"
    if plans_head:
        values["head"] = "full"
    spending, layout = Spending.of(values), _layout(recipe, base)
    gains: Gains | None = None
    notes: tuple[str, ...] = ()
    if strategy.needs != "nothing":
        # Imported here, because a plan without a measure needs neither rows nor models.
        from pennyweight.defaults.measurement import gains_of

        gains, note = gains_of(_with_full_head(recipe), spending, options, log=log)
        notes = (note,)
    problem = make_problem(
        layout,
        spending,
        budget=recipe.budget.trainable_parameters,
        gains=gains,
        plans_head=plans_head,
    )
    try:
        allocation = strategy.allocate(problem, options)
    except BudgetError as error:
        raise BudgetError(f'adapter.allocate: "{strategy.name}" {error}') from None
    settled = _explicit(values, allocation)
    return Allocated(
        _with_adapter(recipe, settled),
        section,
        (*notes, _describe(strategy.name, problem, allocation)),
    )


def _layout(recipe: Recipe, base: BaseModel | None) -> Layout:
    base = base or find_base(recipe, config_only=True)
    return layout_of(skeleton(base), labels=len(recipe.data.label_names))


def _with_full_head(recipe: Recipe) -> Recipe:
    """Return the recipe with the head that a measure needs; a pooled one has a single layer."""
    return recipe.model_copy(update={"adapter": recipe.adapter.model_copy(update={"head": "full"})})


def _explicit(values: Mapping[str, Any], allocation: Allocation) -> dict[str, Any]:
    head = allocation.head
    return {
        **values,
        "allocate": None,
        "targets": tuple(allocation.ranks),
        "rank": dict(allocation.ranks),
        "head": head.kind,
        "head_rank": values["head_rank"] if head.rank is None else head.rank,
    }


def _with_adapter(recipe: Recipe, adapter: Mapping[str, Any]) -> Recipe:
    return resolve_recipe({**recipe.model_dump(), "adapter": dict(adapter)})


def _describe(name: str, problem: Problem, allocation: Allocation) -> str:
    ranks, head = allocation.ranks, allocation.head
    kind = head.kind if head.rank is None else f"{head.kind} of rank {head.rank}"
    return (
        f"allocation: {name}; {len(ranks)} of {len(problem.targets)} matrices, ranks "
        f"{min(ranks.values())} to {max(ranks.values())}; head: {kind}"
    )


def _from_plan_file(recipe: Recipe, path: str, base: BaseModel | None) -> Allocated:
    settled = _with_adapter(recipe, with_plan_file(recipe.adapter).model_dump())
    # The file may have another head than the recipe.
    layout = _layout(settled, None if _head(settled) != _head(recipe) else base)
    values = settled.adapter.model_dump()
    _check_matrices(values["rank"], layout, path=path)
    spending, budget = Spending.of(values), recipe.budget.trainable_parameters
    count = _count(layout, spending)
    if count > budget:
        raise BudgetError(
            f"plan {path}: over budget: {count:,} trainable parameters, {count - budget:,} more "
            f"than the {budget:,} allowed; lower ranks in the file, or raise the budget"
        )
    return Allocated(settled, notes=(f"plan: ranks, alphas and head are those of {path}",))


def _head(recipe: Recipe) -> tuple[Any, Any]:
    adapter: Any = recipe.adapter
    return adapter.head, adapter.head_rank


def _check_matrices(ranks: Mapping[str, int], layout: Layout, *, path: str) -> None:
    """Refuse names that are no matrix of the encoder, and ranks that a matrix cannot have."""
    known = {matrix.name: matrix for matrix in layout.encoder}
    for name, rank in ranks.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean "{close[0]}"?' if close else f"one of them is {next(iter(known))}"
            raise RecipeError(f'plan {path}: "{name}" is not a matrix of the encoder; {hint}')
        if rank > known[name].largest_rank:
            raise RecipeError(
                f"plan {path}: {name}: rank {rank} is given; allowed: up to "
                f"{known[name].largest_rank}, the rank of the matrix itself"
            )


def _count(layout: Layout, spending: Spending) -> int:
    layout = layout.with_head_rank(spending.head_rank if spending.head == "low-rank" else None)
    # The budget is that of "fill" only.
    choice = choose(layout, replace(spending, alpha="auto"), budget=0)
    return count_by_formula(layout, choice, method=spending.row)

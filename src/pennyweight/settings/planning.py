"""Find a recipe's base model and count what it trains, before any row is read."""

from __future__ import annotations

from pennyweight.base import BaseModel, ConfigChanges, locate, skeleton
from pennyweight.budget import Plan, make_plan
from pennyweight.budget.spending import Spending
from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe
from pennyweight.settings.task import task_of

__all__ = ["find_base", "plan", "spending_of"]


def find_base(recipe: Recipe, *, config_only: bool) -> BaseModel:
    """Find the recipe's base model; see `pennyweight.base.locate`."""
    return locate(
        recipe.base.name,
        labels=recipe.data.label_names,
        revision=recipe.base.revision,
        changes=ConfigChanges(
            dropout=recipe.base.dropout,
            pooling=recipe.base.pooling,
            multi_label=task_of(recipe) == "multi-label",
            head_rank=_head_rank(recipe),
        ),
        config_only=config_only or recipe.base.weights == "random",
    )


def _head_rank(recipe: Recipe) -> int | None:
    """Return the rank of a low-rank head; None for other heads."""
    if getattr(recipe.adapter, "head", None) != "low-rank":
        return None
    rank: int = recipe.adapter.head_rank  # type: ignore[attr-defined]
    return rank


def plan(recipe: Recipe, *, base: BaseModel | None = None) -> Plan:
    """Count exactly what a recipe trains, without loading or downloading weights.

    Args:
        recipe: the system to plan.
        base: its base model, where it has been found already.

    Raises:
        BudgetError: over budget; the text names the excess and the cheapest changes that fit.
        RecipeError: a pattern or rank does not fit the base.
        BaseModelError: the base's config cannot be found.
    """
    base = base or find_base(recipe, config_only=True)
    return make_plan(
        skeleton(base),
        spending_of(recipe),
        labels=len(recipe.data.label_names),
        budget=recipe.budget.trainable_parameters,
    )


def spending_of(recipe: Recipe) -> Spending:
    """Return the values of a recipe's `[adapter]` section.

    Raises:
        RecipeError: the section leaves ranks to a plan file or an allocation.
    """
    values = recipe.adapter.model_dump()
    if values.get("rank") == "allocate" or values.get("plan") is not None:
        raise RecipeError(
            "adapter.rank: the ranks have not been settled; call pennyweight.defaults.allocate"
        )
    return Spending.of(values)

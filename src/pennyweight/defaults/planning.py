"""Plan a recipe as users give it: by name or file, with keys that are still open."""

from __future__ import annotations

from pathlib import Path

from pennyweight.budget import Plan
from pennyweight.defaults.allocation import allocate
from pennyweight.defaults.complete import complete
from pennyweight.recipe import Recipe, as_recipe
from pennyweight.settings import plan as plan_complete

__all__ = ["plan"]


def plan(recipe: Recipe | str | Path) -> Plan:
    """Count exactly what a recipe trains.

    The training rows are read only if the recipe leaves something open, such as its labels. Weights
    are loaded only for an allocation that measures what ranks gain.

    Args:
        recipe: the system to plan; or the name of a shipped recipe, a TOML file, or a run
            directory.

    Raises:
        BudgetError: over budget; the text names the excess and the cheapest changes that fit.
        RecipeError: the recipe is not valid, or a pattern or rank does not fit the base.
        DataError: the training rows are needed and cannot be read.
        BaseModelError: the base's config cannot be found.
    """
    return plan_complete(allocate(complete(as_recipe(recipe)).recipe).recipe)

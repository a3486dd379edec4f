"""Recipes: a TOML file that describes a complete training run."""

from pennyweight.recipe.load import (
    as_recipe,
    change_recipe,
    dump_recipe,
    load_recipe,
    resolve_recipe,
    shipped_recipes,
    with_overrides,
)
from pennyweight.recipe.schema import Recipe

__all__ = [
    "Recipe",
    "as_recipe",
    "change_recipe",
    "dump_recipe",
    "load_recipe",
    "resolve_recipe",
    "shipped_recipes",
    "with_overrides",
]

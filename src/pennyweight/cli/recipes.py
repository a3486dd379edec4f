"""The `pennyweight recipes` command."""

from __future__ import annotations

import typer

__all__ = ["command"]


def command() -> None:
    """List the recipes and studies that ship with Pennyweight."""
    from pennyweight.recipe import shipped_recipes
    from pennyweight.recipe.study import shipped_studies

    recipes, studies = shipped_recipes(), shipped_studies()
    width = max(map(len, (*recipes, *studies)))
    for name, summary in recipes.items():
        typer.echo(f"{name:<{width}}  {summary}")
    typer.echo("\nStudies, for `pennyweight study`:")
    for name, summary in studies.items():
        typer.echo(f"{name:<{width}}  {summary}")

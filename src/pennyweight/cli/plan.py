"""`pennyweight plan`."""

from __future__ import annotations

import typer

from pennyweight.cli.options import Json, RecipeName, Set, print_json, quiet_libraries

__all__ = ["command"]


def command(recipe: RecipeName, overrides: Set = None, as_json: Json = False) -> None:
    """Count exactly what a recipe trains, without loading any weights; over budget exits with 2."""
    from pennyweight.recipe import load_recipe

    loaded = load_recipe(recipe, overrides=overrides or ())
    quiet_libraries()
    from pennyweight.cli.tables import plan_table
    from pennyweight.runs.planning import find_base, plan

    base = find_base(loaded, config_only=True)
    planned = plan(loaded, base=base)
    if as_json:
        print_json(planned.to_json(recipe=loaded.name, base=base.name))
        return
    plan_table(planned)
    if base.origin == "known config":
        typer.echo(f"({base.name}: planned on the config that comes with Pennyweight)")

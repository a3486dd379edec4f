"""The `pennyweight plan` command."""

from __future__ import annotations

from dataclasses import asdict

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import Json, RecipeOptions
from pennyweight.cli.output import print_json, quiet_libraries

__all__ = ["command"]


@flatten_options
def command(recipe: RecipeOptions, as_json: Json = False) -> None:
    """Count the trainable parameters of a recipe.

    The count is exact, and no weights are loaded. A plan over budget is refused with exit code 2.
    """
    loaded = recipe.load()
    quiet_libraries()
    from pennyweight.cli.tables import show_plan
    from pennyweight.settings import find_base, plan

    base = find_base(loaded, config_only=True)
    summary = plan(loaded, base=base).summary
    if as_json:
        print_json({"recipe": loaded.name, "base": base.name, **asdict(summary)})
        return
    show_plan(summary)
    if base.origin == "known config":
        typer.echo(f"({base.name}: planned with the config that ships with Pennyweight)")

"""The `pennyweight plan` command."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import Json, RecipeOptions
from pennyweight.cli.output import print_json, quiet_libraries

__all__ = ["command"]


@flatten_options
def command(
    recipe: RecipeOptions,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print how each automatic setting was derived, and why."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Count the trainable parameters of a recipe.

    The count is exact, and no weights are loaded. A plan over budget is refused with exit code 2.
    """
    loaded = recipe.load()
    quiet_libraries()
    from pennyweight.defaults import complete

    completed = complete(loaded)
    loaded = completed.recipe
    if explain and not as_json:
        for line in completed.lines():
            typer.echo(line)
    from pennyweight.cli.tables import show_plan
    from pennyweight.settings import find_base, plan

    base = find_base(loaded, config_only=True)
    summary = plan(loaded, base=base).summary
    if as_json:
        derived = [asdict(reason) for reason in completed.reasons]
        print_json(
            {"recipe": loaded.name, "base": base.name, "derived": derived, **asdict(summary)}
        )
        return
    show_plan(summary)
    if base.origin == "known config":
        typer.echo(f"({base.name}: planned with the config that ships with Pennyweight)")

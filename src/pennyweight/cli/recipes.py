"""`pennyweight recipes`."""

from __future__ import annotations

import typer

__all__ = ["command"]


def command() -> None:
    """List the recipes that ship, one line each."""
    from pennyweight.recipe import shipped_recipes

    shipped = shipped_recipes()
    width = max(map(len, shipped))
    for name, summary in shipped.items():
        typer.echo(f"{name:<{width}}  {summary}")

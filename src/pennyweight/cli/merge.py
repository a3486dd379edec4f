"""The `pennyweight merge` command."""

from __future__ import annotations

import typer

from pennyweight.cli.options import OutDirectory, Run
from pennyweight.cli.output import quiet_libraries

__all__ = ["command"]


def command(run: Run, out: OutDirectory) -> None:
    """Write a plain transformers model with the adapter merged in.

    Prints what has to be done outside the model, such as cleaning, which its README.md repeats.
    """
    quiet_libraries()
    from pennyweight.inference.merge import merge

    notes = merge(run, out=out)
    typer.echo(f"merged model in {out}; to get the run's predictions with it:")
    for note in notes:
        typer.echo(f"- {note}")

"""The `pennyweight merge` command."""

from __future__ import annotations

import typer

from pennyweight.cli.options import OutDirectory, Run
from pennyweight.cli.output import quiet_libraries

__all__ = ["command"]


def command(run: Run, out: OutDirectory) -> None:
    """Write a plain transformers model with the adapter merged in."""
    quiet_libraries()
    from pennyweight.inference.merge import merge

    merge(run, out=out)
    typer.echo(f"merged model in {out}")

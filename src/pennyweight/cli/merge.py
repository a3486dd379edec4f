"""`pennyweight merge`."""

from __future__ import annotations

import typer

from pennyweight.cli.options import Out, Run, quiet_libraries

__all__ = ["command"]


def command(run: Run, out: Out) -> None:
    """Fold a run's adapter into its base and write a plain transformers model."""
    quiet_libraries()
    from pennyweight.runs.using import merge

    merge(run, out=out)
    typer.echo(f"merged model in {out}")

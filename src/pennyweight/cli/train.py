"""`pennyweight train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.options import RecipeName, Set, SkipBadRows, quiet_libraries

__all__ = ["command"]


def command(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="The new run's directory.")],
    overrides: Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")
    ] = False,
    skip_bad_rows: SkipBadRows = False,
) -> None:
    """Train a recipe into a new run, prove its count, and evaluate it once on the held-out sets."""
    from pennyweight.recipe import load_recipe

    given = list(overrides or ())
    if skip_bad_rows:
        given.append("data.on_bad_row=set-aside")
    loaded = load_recipe(recipe, overrides=given)
    quiet_libraries()
    from pennyweight.cli.progress import watcher
    from pennyweight.cli.tables import headline
    from pennyweight.runs.training import train

    with watcher(every=loaded.train.log_every) as watching:
        record = train(loaded, out=out, resume=resume, watcher=watching)
    for name, metrics in record.metrics.items():
        typer.echo(headline(name, metrics, None))
    for mark in record.marks:
        typer.echo(mark)
    counts = record.parameters
    typer.echo(
        f"trainable parameters {counts['file']:,} of {counts['budget']:,} allowed, "
        f"proved from {out / 'adapter'}"
    )

"""`pennyweight study`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.options import Json, Set, print_json, quiet_libraries

__all__ = ["command"]


def command(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A shipped study's name, or a TOML file.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Holds one run per row.")],
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Train variations of a recipe over several seeds, and compare them; goes on where it stopped.

    Each row's accuracy is a mean over seeds with its 95 % interval; p is of the paired t-test
    against the first row.
    """
    from pennyweight.recipe.study import load_study

    loaded = load_study(study, overrides=list(overrides or ()))
    quiet_libraries()
    from pennyweight.cli.tables import study_table
    from pennyweight.runs.studies import run_study

    rows = run_study(loaded, out=out, say=lambda line: typer.echo(line, err=True))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        study_table(rows)
    if any(row.failures for row in rows):
        raise typer.Exit(2)

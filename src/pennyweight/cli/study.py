"""The `pennyweight study` command."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.interruption import continuable
from pennyweight.cli.options import Json, OutDirectory, Set
from pennyweight.cli.output import log_to_stderr, print_json, quiet_libraries
from pennyweight.cli.training_engine import EngineOptions

__all__ = ["command"]


@flatten_options
def command(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="The name of a shipped study, or a TOML file.")
    ],
    out: OutDirectory,
    engine: EngineOptions,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Train and compare variations of a recipe over several seeds.

    Each accuracy, or macro F1 where classes are uneven or texts may have several labels, is a mean
    over seeds with its 95% interval, and p is the p-value of a paired t-test against the first row,
    adjusted for the number of rows by Holm's method.
    With several data sets, rows are ranked on each of them, and their mean ranks are compared by
    Nemenyi's test.
    An interrupted study continues where it stopped.
    """
    from pennyweight.recipe.study import load_study

    loaded = load_study(study, overrides=list(overrides or ()))
    quiet_libraries()
    from pennyweight.cli.study_tables import show_study
    from pennyweight.search.studies import run_study

    with continuable("the same command continues the study"):
        rows = run_study(loaded, out=out, engine=engine.engine, log=log_to_stderr)
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        show_study(rows)
    if any(row.failures for row in rows):
        raise typer.Exit(2)

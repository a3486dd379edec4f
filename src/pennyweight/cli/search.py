"""The `pennyweight search` command."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.interruption import continuable
from pennyweight.cli.options import Json, OutDirectory, RecipeOptions
from pennyweight.cli.output import log_to_stderr, print_json, quiet_libraries
from pennyweight.cli.training_engine import SearchEngineOptions

__all__ = ["command"]


@flatten_options
def command(
    recipe: RecipeOptions,
    out: OutDirectory,
    engine: SearchEngineOptions,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", metavar="NUMBER", help="The number of trials; sets search.trials."
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="The database that holds the trials, such as postgresql://USER@HOST/NAME. If not "
            "given, an SQLite file in DIR.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for better values of a recipe's keys.

    The section [search] of the recipe says which keys; without it, the learning rate is searched.
    The first trial is the recipe itself. Trials are compared on validation rows; the test is used
    once, at the end, for the best trial and the recipe itself. DIR/best.toml is the recipe of the
    best trial. The same command continues a search that was stopped, and adds workers to one that
    is under way.
    """
    more = [] if trials is None else [f"search.trials={trials}"]
    loaded = recipe.load(*more)
    quiet_libraries()
    from pennyweight.cli.tables import show_search
    from pennyweight.report.search import write_search_report
    from pennyweight.search.search import run_search

    with continuable("the same command continues the search"):
        result = run_search(
            loaded,
            out=out,
            storage=storage,
            workers=engine.workers,
            engine=engine.engine,
            log=log_to_stderr,
        )
    note = write_search_report(result, out)
    if note is not None:
        log_to_stderr(note)
    if as_json:
        print_json(asdict(result))
    else:
        show_search(result)
        typer.echo(f"best recipe: {out / 'best.toml'}; report: {out / 'report.md'}")

"""The `pennyweight train` command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import RecipeOptions
from pennyweight.cli.output import quiet_libraries

if TYPE_CHECKING:
    from pennyweight.recipe import Recipe
    from pennyweight.runs.record import RunRecord

__all__ = ["command", "train_and_report"]


@flatten_options
def command(
    recipe: RecipeOptions,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="RUN",
            help="The run directory. A failed or interrupted run in it is replaced, unless "
            "--resume is given; a complete run is never replaced.",
        ),
    ],
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", metavar="NUMBER", help="A time limit for the whole run, in minutes."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume an unfinished run from its last checkpoint."),
    ] = False,
) -> None:
    """Train a recipe, verify its parameter count, and evaluate it.

    The parameters are counted in the saved file. The evaluation sets are used once, after
    training.
    """
    more = () if minutes is None else (f"train.minutes={minutes}",)
    train_and_report(recipe.load(*more), out, resume=resume)


def train_and_report(recipe: Recipe, out: Path, *, resume: bool = False) -> RunRecord:
    """Train a recipe with progress on the terminal, and print the results of the run."""
    quiet_libraries()
    from pennyweight.cli.progress import watcher
    from pennyweight.cli.tables import baseline_line, headline
    from pennyweight.training.train import train

    with watcher(every=recipe.train.log_every) as watching:
        record = train(recipe, out=out, resume=resume, watcher=watching)
    # Of several processes, as torchrun starts them, one prints.
    if os.environ.get("RANK", "0") != "0":
        return record
    for name, metrics in record.metrics.items():
        typer.echo(headline(name, metrics))
        if (line := baseline_line(name, record)) is not None:
            typer.echo(f"  {line}")
    if not record.metrics:
        typer.echo(
            "no labelled rows were held out, so nothing was evaluated; name some with --test FILE, "
            "or hold out a part of the training rows with --set data.validation_fraction=0.2"
        )
    for mark in record.marks:
        typer.echo(mark)
    counts, artifact = record.parameters, record.artifact
    if counts is not None and artifact is not None:
        state = (
            f"over the budget of {counts.budget:,}: it can serve as a teacher or a baseline, but "
            "cannot be submitted;"
            if record.over_budget
            else f"of {counts.budget:,} allowed,"
        )
        typer.echo(
            f"trainable parameters {counts.file:,} {state} verified in {out / artifact.directory}"
        )
    return record

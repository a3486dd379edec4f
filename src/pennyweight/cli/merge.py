"""The `pennyweight merge` command."""

from __future__ import annotations

from typing import Annotated

import typer

from pennyweight.cli.options import CheckedData, OutDirectory, Run
from pennyweight.cli.output import quiet_libraries

__all__ = ["command"]


def command(
    run: Run,
    out: OutDirectory,
    data: CheckedData = None,
    rows: Annotated[
        int,
        typer.Option("--rows", min=1, metavar="N", help="The largest number of rows to compare."),
    ] = 200,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            min=0.0,
            metavar="SHARE",
            help="The largest allowed difference of logits, as a share of the largest logit.",
        ),
    ] = 1e-3,
) -> None:
    """Write a plain transformers model with the adapter merged in.

    The written model is loaded again and compared with the run on real rows: the largest and the
    mean difference of logits, and the share of equal labels. If it differs by more than the
    tolerance, nothing is written.

    Prints what has to be done outside the model, such as cleaning, which its README.md repeats.
    """
    quiet_libraries()
    from pennyweight.inference.merge import MergeCheck, merge

    report = merge(run, out=out, check=MergeCheck(data, rows, tolerance))
    typer.echo(report.describe())
    typer.echo(f"merged model in {out}; to get the run's predictions with it:")
    for note in report.notes:
        typer.echo(f"- {note}")

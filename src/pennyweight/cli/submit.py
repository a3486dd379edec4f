"""The `pennyweight submit` command."""

from __future__ import annotations

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import Out, RowsOptions, RunOptions
from pennyweight.cli.output import print_rows_written, quiet_libraries

__all__ = ["command"]


@flatten_options
def command(model: RunOptions, rows: RowsOptions, out: Out) -> None:
    """Write a competition submission: a CSV file of ID and Label.

    The file has one row per input row, in the same order, and labels are indices from 0.
    """
    quiet_libraries()
    from pennyweight.inference.submit import submit
    from pennyweight.runs.record import load_record

    written = submit(model.run, rows.source, out=out, backend=model.backend.value)
    for mark in load_record(model.run).marks:
        typer.echo(mark)
    print_rows_written(written, out)

"""The `pennyweight predict` command."""

from __future__ import annotations

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import Out, RowsOptions, RunOptions, SkipBadRows
from pennyweight.cli.output import print_rows_written, quiet_libraries

__all__ = ["command"]


@flatten_options
def command(
    model: RunOptions,
    rows: RowsOptions,
    out: Out,
    skip_bad_rows: SkipBadRows = False,
) -> None:
    """Write the label and the probabilities of every row as CSV."""
    quiet_libraries()
    from pennyweight.inference.predict import predict
    from pennyweight.runs.record import load_record

    written = predict(
        model.run,
        rows.source,
        out=out,
        on_bad_row="set-aside" if skip_bad_rows else "stop",
        backend=model.backend.value,
    )
    for mark in load_record(model.run).marks:
        typer.echo(mark)
    print_rows_written(written, out)

"""`pennyweight predict`."""

from __future__ import annotations

import typer

from pennyweight.cli.options import (
    Backend,
    BackendName,
    Data,
    Format,
    Out,
    Run,
    SkipBadRows,
    TextColumn,
    quiet_libraries,
    source,
)

__all__ = ["command"]


def command(
    run: Run,
    data: Data,
    out: Out,
    file_format: Format = None,
    text_column: TextColumn = None,
    skip_bad_rows: SkipBadRows = False,
    backend: Backend = BackendName.torch,
) -> None:
    """Write label, confidence and probabilities of every row, labelled or not, as CSV."""
    quiet_libraries()
    from pennyweight.runs.record import load_record
    from pennyweight.runs.using import predict

    rows = predict(
        run,
        source(data, file_format, text_column, None),
        out=out,
        on_bad_row="set-aside" if skip_bad_rows else "stop",
        backend=backend.value,
    )
    for mark in load_record(run).marks:
        typer.echo(mark)
    typer.echo(f"{rows:,} rows in {out}")

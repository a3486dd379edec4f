"""`pennyweight submit`."""

from __future__ import annotations

import typer

from pennyweight.cli.options import (
    Backend,
    BackendName,
    Data,
    Format,
    Out,
    Run,
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
    backend: Backend = BackendName.torch,
) -> None:
    """Write a competition's submission: ID,Label, one row per input row, in order."""
    quiet_libraries()
    from pennyweight.runs.record import load_record
    from pennyweight.runs.using import submit

    rows = submit(run, source(data, file_format, text_column, None), out=out, backend=backend.value)
    for mark in load_record(run).marks:
        typer.echo(mark)
    typer.echo(f"{rows:,} rows in {out}")

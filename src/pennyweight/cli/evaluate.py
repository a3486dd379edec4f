"""`pennyweight evaluate`."""

from __future__ import annotations

import typer

from pennyweight.cli.options import (
    Backend,
    BackendName,
    Data,
    Format,
    Json,
    LabelColumn,
    Run,
    SkipBadRows,
    TextColumn,
    print_json,
    quiet_libraries,
    source,
)

__all__ = ["command"]


def command(
    run: Run,
    data: Data,
    file_format: Format = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    skip_bad_rows: SkipBadRows = False,
    backend: Backend = BackendName.torch,
    as_json: Json = False,
) -> None:
    """Measure a run on labelled rows: accuracy with interval, F1, confusion, calibration."""
    quiet_libraries()
    from pennyweight.cli.tables import headline, metrics_table
    from pennyweight.runs.record import load_record
    from pennyweight.runs.using import evaluate

    metrics = evaluate(
        run,
        source(data, file_format, text_column, label_column),
        on_bad_row="set-aside" if skip_bad_rows else "stop",
        backend=backend.value,
    ).to_json()
    record = load_record(run)
    if as_json:
        print_json({**metrics, "leaks": record.leaks, "transductive": record.transductive})
        return
    metrics_table(metrics)
    for mark in record.marks:
        typer.echo(mark)
    typer.echo(headline(data, metrics, None))

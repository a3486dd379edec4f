"""The `pennyweight evaluate` command."""

from __future__ import annotations

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import Json, LabelledRowsOptions, RunOptions, SkipBadRows
from pennyweight.cli.output import print_json, quiet_libraries

__all__ = ["command"]


@flatten_options
def command(
    model: RunOptions,
    rows: LabelledRowsOptions,
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
) -> None:
    """Evaluate a run on labelled rows.

    Prints the accuracy with its 95% interval, precision, recall and F1 by class, the confusion
    matrix, and calibration metrics. Use --json for all metrics.
    """
    quiet_libraries()
    from pennyweight.cli.tables import headline, show_metrics
    from pennyweight.inference.evaluate import evaluate
    from pennyweight.runs.record import load_record

    metrics = evaluate(
        model.run,
        rows.source,
        on_bad_row="set-aside" if skip_bad_rows else "stop",
        backend=model.backend.value,
    )
    record = load_record(model.run)
    if as_json:
        marks = {"leaks": record.leaks, "transductive": record.transductive}
        print_json({**metrics.to_json(), **marks})
        return
    show_metrics(metrics)
    for mark in record.marks:
        typer.echo(mark)
    typer.echo(headline(rows.data, metrics))

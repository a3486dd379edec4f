"""The `pennyweight evaluate` command."""

from __future__ import annotations

from typing import Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import Json, LabelledRowsOptions, RunOptions, SkipBadRows
from pennyweight.cli.output import log_to_stderr, preload, print_json, quiet_libraries

__all__ = ["command"]


@flatten_options
def command(
    model: RunOptions,
    rows: LabelledRowsOptions,
    skip_bad_rows: SkipBadRows = False,
    all_classes: Annotated[
        bool,
        typer.Option("--all-classes", help="Show every class, also where there are more than 20."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Evaluate a run on labelled rows.

    Prints precision, recall and F1 by class, the confusion matrix or, where it does not fit the
    terminal, the largest confusions, calibration metrics, and the accuracy with its 95% interval.
    Where classes are uneven or rows have several labels, macro F1 takes the place of the accuracy.
    Of more than 20 classes, those with the lowest F1 are shown. Use --json for all metrics.
    """
    quiet_libraries()
    preload("peft", "pennyweight.inference.evaluate")
    from pennyweight.cli.tables import headline, show_metrics
    from pennyweight.inference.evaluate import evaluate
    from pennyweight.runs.record import load_record

    metrics = evaluate(
        model.run,
        rows.source,
        on_bad_row="set-aside" if skip_bad_rows else "stop",
        backend=model.backend.value,
        log=log_to_stderr,
    )
    record = load_record(model.run)
    if as_json:
        marks = {"leaks": record.leaks, "transductive": record.transductive}
        print_json({**metrics.to_json(), **marks})
        return
    show_metrics(metrics, all_classes=all_classes)
    for mark in record.marks:
        typer.echo(mark)
    typer.echo(headline(rows.data, metrics))

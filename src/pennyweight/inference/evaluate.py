"""Measure a finished run on labelled rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pennyweight.data.ingest import OnBadRow, Rows, read_rows
from pennyweight.data.source import Source
from pennyweight.engine.batches.tokenize import label_array
from pennyweight.evaluation.metrics import AnyMetrics, measure
from pennyweight.inference.classifier import BackendName, Classifier
from pennyweight.inference.spool import InputRows, open_input
from pennyweight.inference.texts import refuse_single_texts
from pennyweight.runs.directory import RunDirectory

__all__ = ["evaluate", "read_for"]


def evaluate(
    run: str | Path,
    data: str | Source,
    *,
    on_bad_row: OnBadRow = "stop",
    backend: BackendName = "torch",
    log: Callable[[str], None] = lambda _: None,
) -> AnyMetrics:
    """Measure a run's classifier on labelled rows, cleaned and tokenized as in training.

    Args:
        run: the run's directory.
        data: a file, "hub:NAME[:SPLIT]", "sample:SPLIT", "-" for standard input, or a `Source`
            that names columns.
        on_bad_row: "stop", or "set-aside" to write bad rows to `RUN/bad_rows/evaluate.jsonl`.
        backend: what runs the model; see `Classifier.load`.
        log: gets a line if columns were chosen by their content, or numbers are read as classes.

    Raises:
        RunError: it is no complete run.
        DataError: the rows cannot be read.
        NonFiniteLogitsError: a logit is NaN or infinite.
    """
    classifier = Classifier.load(run, backend=backend)
    with open_input(data) as rows_in:
        rows = read_for(classifier, run, rows_in, "evaluate", on_bad_row=on_bad_row)
        if rows.note:
            log(rows.note)
        return measure(
            classifier.outputs(rows.table).logits,
            label_array(rows.table, classifier.settings.multi_label_classes),
            names=classifier.labels,
            bins=classifier.settings.inference.calibration_bins,
            thresholds=classifier.thresholds,
        )


def read_for(
    classifier: Classifier,
    run: str | Path,
    rows: InputRows,
    purpose: str,
    *,
    on_bad_row: OnBadRow,
) -> Rows:
    """Read rows as the run's training rows were read; only "evaluate" needs labels.

    Bad rows that are set aside go to `RUN/bad_rows/PURPOSE.jsonl`.

    Raises:
        DataError: the rows cannot be read, or are lines of standard input where the run needs
            pairs of texts.
    """
    if rows.cache is not None and rows.source.format == "lines":
        refuse_single_texts(classifier.pair_columns, name="standard input")
    options = classifier.read_options(
        bad_rows=RunDirectory(Path(run)).bad_rows, on_bad_row=on_bad_row
    )
    if rows.cache is not None:
        options = replace(options, cache=rows.cache)
    return read_rows(purpose, rows.source, options, labelled=purpose == "evaluate")

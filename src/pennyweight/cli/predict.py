"""The `pennyweight predict` command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.interruption import continuable
from pennyweight.cli.options import RunOptions
from pennyweight.cli.output import (
    log_to_stderr,
    preload,
    print_rows_written,
    quiet_libraries,
)
from pennyweight.cli.predict_options import InputArguments, OutputArguments, PartArguments
from pennyweight.errors import DataError, RunError

if TYPE_CHECKING:
    from pennyweight.data.ingest import OnBadRow
    from pennyweight.data.source import Source
    from pennyweight.inference.layout import OutputOptions
    from pennyweight.inference.parts.predict_files import PartOptions, PredictedFiles
    from pennyweight.inference.predict import PredictedRows
    from pennyweight.runs.record import RunRecord

__all__ = ["command"]

# What is printed for a text that gets no label: of a multi-label run if all labels are below their
# thresholds, and otherwise if the confidence is too low.
_NO_LABEL = "(no label)"
_SkipBadRows = Annotated[
    bool,
    typer.Option(
        "--skip-bad-rows",
        help="Set unusable rows aside instead of stopping: in the run directory, or in _bad_rows "
        "of the folder that is predicted into.",
    ),
]


@flatten_options
def command(
    model: RunOptions,
    rows: InputArguments,
    output: OutputArguments,
    parts: PartArguments,
    skip_bad_rows: _SkipBadRows = False,
) -> None:
    """Classify texts, or the rows of one or many files.

    Texts that are given as arguments are printed with their label and its probability. For rows,
    the label, its probability and those of all classes are written as CSV, JSON Lines or Parquet,
    together with the columns of the input. A run on rows with several labels gives each text
    the labels whose probability reaches their threshold. With --abstain-below or --coverage, rows
    of low confidence get no label. A run on pairs of texts needs a file with the two columns. Many
    files, or a large one, are predicted into a folder, part by part and in constant memory.
    """
    given = rows.rows
    if rows.texts and output.columns != "all":
        raise DataError("--columns is for the rows of --data: texts have no columns; leave it out")
    if rows.data is None and output.out is not None and _is_folder(output.out):
        raise RunError(
            f"--out {output.out}: a folder, into which only the rows of --data are predicted; name "
            "a file"
        )
    quiet_libraries()
    preload("peft", "pennyweight.inference.predict")
    from pennyweight.inference.output import is_standard_output
    from pennyweight.inference.predict import predict

    into_folder = rows.data is not None and _is_into_folder(rows.data, output.out)
    if parts != PartArguments() and not into_folder:
        raise RunError(
            "--engine, --workers and --rows-per-part are for many rows: give --data, and a folder "
            "as --out, such as predictions/"
        )
    if rows.texts and is_standard_output(output.out) and output.out_format is None:
        _print_labels(model, rows.texts, output.options)
        return
    on_bad_row: OnBadRow = "set-aside" if skip_bad_rows else "stop"
    if rows.data is not None and into_folder:
        options = parts.options(model, on_bad_row)
        _predict_files(model, rows.source_at(rows.data), output, options)
        return
    predicted = predict(
        model.run,
        given,
        out=output.out,
        on_bad_row=on_bad_row,
        backend=model.backend.value,
        output=output.options,
    )
    to_stdout = is_standard_output(output.out)
    log = log_to_stderr if to_stdout else typer.echo
    _print_notes(model, predicted, log)
    if predicted.bad_rows_file is not None:
        log(_count(predicted, "standard output" if to_stdout else str(output.out)))
    elif not to_stdout:
        print_rows_written(predicted.predicted, Path(str(output.out)))


def _is_into_folder(data: str, out: str | None) -> bool:
    """Return whether rows are predicted in parts: of many files, or into a folder.

    Raises:
        RunError: many files are to become one.
    """
    from pennyweight.data.read.storage import is_url
    from pennyweight.inference.output import FORMATS, is_standard_output
    from pennyweight.inference.parts.files import names_several

    if out is not None and _is_folder(out):
        return True
    if not names_several(data):
        return False
    endings = tuple(ending for each in FORMATS.values() for ending in each.endings)
    if is_standard_output(out) or str(out).lower().endswith(endings):
        rows = "rows behind a URL" if is_url(data) else "the files of a folder or pattern"
        raise RunError(
            f"--data {data}: {rows} are predicted into a folder; add it, as in --out predictions/"
        )
    return True


def _is_folder(out: str) -> bool:
    from pennyweight.data.read.storage import is_url

    return out.endswith("/") or is_url(out) or Path(out).is_dir()


def _predict_files(
    model: RunOptions, source: Source, output: OutputArguments, options: PartOptions
) -> None:
    """Predict into a folder; an interruption says how to go on."""
    from pennyweight.inference.parts.predict_files import predict_files
    from pennyweight.report.phrases import plural

    out = str(output.out)
    with continuable(f"what is done is in {out}, and the same command continues"):
        predicted = predict_files(
            model.run, source, out=out, output=output.options, options=options, log=log_to_stderr
        )
    _print_notes(model, predicted, typer.echo)
    bad = plural(predicted.bad, "bad row")
    aside = f", {bad} in {out.rstrip('/')}/_bad_rows" if predicted.bad else ""
    new = predicted.predicted - predicted.predicted_before
    earlier = (
        f" ({predicted.predicted_before:,} earlier, {new:,} now)"
        if predicted.predicted_before
        else ""
    )
    typer.echo(
        f"{plural(predicted.predicted, 'row')} in {plural(predicted.parts, 'file')} in {out}"
        f"{earlier}{aside}"
    )


def _print_notes(
    model: RunOptions, predicted: PredictedRows | PredictedFiles, log: Callable[[str], None]
) -> None:
    """Print what must be known about the run and the output."""
    from pennyweight.runs.record import load_record

    record = load_record(model.run)
    for mark in record.marks:
        log(mark)
    if predicted.abstain_below is not None:
        log(_abstentions(predicted, record))
    for name, shown in predicted.renamed.items():
        log(f'the input column "{name}" is written as "{shown}"')


def _count(rows: PredictedRows, out: str) -> str:
    return (
        f"{rows.predicted:,} of {rows.read:,} rows predicted in {out}, "
        f"{rows.read - rows.predicted:,} set aside in {rows.bad_rows_file}"
    )


def _abstentions(rows: PredictedRows | PredictedFiles, record: RunRecord) -> str:
    """Return how many rows have no label, and how the threshold does on validation."""
    from pennyweight.evaluation.selective import point_at
    from pennyweight.inference.abstention import validation_curve

    assert rows.abstain_below is not None  # noqa: S101 - called where rows may have no label
    share = rows.abstained / max(rows.predicted, 1)
    line = (
        f"{rows.abstained:,} of {rows.predicted:,} rows ({share:.1%}) have no label: their "
        f"confidence is below {rows.abstain_below:.4f}"
    )
    point = point_at(validation_curve(record), rows.abstain_below)
    if point is None:
        return line
    return (
        f"{line}; on validation, {point.coverage:.1%} of the rows get a label, and "
        f"{point.accuracy:.1%} of these are right"
    )


def _print_labels(model: RunOptions, texts: Sequence[str], output: OutputOptions) -> None:
    """Print the labels of each text, one per line, with their probabilities."""
    from pennyweight.inference.classifier import Classifier
    from pennyweight.inference.predict import best_labels

    classifier = Classifier.load(model.run, backend=model.backend.value)
    threshold = output.threshold(classifier.record, classifier.task) or 0.0
    best = best_labels(classifier, texts, number=output.top_k)
    none = any(not answers or answers[0][1] < threshold for answers in best)
    width = max(map(len, (*classifier.labels, *([_NO_LABEL] if none else []))))
    for mark in classifier.record.marks:
        log_to_stderr(mark)
    for text, answers in zip(texts, best, strict=True):
        if not answers:
            typer.echo(f"{_NO_LABEL:<{width}}  {'':6}  {text}")
        for rank, (label, probability) in enumerate(answers):
            shown = _NO_LABEL if rank == 0 and probability < threshold else label
            typer.echo(f"{shown:<{width}}  {probability:.4f}  {text}")

"""Predict every row of a file, of standard input, or of a list of texts with a finished run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pennyweight.data.bad_rows import BadRowLog
from pennyweight.data.ingest import OnBadRow, copy_bad_rows
from pennyweight.data.label import BadRow
from pennyweight.data.read import MOST_COLUMNS, OpenFile, Record, check_columns
from pennyweight.data.row import RowParser, row_parser
from pennyweight.data.source import Source, locate
from pennyweight.errors import DataError
from pennyweight.evaluation.decisions import given_classes, ranked
from pennyweight.inference.classifier import BackendName, Classifier
from pennyweight.inference.layout import (
    Layout,
    OutputOptions,
    answers_to_write,
    check_top_k,
    layout_of,
)
from pennyweight.inference.output import (
    FORMATS,
    OutputBlock,
    RowWriter,
    format_of,
    open_writer,
    refuse_to_replace,
)
from pennyweight.inference.rows import row_blocks
from pennyweight.inference.spool import InputRows, open_input
from pennyweight.inference.texts import Text, refuse_single_texts
from pennyweight.runs.directory import RunDirectory

__all__ = ["Counts", "OutputOptions", "PredictedRows", "best_labels", "predict", "predict_records"]


@dataclass(frozen=True, slots=True)
class PredictedRows:
    """Numbers of rows that were predicted and set aside.

    Attributes:
        predicted: number of rows that were written.
        read: number of rows in the input, including those that were set aside.
        bad_rows_file: JSON Lines file with the rows that were set aside; None if there are none.
        renamed: name in the output of each input column that has the name of an output column.
        abstained: number of rows without a label, because its probability is too low.
        abstain_below: the confidence below which no label is given; None if one is given always.
    """

    predicted: int
    read: int
    bad_rows_file: Path | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    abstained: int = 0
    abstain_below: float | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of rows that were written, and of those among them without a label."""

    rows: int
    abstained: int


def predict(
    run: str | Path,
    data: str | Source | Sequence[Text],
    *,
    out: str | Path | None = None,
    on_bad_row: OnBadRow = "stop",
    backend: BackendName = "torch",
    output: OutputOptions | None = None,
) -> PredictedRows:
    """Write `row`, the input's columns, `label`, `confidence` and probabilities for each row.

    For a multi-label run, `labels` has all labels of the row: a list in JSON Lines; otherwise
    joined by the separator of the run's own rows, or by "|".
    An input column that has the name of an output column is written as "input NAME". Where the
    classifier abstains, the label is empty, or null in JSON Lines and Parquet. All rows are read
    and checked before the first is predicted.

    Args:
        run: the run's directory.
        data: a source, or its location, with "-" for standard input; or texts, one per row, which
            are tuples of two texts for a run on pairs.
        out: the file: JSON Lines if it ends in .jsonl, Parquet if it ends in .parquet, otherwise
            CSV; None or "-" for standard output.
        on_bad_row: "stop", or "set-aside" to write bad rows to `RUN/bad_rows/predict.jsonl`.
        backend: what runs the model; see `Classifier.load`.
        output: what is written for each row.

    Raises:
        RunError: it is no complete run, `out` cannot be written or holds the rows, `output.top_k`
            is not between 1 and the number of classes, or abstaining is not possible.
        DataError: the rows cannot be read, or lack a column of `output.columns`, or are single
            texts where the run needs pairs.
        NonFiniteLogitsError: a logit is NaN or infinite; no file is written.
    """
    output = output or OutputOptions()
    refuse_to_replace(data, out)
    classifier = Classifier.load(run, backend=backend)
    answers = answers_to_write(
        classifier.settings, classifier.record, classifier.thresholds, output
    )
    _check_pairs(classifier, data)
    with open_input(data) as rows_in:
        rows = _CheckedRows.of(classifier, Path(run), rows_in, on_bad_row)
        output_format = output.output_format or format_of(out)
        is_nested = FORMATS[output_format].is_nested
        keeps_objects = is_nested and output.columns is None
        file = rows.file if keeps_objects else replace(rows.file, columns=rows.columns)
        layout = layout_of(
            answers, file, output.columns, is_nested=is_nested, name=rows_in.source.location
        )
        if keeps_objects:
            layout = replace(layout, other_keys="write")
        check_columns(layout.copied, rows_in.source.location)
        with open_writer(out, layout, output_format) as writer:
            records = rows.file.records(tuple({*rows.parser.columns.every, *layout.copied}))
            counts = predict_records(
                classifier, records, rows.parser, layout, writer=writer, on_bad_row=_skip
            )
    more = (layout.renamed, counts.abstained, answers.abstain_below)
    return PredictedRows(counts.rows, rows.read, rows.bad_rows_file, *more)


def predict_records(
    classifier: Classifier,
    records: Iterable[Record],
    parser: RowParser,
    layout: Layout,
    *,
    writer: RowWriter,
    on_bad_row: Callable[[Record, BadRow], None],
) -> Counts:
    """Predict the usable rows among records of a file, in constant memory, and count them.

    Args:
        classifier: of the run.
        records: of the file, with the columns that `parser` and `layout` need.
        parser: of the file.
        layout: the columns of the output.
        writer: of the output.
        on_bad_row: is called with each row that cannot be used; it may raise an error.

    Raises:
        NonFiniteLogitsError: a logit is NaN or infinite.
    """
    rows = abstained = 0
    for block in row_blocks(records, parser, layout, on_bad_row=on_bad_row):
        probabilities = classifier.cleaned_probabilities(block.texts)
        writer.write(OutputBlock(block.numbers, block.copied, probabilities, block.others))
        rows += len(block.numbers)
        abstained += layout.answers.abstained(probabilities)
    return Counts(rows, abstained)


@dataclass(frozen=True, slots=True)
class _CheckedRows:
    """A source whose rows have all been read once.

    Attributes:
        file: the open file.
        parser: of its rows.
        read: number of rows.
        bad_rows_file: of the rows that were set aside; None if there are none.
        columns: those of the file, and of JSON Lines the keys of all objects.
    """

    file: OpenFile
    parser: RowParser
    read: int
    bad_rows_file: Path | None
    columns: tuple[str, ...]

    @classmethod
    def of(
        cls, classifier: Classifier, run: Path, rows: InputRows, on_bad_row: OnBadRow
    ) -> _CheckedRows:
        """Read all rows of a source; those that are set aside go to `RUN/bad_rows/predict.jsonl`.

        Raises:
            DataError: the rows cannot be read, none can be used, or one is bad and that stops.
        """
        if rows.cache is not None and rows.source.format == "lines":
            refuse_single_texts(classifier.pair_columns, name="standard input")
        options = classifier.read_options(
            bad_rows=RunDirectory(run).bad_rows, on_bad_row=on_bad_row
        )
        located = locate(rows.source)
        file, name = located.open(), located.name
        parser = row_parser(file, rows.source, options, name=name, labelled=False)
        read, columns = 0, dict.fromkeys(file.columns)
        with tempfile.TemporaryDirectory(prefix="pennyweight-") as folder:
            bad_rows = Path(folder) / "bad-rows.jsonl"
            with bad_rows.open("w", encoding="utf-8") as bad_rows_file:
                log = BadRowLog(bad_rows_file, name)
                records = iter(file.records(parser.columns.every))
                for record in records:
                    read += 1
                    # Objects of JSON Lines may have more keys than the first ones.
                    if (
                        record.values
                        and len(columns) <= MOST_COLUMNS
                        and not columns.keys() >= record.values.keys()
                    ):
                        columns.update(dict.fromkeys(record.values))
                    try:
                        parser(record)
                    except BadRow as problem:
                        if on_bad_row == "stop":
                            raise log.error(
                                record, problem, following=records, parser=parser
                            ) from None
                        log.add(record, problem)
            target = RunDirectory(run).bad_rows / "predict.jsonl" if log.rows else None
            if target is not None:
                copy_bad_rows(bad_rows, target)
        if read == log.rows:
            reason = "the source has no rows"
            if read:
                reason = (
                    f"none of its {read} rows can be used; the first problem: {log.first_problem}"
                )
            raise DataError(f"{name}: {reason}")
        return cls(file, parser, read, target, tuple(columns))


def _skip(record: Record, problem: BadRow) -> None:
    """Leave out a row that has been set aside before."""


def best_labels(
    classifier: Classifier, texts: Sequence[str], *, number: int | None = None
) -> list[list[tuple[str, float]]]:
    """Return labels of each text with their probabilities, the most probable first.

    Args:
        classifier: of a run.
        texts: to be classified.
        number: how many labels to return for each text; None for the labels that the classifier
            gives, which is one, or any number for a multi-label run.

    Raises:
        RunError: `number` is not between 1 and the number of classes.
        DataError: the run is on pairs of texts.
    """
    check_top_k(number, classifier.labels)
    _check_pairs(classifier, texts)
    rows = classifier.predict_probabilities(texts)
    if number is None:
        best = given_classes(rows, classifier.thresholds)
    else:
        best = ranked(rows)[:, :number].tolist()
    return [
        [(classifier.labels[index], float(row[index])) for index in order]
        for row, order in zip(rows, best, strict=True)
    ]


def _check_pairs(classifier: Classifier, data: str | Source | Sequence[Text]) -> None:
    """Refuse single texts in memory where a run needs pairs.

    Raises:
        DataError: a text is given alone.
    """
    if not isinstance(data, str | Source) and any(isinstance(text, str) for text in data):
        refuse_single_texts(classifier.pair_columns, name="texts")

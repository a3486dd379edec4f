"""Predict every row of a file, of standard input, or of a list of texts with a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np

from pennyweight.data.ingest import OnBadRow
from pennyweight.data.source import Source, locate
from pennyweight.errors import DataError, RunError
from pennyweight.inference.classifier import BackendName, Classifier
from pennyweight.inference.evaluate import read_for
from pennyweight.inference.output import OutputFormat, format_of, write_rows
from pennyweight.inference.processing import probabilities_of
from pennyweight.inference.spool import open_input
from pennyweight.inference.texts import Text, refuse_single_texts

__all__ = ["OutputOptions", "PredictedRows", "best_labels", "predict"]

# Joins the labels of a row where the run's own rows have no separator.
_SEPARATOR = "|"


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What is written for each row.

    Attributes:
        columns: input columns that are copied to the output; None for all of them.
        top_k: write the labels and probabilities of this many best classes; None to write the
            probability of every class.
        output_format: "csv" or "jsonl"; None to decide by the ending of the file.
    """

    columns: tuple[str, ...] | None = None
    top_k: int | None = None
    output_format: OutputFormat | None = None


@dataclass(frozen=True, slots=True)
class PredictedRows:
    """What became of the rows.

    Attributes:
        predicted: number of rows that were written.
        read: number of rows in the input, including those that were set aside.
        bad_rows_file: JSON Lines file with the rows that were set aside; None if there are none.
        renamed: name in the output of each input column that has the name of an output column.
    """

    predicted: int
    read: int
    bad_rows_file: Path | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)


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

    For a multi-label run, `labels` has all labels of the row: a list in JSON Lines; in CSV, joined
    by the separator of the run's own rows, or by "|".
    An input column that has the name of an output column is written as "input NAME".

    Args:
        run: the run's directory.
        data: a source, or its location, with "-" for standard input; or texts, one per row, which
            are tuples of two texts for a run on pairs.
        out: the file, CSV or, if it ends in .jsonl, JSON Lines; None or "-" for standard output.
        on_bad_row: "stop", or "set-aside" to write bad rows to `RUN/bad_rows/predict.jsonl`.
        backend: what runs the model; see `Classifier.load`.
        output: what is written for each row.

    Raises:
        RunError: it is no complete run, `out` cannot be written, or `output.top_k` is not
            between 1 and the number of classes.
        DataError: the rows cannot be read, or lack a column of `output.columns`, or are single
            texts where the run needs pairs.
        NonFiniteLogitsError: a logit is NaN or infinite; no file is written.
    """
    output = output or OutputOptions()
    classifier = Classifier.load(run, backend=backend)
    answers = _Answers(
        classifier.labels,
        _checked_top_k(output.top_k, classifier.labels),
        thresholds=classifier.thresholds,
        separator=classifier.settings.data.read.label_separator or _SEPARATOR,
    )
    _check_pairs(classifier, data)
    with open_input(data) as rows_in:
        rows = read_for(classifier, run, rows_in, "predict", on_bad_row=on_bad_row)
        output_format = output.output_format or format_of(out)
        nested = output_format == "jsonl"
        reserved = ("row", *(answers.keys if nested else answers.columns))
        copied = _Copied.of(rows_in.source, output.columns, reserved=reserved)
        write_rows(
            out,
            _lines(classifier, rows.table, answers, copied, nested=nested),
            columns=("row", *copied.names.values(), *answers.columns),
            output_format=output_format,
        )
        renamed = {name: shown for name, shown in copied.names.items() if name != shown}
        return PredictedRows(len(rows.table), rows.read, rows.bad_rows_file, renamed)


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
    _checked_top_k(number, classifier.labels)
    _check_pairs(classifier, texts)
    rows = classifier.predict_probabilities(texts)
    if number is None and classifier.thresholds is not None:
        given = classifier.thresholds
        return [
            [(classifier.labels[i], float(row[i])) for i in _ranked(row) if row[i] >= given[i]]
            for row in rows
        ]
    return [_best(classifier.labels, row, number or 1) for row in rows]


def _check_pairs(classifier: Classifier, data: str | Source | Sequence[Text]) -> None:
    """Refuse single texts in memory where a run needs pairs.

    Raises:
        DataError: a text is given alone.
    """
    if not isinstance(data, str | Source) and any(isinstance(text, str) for text in data):
        refuse_single_texts(classifier.pair_columns, name="texts")


@dataclass(frozen=True, slots=True)
class _Answers:
    """Turns the probabilities of a row into values by column.

    Attributes:
        labels: names of the classes.
        top_k: number of the best classes to write; None for all probabilities.
        thresholds: of a multi-label run, whose answer is a list of labels; None otherwise.
        separator: joins several labels in one cell.
    """

    labels: tuple[str, ...]
    top_k: int | None
    thresholds: np.ndarray | None = None
    separator: str = _SEPARATOR

    @property
    def columns(self) -> tuple[str, ...]:
        given = () if self.thresholds is None else ("labels",)
        if self.top_k is None:
            best = ("label", "confidence") if self.thresholds is None else ()
            return (*given, *best, *(f"probability of {name}" for name in self.labels))
        more = (
            name
            for rank in range(2, self.top_k + 1)
            for name in (f"label {rank}", f"confidence {rank}")
        )
        return (*given, "label", "confidence", *more)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a row in JSON Lines."""
        answer = ("label", "confidence") if self.thresholds is None else ("labels",)
        return (*answer, "probabilities" if self.top_k is None else "top")

    def flat(self, probabilities: np.ndarray) -> dict[str, object]:
        """Return one value for each column, with probabilities as text of six decimals."""
        cells: list[object] = []
        if self.thresholds is not None:
            cells.append(self.separator.join(self._given(probabilities)))
        if self.top_k is not None or self.thresholds is None:
            pairs = _best(self.labels, probabilities, self.top_k or 1)
            cells += [cell for label, p in pairs for cell in (label, _text(p))]
        if self.top_k is None:
            cells += map(_text, probabilities)
        return dict(zip(self.columns, cells, strict=True))

    def nested(self, probabilities: np.ndarray) -> dict[str, object]:
        """Return the answer, and either all probabilities or the best labels.

        The answer is a label and its confidence, or the list of labels of a multi-label run.
        """
        best = _best(self.labels, probabilities, self.top_k or 1)
        label, confidence = best[0]
        answer: dict[str, object] = {"label": label, "confidence": round(confidence, 6)}
        if self.thresholds is not None:
            answer = {"labels": self._given(probabilities)}
        if self.top_k is None:
            pairs = zip(self.labels, probabilities.tolist(), strict=True)
            return answer | {"probabilities": {name: round(p, 6) for name, p in pairs}}
        return answer | {"top": [{"label": n, "probability": round(p, 6)} for n, p in best]}

    def _given(self, probabilities: np.ndarray) -> list[str]:
        """Return the labels of a row of a multi-label run, the most probable first."""
        assert self.thresholds is not None  # noqa: S101 - called for multi-label runs only
        return [
            self.labels[i] for i in _ranked(probabilities) if probabilities[i] >= self.thresholds[i]
        ]


def _best(
    labels: tuple[str, ...], probabilities: np.ndarray, number: int
) -> list[tuple[str, float]]:
    order = _ranked(probabilities)[:number]
    return [(labels[index], float(probabilities[index])) for index in order]


def _ranked(probabilities: np.ndarray) -> np.ndarray:
    """Return the indices of the classes, the most probable first."""
    return np.argsort(-probabilities, kind="stable")


def _text(probability: float) -> str:
    return f"{probability:.6f}"


def _checked_top_k(top_k: int | None, labels: tuple[str, ...]) -> int | None:
    if top_k is not None and not 1 <= top_k <= len(labels):
        raise RunError(
            f"--top-k {top_k}: the run has {len(labels)} classes; give a number from 1 to "
            f"{len(labels)}"
        )
    return top_k


@dataclass(frozen=True, slots=True)
class _Copied:
    """The input columns that are copied to the output.

    Attributes:
        source: where the rows are.
        names: the name in the output of each column.
    """

    source: Source
    names: Mapping[str, str]

    @classmethod
    def of(
        cls, source: Source, requested: tuple[str, ...] | None, *, reserved: Sequence[str]
    ) -> _Copied:
        """Choose the columns.

        Raises:
            DataError: a requested column does not exist.
        """
        if requested == ():
            return cls(source, {})
        available = locate(source).open().columns
        for name in requested or ():
            if name not in available:
                raise DataError(
                    f'{source.location}: no column "{name}" to copy; the columns are '
                    f"{', '.join(available)}"
                )
        names: dict[str, str] = {}
        for name in requested or available:
            shown = name
            while shown in reserved or (shown != name and shown in available):
                shown = f"input {shown}"
            names[name] = shown
        return cls(source, names)

    def values(self) -> Iterator[tuple[int, dict[str, object]]]:
        """Yield the number of each row, and its values by their names in the output."""
        if not self.names:
            return
        for record in locate(self.source).open().records(tuple(self.names)):
            values = record.values or {}
            yield record.number, {shown: values.get(name) for name, shown in self.names.items()}


def _lines(
    classifier: Classifier,
    table: datasets.Dataset,
    answers: _Answers,
    copied: _Copied,
    *,
    nested: bool,
) -> Iterator[Mapping[str, object]]:
    numbers = iter(table.with_format("numpy")["row"][:].tolist())
    records = copied.values()
    answer = answers.nested if nested else answers.flat
    for chunk in classifier.stream(table):
        for probabilities in probabilities_of(chunk.logits, task=classifier.task):
            number = next(numbers)
            values: Mapping[str, object] = {}
            if copied.names:
                # Rows that were set aside are skipped.
                values = next((values for n, values in records if n == number), {})
                if not values:
                    raise DataError(
                        f"{copied.source.location}: row {number} is missing: the rows were "
                        "changed while they were read; run the command again"
                    )
            yield {"row": number, **values, **answer(probabilities)}

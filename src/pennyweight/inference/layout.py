"""The output of a prediction for each row: options, and the columns that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from pennyweight.data.label import BadRow, Task
from pennyweight.data.read import OpenFile
from pennyweight.data.shown import shown
from pennyweight.errors import DataError, RunError
from pennyweight.inference.abstention import check_abstention, confidence_for
from pennyweight.inference.answers import Answers
from pennyweight.runs.record import RunRecord
from pennyweight.settings.values import Settings

__all__ = [
    "Layout",
    "OtherKeys",
    "OutputFormat",
    "OutputOptions",
    "answers_to_write",
    "check_top_k",
    "copied_columns",
    "layout_of",
    "plain_types",
]

OutputFormat = Literal["csv", "jsonl", "parquet"]
# What becomes of keys of JSON Lines that are no columns, as the columns are the keys of the first
# objects: they are left out, or written where a format has no fixed columns, or make the row bad.
OtherKeys = Literal["leave", "write", "refuse"]
# Joins the labels of a row where the run's own rows have no separator.
_SEPARATOR = "|"
_OF_INPUT = "input "


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Options of the output for each row.

    Attributes:
        columns: input columns that are copied to the output; None for all of them.
        top_k: write the labels and probabilities of this many best classes; None to write the
            probability of every class.
        output_format: "csv", "jsonl" or "parquet"; None to decide by the ending of the file.
        abstain_below: give no label where its probability is lower; None to give one always.
        coverage: abstain so that this share of the validation rows would be answered; see
            `Classifier.confidence_for`.
    """

    columns: tuple[str, ...] | None = None
    top_k: int | None = None
    output_format: OutputFormat | None = None
    abstain_below: float | None = None
    coverage: float | None = None

    def threshold(self, record: RunRecord, task: Task) -> float | None:
        """Return the confidence below which no label is given; None to give one always.

        Args:
            record: of the run.
            task: of the run.

        Raises:
            RunError: both a confidence and a coverage are given, or one that is not possible.
        """
        if self.abstain_below is not None and self.coverage is not None:
            raise RunError(
                "both a confidence to abstain below (--abstain-below) and a coverage "
                "(--coverage) were given; give one"
            )
        if self.coverage is not None:
            return confidence_for(record, self.coverage)
        if self.abstain_below is not None:
            check_abstention(task, self.abstain_below)
        return self.abstain_below


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of an output, in their order: `row`, the copied ones, and the answers.

    Attributes:
        answers: what is written about the labels.
        copied: the name in the output of each input column that is copied.
        types: the Arrow type of copied columns in Parquet; those without one are written as text.
        other_keys: what becomes of keys beyond `copied`.
    """

    answers: Answers
    copied: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    other_keys: OtherKeys = "leave"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of CSV and Parquet."""
        return ("row", *self.copied.values(), *self.answers.columns)

    @property
    def renamed(self) -> dict[str, str]:
        """The name in the output of each input column that has the name of another column."""
        return {name: new for name, new in self.copied.items() if name != new}

    def others_in(self, values: Mapping[str, object]) -> dict[str, object]:
        """Return what is written of a row beside its columns, by the names in the output.

        Raises:
            BadRow: the row has other keys, and the output has no place for them.
        """
        if self.other_keys == "leave":
            return {}
        others = [key for key in values if key not in self.copied]
        if others and self.other_keys == "refuse":
            raise BadRow(
                f"the key {shown(others[0])} is not a column, because none of the first objects "
                "has it; write JSON Lines with --format-out jsonl, which have no fixed columns, or "
                "name the columns to copy with --columns"
            )
        reserved = ("row", *self.answers.keys)
        return {_output_name(key, reserved): values[key] for key in others}


def answers_to_write(
    settings: Settings, record: RunRecord, thresholds: np.ndarray | None, output: OutputOptions
) -> Answers:
    """Return what a run writes about the labels of a row.

    Args:
        settings: the run's recipe as plain values.
        record: of the run.
        thresholds: of a multi-label run, float64 `[classes]`; None otherwise.
        output: what was asked for.

    Raises:
        RunError: `output.top_k` is not between 1 and the number of classes, or abstaining is not
            possible.
    """
    check_top_k(output.top_k, settings.labels)
    return Answers(
        settings.labels,
        output.top_k,
        thresholds=thresholds,
        separator=settings.data.read.label_separator or _SEPARATOR,
        abstain_below=output.threshold(record, settings.task),
    )


def check_top_k(top_k: int | None, labels: tuple[str, ...]) -> None:
    """Check the number of best classes to write.

    Raises:
        RunError: it is not between 1 and the number of classes.
    """
    if top_k is not None and not 1 <= top_k <= len(labels):
        raise RunError(
            f"--top-k {top_k}: the run has {len(labels)} classes; give a number from 1 to "
            f"{len(labels)}"
        )


def layout_of(
    answers: Answers,
    file: OpenFile,
    requested: tuple[str, ...] | None,
    *,
    is_nested: bool,
    name: str,
) -> Layout:
    """Return the columns of the output for the rows of a file.

    Args:
        answers: what is written about the labels.
        file: the opened file.
        requested: columns to copy; None for all.
        is_nested: whether the answers of a row are keys of JSON.
        name: the file's name in messages.

    Raises:
        DataError: a requested column does not exist.
    """
    reserved = ("row", *(answers.keys if is_nested else answers.columns))
    copied = copied_columns(file.columns, requested, reserved=reserved, name=name)
    return Layout(answers, copied, plain_types(file.schema, copied))


def copied_columns(
    available: Sequence[str],
    requested: tuple[str, ...] | None,
    *,
    reserved: Sequence[str],
    name: str,
) -> dict[str, str]:
    """Return the name in the output of each column that is copied.

    Args:
        available: the columns of the input.
        requested: those to copy; None for all.
        reserved: columns of the output, which an input column of the same name must not replace.
        name: the input's name in messages.

    Raises:
        DataError: a requested column does not exist.
    """
    for column in requested or ():
        if column not in available:
            raise DataError(
                f'{name}: no column "{column}" to copy; the columns are {", ".join(available)}'
            )
    columns = available if requested is None else requested
    return {column: _output_name(column, reserved) for column in columns}


def _output_name(column: str, reserved: Sequence[str]) -> str:
    """Return the name of an input column in the output.

    A column with the name of an output column gets "input " before it, and so does one that has
    this name already, so that two columns never become one.
    """
    plain = column
    while plain.startswith(_OF_INPUT):
        plain = plain.removeprefix(_OF_INPUT)
    return f"{_OF_INPUT}{column}" if plain in reserved else column


def plain_types(schema: pa.Schema | None, names: Iterable[str]) -> dict[str, pa.DataType]:
    """Return the types of columns in Parquet; none where the input has no types."""
    return {} if schema is None else {name: _plain(schema.field(name).type) for name in names}


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's values, which a dictionary or an extension encodes."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind

"""Turn one record of a file into a text or a pair of texts and its label, or say why it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pennyweight.data.clean import cleaner
from pennyweight.data.columns import choose_columns
from pennyweight.data.label import UNLABELLED, BadRow, LabelParser
from pennyweight.data.shown import listed
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pennyweight.data.columns import ChosenColumns
    from pennyweight.data.ingest import ReadOptions
    from pennyweight.data.read import Columns, OpenFile, Record
    from pennyweight.data.source import Source

__all__ = ["Row", "RowParser", "row_parser"]


class Row(NamedTuple):
    """A row that can be used.

    Attributes:
        text: UTF-8; the first text of a pair.
        text_pair: UTF-8, the second text of a pair; None for a single text.
        label: the index of the class, or `UNLABELLED`; for a multi-label task, the ascending
            indices of the classes, or a list of `UNLABELLED` alone.
    """

    text: bytes
    text_pair: bytes | None
    label: int | list[int]


@dataclass(frozen=True, slots=True)
class RowParser:
    """Extracts the texts and the label of a record.

    Attributes:
        columns: the columns to read; empty texts are skipped where several are joined.
        labels: looks up labels.
        is_multi_label: whether a row can have several labels, or none.
        clean: function applied to each text; None to leave it unchanged.
    """

    columns: ChosenColumns
    labels: LabelParser
    is_multi_label: bool
    clean: Callable[[str], str] | None

    def __call__(self, record: Record) -> Row:
        """Return the row of a record.

        Raises:
            BadRow: the row cannot be used.
        """
        values = record.values
        if record.problem is not None or values is None:
            raise BadRow(record.problem or "the row cannot be read")
        texts = self.columns.texts
        if self.columns.is_pair:
            first, second = (self._text(values, (column,)) for column in texts)
            return Row(first, second, self._label(values))
        return Row(self._text(values, texts), None, self._label(values))

    def note_on(self, record: Record) -> str:
        """Return what must be said about the label of a record; "" if nothing."""
        label = self.columns.label
        if label is None or record.values is None:
            return ""
        return self.labels.describe_index(record.values.get(label))

    def _text(self, values: Mapping[str, object], columns: Columns) -> bytes:
        if len(columns) == 1:
            text = _string(values, columns[0])
        else:
            text = " ".join(filter(None, (_string(values, name) for name in columns)))
        where = f' in column "{columns[0]}"' if self.columns.is_pair else ""
        if not text or text.isspace():
            raise BadRow(f"empty text{where}")
        if self.clean is not None:
            text = self.clean(text)
            if not text or text.isspace():
                raise BadRow(f"empty text after cleaning{where}")
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise BadRow("the text contains half a character (a lone surrogate)") from None

    def _label(self, values: Mapping[str, object]) -> int | list[int]:
        if self.columns.label_columns:
            return self.labels.flagged(values, self.columns.label_columns)
        if self.columns.label is None:
            return [UNLABELLED] if self.is_multi_label else UNLABELLED
        value = values.get(self.columns.label)
        return self.labels.indices(value) if self.is_multi_label else self.labels.index(value)


def _string(values: Mapping[str, object], column: str) -> str:
    value = values.get(column)
    if isinstance(value, str):
        return value
    if column not in values:
        raise BadRow(f'no column "{column}"')
    if value is None:
        raise BadRow(f'column "{column}" is null')
    raise BadRow(f'column "{column}" is not text but {type(value).__name__}')


def row_parser(
    file: OpenFile, source: Source, options: ReadOptions, *, name: str, labelled: bool
) -> RowParser:
    """Return the parser for the rows of a file.

    Args:
        file: the opened file.
        source: names its columns, if they do not have the usual names.
        options: how to read the rows.
        name: the source's name in messages.
        labelled: whether every row must have a label; if False, no label is read.

    Raises:
        DataError: the file lacks a column, or its own class names contradict the labels.
    """
    is_multi_label = options.task == "multi-label"
    if options.like is not None:
        source = source.with_columns_of(options.like, file.columns)
    columns = choose_columns(
        file,
        source,
        name=name,
        labelled=labelled,
        pairs=options.pairs,
        labels=options.labels if is_multi_label else (),
    )
    _check_label_columns(columns, options, name)
    labels = LabelParser(
        options.labels,
        separator=options.label_separator,
        class_names=file.class_names.get(columns.label or "", ()) if columns.label else (),
        first_class=file.first_class,
        name=name,
    )
    clean = cleaner(options.clean) if options.clean else None
    return RowParser(columns, labels, is_multi_label, clean)


def _check_label_columns(columns: ChosenColumns, options: ReadOptions, name: str) -> None:
    """Check that columns of 0 and 1 are those of a multi-label task, and of all its labels.

    Raises:
        DataError: they are not.
    """
    if not columns.label_columns:
        return
    labels = options.labels
    if options.task != "multi-label":
        raise DataError(
            f"{name}: label_columns are set, but the task is single-label; set data.task = "
            '"multi-label", or name one column with label_column'
        )
    if set(labels) != set(columns.label_columns):
        raise DataError(
            f"{name}: the label columns are {listed(columns.label_columns)}, and the labels are "
            f"{listed(labels)}; give each label the column of its name"
        )

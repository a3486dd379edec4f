"""Turn one record of a file into a text and a label, or say why it cannot be used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pennyweight.data.read import Columns, OpenFile, Record
    from pennyweight.data.source import Source

__all__ = ["UNLABELLED", "BadRow", "RowParser", "row_parser"]

UNLABELLED = -1
# In order of preference: a file that has several of these is read by the first.
_TEXT_NAMES = (("text",), ("title", "description"), ("sentence",), ("content",), ("review",))
_LABEL_NAMES = ("label", "labels", "class", "category", "target")


class BadRow(ValueError):  # noqa: N818 - a verdict that `ingest` reports or records
    """A row that cannot be used; the message gives the reason in a few words."""


@dataclass(frozen=True, slots=True)
class RowParser:
    """Extracts the text and the label of a record.

    Attributes:
        text_columns: columns joined by spaces into the text; empty values are skipped.
        label_column: column with the label; None if the rows are unlabelled.
        labels: class names, in the order of their indices.
        indices: class index for each accepted spelling of a label.
        clean: function applied to the text; None to leave it unchanged.
    """

    text_columns: Columns
    label_column: str | None
    labels: tuple[str, ...]
    indices: Mapping[int | str, int]
    clean: Callable[[str], str] | None

    @property
    def columns(self) -> Columns:
        """All columns that are read."""
        return (*self.text_columns, *([self.label_column] if self.label_column else []))

    def __call__(self, record: Record) -> tuple[bytes, int]:
        """Return the text as UTF-8, and the index of the label or `UNLABELLED`.

        Raises:
            BadRow: the row cannot be used.
        """
        if record.problem is not None or record.values is None:
            raise BadRow(record.problem or "the row cannot be read")
        return self._text(record.values), self._label(record.values)

    def _text(self, values: Mapping[str, object]) -> bytes:
        if len(self.text_columns) == 1:
            text = _string(values, self.text_columns[0])
        else:
            text = " ".join(filter(None, (_string(values, name) for name in self.text_columns)))
        if not text or text.isspace():
            raise BadRow("empty text")
        if self.clean is not None:
            text = self.clean(text)
            if not text or text.isspace():
                raise BadRow("empty text after cleaning")
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise BadRow("the text contains half a character (a lone surrogate)") from None

    def _label(self, values: Mapping[str, object]) -> int:
        if self.label_column is None:
            return UNLABELLED
        value = values.get(self.label_column)
        # Compare classes exactly, because True would otherwise be looked up as 1.
        if value.__class__ is int or value.__class__ is str:
            index = self.indices.get(value)
            if index is not None:
                return int(index)
        if isinstance(value, str):
            value = value.strip()
            index = self.indices.get(value, self.indices.get(value.casefold()))
            if index is not None:
                return index
        if value is None:
            raise BadRow("no label")
        shown = json.dumps(value, ensure_ascii=False, default=str)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise BadRow(f"label {shown} is not one of {', '.join(self.labels)}")


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
    file: OpenFile,
    source: Source,
    *,
    name: str,
    labels: tuple[str, ...],
    clean: Callable[[str], str] | None,
    labelled: bool,
) -> RowParser:
    """Return the parser for the rows of a file.

    Args:
        file: the file; its columns decide where text and label are.
        source: names those columns if they do not have the usual names.
        name: the source's name in messages.
        labels: class names, in the order of their indices.
        clean: function applied to every text; None to leave it unchanged.
        labelled: whether every row must have a label; if False, no label is read.

    Raises:
        DataError: the file lacks a column, or its own class names contradict `labels`.
    """
    text_columns = _text_columns(file.columns, source.text_columns, name)
    label_column = None
    if labelled:
        label_column = _label_column(file.columns, source.label_column, name)
    indices = _spellings(labels)
    if label_column is not None and label_column in file.class_names:
        indices |= _indices_by_class_name(file.class_names[label_column], labels, name)
    return RowParser(text_columns, label_column, labels, indices, clean)


def _text_columns(available: Columns, requested: Columns | None, name: str) -> Columns:
    candidates = (requested,) if requested else _TEXT_NAMES
    for columns in candidates:
        if all(column in available for column in columns):
            return columns
    expected = " or ".join(_quoted(columns, " and ") for columns in candidates)
    raise _missing_column("text", available, expected, name)


def _label_column(available: Columns, requested: str | None, name: str) -> str:
    candidates = (requested,) if requested else _LABEL_NAMES
    for column in candidates:
        if column in available:
            return column
    raise _missing_column("label", available, _quoted(candidates, " or "), name)


def _quoted(names: Columns, joint: str) -> str:
    return joint.join(f'"{name}"' for name in names)


def _missing_column(content: str, available: Columns, expected: str, name: str) -> DataError:
    option = "text_columns" if content == "text" else "label_column"
    return DataError(
        f"{name}: no {content} column: the file has {_quoted(available, ', ') or 'no columns'}; "
        f"expected {expected}; name the column with data.{option} in the recipe or with "
        f"--{content}-column"
    )


def _spellings(labels: tuple[str, ...]) -> dict[int | str, int]:
    """Map indices, their digits and names in any case to class indices; exact names win."""
    spellings: dict[int | str, int] = {}
    for index in range(len(labels)):
        spellings |= {index: index, str(index): index}
    for index, label in enumerate(labels):
        spellings.setdefault(label.casefold(), index)
    return spellings | {label: index for index, label in enumerate(labels)}


def _indices_by_class_name(
    class_names: tuple[str, ...], labels: tuple[str, ...], name: str
) -> dict[int | str, int]:
    """Map the integers of a column with named classes to the indices of the same names.

    Raises:
        DataError: a class has another index among the labels, while another is not among them.
    """
    label_indices = {label.casefold(): index for index, label in enumerate(labels)}
    mapped = [label_indices.get(class_name.casefold()) for class_name in class_names]
    if all(index is None or index == position for position, index in enumerate(mapped)):
        return {}
    if any(index is None for index in mapped):
        raise DataError(
            f"{name}: the file's classes are {', '.join(class_names)}, in another order than the "
            f"labels {', '.join(labels)}; list all of them under the same names in data.labels"
        )
    return {position: index for position, index in enumerate(mapped) if index is not None}

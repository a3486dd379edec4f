"""Judges one row: its text and label, or why it cannot be used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pennyweight.data.read import Columns, Opened, Record
    from pennyweight.data.source import Source

__all__ = ["UNLABELLED", "BadRow", "Judge", "judge_for"]

UNLABELLED = -1
# In order of preference; a file that has several is read by the first.
_TEXT_NAMES = (("text",), ("title", "description"), ("sentence",), ("content",), ("review",))
_LABEL_NAMES = ("label", "labels", "class", "category", "target")


class BadRow(ValueError):  # noqa: N818 - a verdict that ingest turns into a DataError or a line
    """A row that cannot be used; the text says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Judge:
    """What a usable row must have.

    Attributes:
        text_columns: joined by a space into the text; empty ones leave no space.
        label_column: None when the rows have none.
        labels: the classes' names.
        indices: each spelling of a label -> its index.
        clean: from text to text; None for the text as it is.
    """

    text_columns: Columns
    label_column: str | None
    labels: tuple[str, ...]
    indices: Mapping[int | str, int]
    clean: Callable[[str], str] | None

    @property
    def columns(self) -> Columns:
        """Every column that is looked at."""
        return (*self.text_columns, *([self.label_column] if self.label_column else []))

    def __call__(self, record: Record) -> tuple[bytes, int]:
        """The row's text as UTF-8, and its label's index or `UNLABELLED`.

        Raises:
            BadRow: the row cannot be used.
        """
        if record.problem is not None or record.values is None:
            raise BadRow(record.problem or "cannot be read")
        return self._text(record.values), self._label(record.values)

    def _text(self, values: Mapping[str, object]) -> bytes:
        if len(self.text_columns) == 1:
            text = _string(values, self.text_columns[0])
        else:
            text = " ".join(filter(None, (_string(values, each) for each in self.text_columns)))
        if not text or text.isspace():
            raise BadRow("empty text")
        if self.clean is not None:
            text = self.clean(text)
            if not text or text.isspace():
                raise BadRow("empty text after cleaning")
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise BadRow("text with half a character (a lone surrogate)") from None

    def _label(self, values: Mapping[str, object]) -> int:
        if self.label_column is None:
            return UNLABELLED
        value = values.get(self.label_column)
        # A truth value would pass as the integer that it equals.
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
    raise BadRow(f'column "{column}" is no text but {type(value).__name__}')


def judge_for(
    opened: Opened,
    source: Source,
    *,
    name: str,
    labels: tuple[str, ...],
    clean: Callable[[str], str] | None,
    labelled: bool,
) -> Judge:
    """The judge of a file's rows.

    Raises:
        DataError: the file lacks a column, or its classes are other ones than `labels`.
    """
    text_columns = _text_columns(opened.columns, source.text_columns, name)
    label_column = _label_column(opened.columns, source.label_column, name, labelled=labelled)
    indices = _spellings(labels)
    if label_column is not None and label_column in opened.class_names:
        indices |= _by_class_name(opened.class_names[label_column], labels, name)
    return Judge(text_columns, label_column, labels, indices, clean)


def _text_columns(found: Columns, wanted: Columns | None, name: str) -> Columns:
    for names in (wanted,) if wanted else _TEXT_NAMES:
        if all(column in found for column in names):
            return names
    raise _missing(
        "text",
        found,
        _quoted(wanted, " and ")
        if wanted
        else " or ".join(_quoted(names, " and ") for names in _TEXT_NAMES),
        name,
    )


def _label_column(found: Columns, wanted: str | None, name: str, *, labelled: bool) -> str | None:
    if not labelled:
        return None
    for column in (wanted,) if wanted else _LABEL_NAMES:
        if column in found:
            return column
    raise _missing("label", found, _quoted((wanted,) if wanted else _LABEL_NAMES, " or "), name)


def _quoted(names: Columns, joint: str) -> str:
    return joint.join(f'"{name}"' for name in names)


def _missing(what: str, found: Columns, wanted: str, name: str) -> DataError:
    option = "text_columns" if what == "text" else "label_column"
    return DataError(
        f"{name}: no column for the {what}: found {_quoted(found, ', ') or 'none'}; "
        f"wanted {wanted}; name it with data.{option} in the recipe, or with --{what}-column"
    )


def _spellings(labels: tuple[str, ...]) -> dict[int | str, int]:
    """Index, digits, name in any case, and the exact name, which wins."""
    spellings: dict[int | str, int] = {}
    for index in range(len(labels)):
        spellings |= {index: index, str(index): index}
    for index, label in enumerate(labels):
        spellings.setdefault(label.casefold(), index)
    return spellings | {label: index for index, label in enumerate(labels)}


def _by_class_name(
    classes: tuple[str, ...], labels: tuple[str, ...], name: str
) -> dict[int | str, int]:
    """What the integers of a column with named classes mean here.

    Raises:
        DataError: some classes are labels in another place, and others are no labels at all.
    """
    places = {label.casefold(): index for index, label in enumerate(labels)}
    found = [places.get(each.casefold()) for each in classes]
    if all(place is None or place == index for index, place in enumerate(found)):
        return {}
    if any(place is None for place in found):
        raise DataError(
            f"{name}: its classes are {', '.join(classes)}, in another order than the labels "
            f"{', '.join(labels)}; name all of them alike in data.labels"
        )
    return {index: place for index, place in enumerate(found) if place is not None}

"""Infer from the training rows what they are: columns, task, and labels in a stated order.

The source is read once, and of its rows only the labels are kept, so memory grows with the number
of different labels alone.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pennyweight.data.columns import choose_columns
from pennyweight.data.label import BadRow, LabelParser, flag_of, label_name, split_labels
from pennyweight.data.label_values import LabelValues, is_boolean, is_missing, place_of
from pennyweight.data.shown import listed, shortened, shown
from pennyweight.data.source import Source, locate
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pennyweight.data.columns import ChosenColumns
    from pennyweight.data.label import Task
    from pennyweight.data.read import OpenFile

__all__ = ["Inferred", "infer"]

_SEPARATORS = "|;,"
_INTEGER = re.compile(r"[-+]?\d{1,300}")
_FRACTION = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)
# How pandas writes a column of lists into a CSV file.
_LIST_AS_TEXT = re.compile(r"\[.*\]", re.DOTALL)
# How other programs write a missing value.
_LIKE_MISSING = frozenset({"nan", "null"})
# A source with up to this many different labels is never refused for having too many.
_FEW_LABELS = 20
# More different labels than this are not counted to the end of the source.
_MOST_LABELS = 100_000


@dataclass(frozen=True, slots=True)
class Inferred:
    """Facts about the labelled rows of a source.

    Attributes:
        text_columns: columns joined by a space into the text; () for pairs.
        pair_columns: the two columns of a pair; None for single texts.
        label_column: the column of the label or labels; None if `label_columns` are read.
        label_columns: columns of 0 and 1, one for each label; None if one column is read.
        task: whether each row has exactly one label, or any number of them.
        labels: the labels, in the order of their indices.
        order: how the labels are ordered, in words.
        label_separator: joins several labels in one text; None if nothing does.
        rows: number of rows with a label column that can be read.
        counts: number of rows of each label.
        notes: what was chosen by content rather than by name, one sentence each.
        are_texts_by_content: whether the column of the text was.
    """

    text_columns: tuple[str, ...]
    pair_columns: tuple[str, str] | None
    label_column: str | None
    label_columns: tuple[str, ...] | None
    task: Task
    labels: tuple[str, ...]
    order: str
    label_separator: str | None
    rows: int
    counts: tuple[int, ...]
    notes: tuple[str, ...]
    are_texts_by_content: bool

    def named(self, source: Source) -> Source:
        """Return a source that names the inferred columns, where it names none itself."""
        if not source.text_columns and not source.pair_columns:
            source = replace(
                source,
                text_columns=self.text_columns or None,
                pair_columns=self.pair_columns,
            )
        if not source.label_column and not source.label_columns:
            source = replace(
                source, label_column=self.label_column, label_columns=self.label_columns
            )
        return source


@dataclass(frozen=True, slots=True)
class _Request:
    """The facts to infer, and those that are given."""

    name: str
    task: Literal["auto", "single-label", "multi-label"]
    separator: str | None
    labels: tuple[str, ...] | None


def infer(
    source: Source,
    *,
    task: Literal["auto", "single-label", "multi-label"] = "auto",
    label_separator: str | None = None,
    labels: tuple[str, ...] | None = None,
) -> Inferred:
    """Read the labelled rows of a source once, and return what they are.

    Labels that are whole numbers are ordered by value, false comes before true, classes that the
    file itself lists keep its order, and all others are sorted as text. Rows that cannot be read
    and rows without a label are passed over; reading them later reports them.

    Args:
        source: the labelled training rows.
        task: "auto" to infer it.
        label_separator: joins several labels in one text; a multi-label task then. None to infer it
            for a column called "labels", or for a multi-label task.
        labels: the labels in their order, where they are given; None to infer them.

    Raises:
        DataError: the source cannot be read, the columns cannot be chosen, the labels are
            fractions or lists written as text, there are fewer than two labels, or nearly every
            row has its own.
    """
    located = locate(source)
    request = _Request(located.name, task, label_separator, labels)
    file = located.open()
    columns = choose_columns(file, source, name=located.name, labelled=True)
    if columns.label_columns:
        return _from_columns(file, columns, request)
    values = _values(file, columns, request)
    separator, note = _separator(values, columns, request)
    is_multi_label = task == "multi-label" or bool(values.lists) or separator is not None
    if task == "single-label" and is_multi_label:
        raise _unexpected_lists(values, separator, columns, request)
    counts = _counts(values, separator)
    if labels is None:
        _check_labels(counts, values.rows, columns, request, bad_rows=values.of_bad_rows())
        names, order = _ordered(counts, values, file.class_names.get(columns.label or "", ()))
    else:
        names, order = labels, "as given"
        counts = _counts_of_given(counts, file, request)
    notes = [columns.note, note, *_differing_in_case(names), *_like_missing(names)]
    return Inferred(
        text_columns=() if columns.is_pair else columns.texts,
        pair_columns=_pair(columns),
        label_column=columns.label,
        label_columns=None,
        task="multi-label" if is_multi_label else "single-label",
        labels=names,
        order=order,
        label_separator=separator,
        rows=values.rows,
        counts=tuple(counts[name] for name in names),
        notes=tuple(filter(None, notes)),
        are_texts_by_content=columns.are_texts_by_content,
    )


def _unexpected_lists(
    values: LabelValues, separator: str | None, columns: ChosenColumns, request: _Request
) -> DataError:
    what = "lists" if values.lists else f'several labels joined by "{separator}"'
    return DataError(
        f'{request.name}: column "{columns.label}" holds {what}, but data.task is "single-label"; '
        'set data.task = "multi-label"'
    )


def _pair(columns: ChosenColumns) -> tuple[str, str] | None:
    return (columns.texts[0], columns.texts[1]) if columns.is_pair else None


def _from_columns(file: OpenFile, columns: ChosenColumns, request: _Request) -> Inferred:
    """Return what rows are whose labels are columns of 0 and 1."""
    if request.task == "single-label":
        raise DataError(
            f'{request.name}: label_columns are set, but data.task is "single-label"; set '
            'data.task = "multi-label", or name one column with label_column'
        )
    counts = Counter[str]()
    rows = 0
    for record in file.records(columns.label_columns):
        if record.problem is not None or record.values is None:
            continue
        rows += 1
        for column in columns.label_columns:
            counts[column] += flag_of(record.values.get(column)) or False
    names = request.labels or columns.label_columns
    return Inferred(
        text_columns=() if columns.is_pair else columns.texts,
        pair_columns=_pair(columns),
        label_column=None,
        label_columns=columns.label_columns,
        task="multi-label",
        labels=names,
        order="as given" if request.labels else "in the order of the columns",
        label_separator=None,
        rows=rows,
        counts=tuple(counts[name] for name in names),
        notes=(columns.note,) if columns.note else (),
        are_texts_by_content=columns.are_texts_by_content,
    )


def _values(file: OpenFile, columns: ChosenColumns, request: _Request) -> LabelValues:
    """Count the different values of the label column.

    Raises:
        DataError: a label is a fraction, or not a label at all; or there are too many.
    """
    values = LabelValues()
    label = columns.label or ""
    class_names = file.class_names.get(label, ())
    for record in file.records((label,)):
        value = None if record.values is None else record.values.get(label)
        if record.problem is not None:
            values.note_bad(record, record.problem)
            continue
        # A class-name column stores -1 for a row without a label.
        if is_missing(value) or (class_names and value == -1):
            continue
        parts = value if isinstance(value, list | tuple) else [value]
        names = tuple(_name(part, class_names) for part in parts)
        if request.labels is None and (place := _place_of_problem(names)) is not None:
            raise DataError(f"{request.name}: {place_of(record)}: {_problem(parts[place])}")
        values.add(value, names)
        if len(values.singles) > _MOST_LABELS and request.labels is None:
            raise _too_many(values.singles, values.rows, columns, request)
    if not values.rows:
        raise DataError(
            f'{request.name}: no row has a label in the column "{label}"{values.of_bad_rows()}'
        )
    return values


def _name(value: object, class_names: tuple[str, ...]) -> str | None:
    """Return the name of a label; None for a value that is none."""
    if class_names and isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value]
    name = label_name(value)
    return name.lower() if name is not None and is_boolean(value) else name


def _place_of_problem(names: Iterable[str | None]) -> int | None:
    """Return the position of the first name that is missing or a fraction; None if all are fine."""
    for place, name in enumerate(names):
        if name is None or (name[:1] in "+-.0123456789" and _FRACTION.fullmatch(name)):
            return place
    return None


def _problem(value: object) -> str:
    if label_name(value) is None:
        return f"the label {shown(value)} is neither text nor a number nor true or false"
    return (
        f"regression is not supported: the label {shown(value)} is a fraction; round the values to "
        "classes, or list them as names in data.labels if each of them is a class"
    )


def _separator(
    values: LabelValues, columns: ChosenColumns, request: _Request
) -> tuple[str | None, str]:
    """Return what joins several labels in one text, and a note if that was inferred."""
    if request.separator is not None or request.task == "single-label" or values.lists:
        return request.separator, ""
    is_asked_for = request.task == "multi-label"
    if not is_asked_for and (columns.label or "").strip().casefold() != "labels":
        return None, ""
    for separator in _SEPARATORS:
        joined = [split_labels(name, separator) for name in values.singles if separator in name]
        parts = {part for each in joined for part in each}
        alone = {name for name in values.singles if separator not in name}
        alone |= set(request.labels or ())
        if parts and parts <= alone and any(len(each) > 1 for each in joined):
            return separator, (
                f'{request.name}: "{separator}" joins several labels in the column '
                f'"{columns.label}", because all their parts are labels of other rows too; if they '
                'are single labels, set data.task = "single-label"'
            )
    return None, ""


def _counts(values: LabelValues, separator: str | None) -> Counter[str]:
    """Return the number of rows of each label."""
    counts = Counter[str]()
    for name, rows in values.singles.items():
        for part in set(split_labels(name, separator)):
            counts[part] += rows
    for names, rows in values.lists.items():
        for part in set(names):
            counts[part] += rows
    return counts


def _counts_of_given(counts: Mapping[str, int], file: OpenFile, request: _Request) -> Counter[str]:
    """Return the number of rows of each given label; values that are none of them do not count."""
    labels = request.labels or ()
    parser = LabelParser(labels, first_class=file.first_class, name=request.name)
    given = Counter[str]()
    for name, rows in counts.items():
        try:
            given[labels[parser.index(name)]] += rows
        except BadRow:
            continue
    return given


def _check_labels(
    counts: Mapping[str, int],
    rows: int,
    columns: ChosenColumns,
    request: _Request,
    *,
    bad_rows: str,
) -> None:
    """Check that there are at least two labels, that rows share them, and that none is a list.

    Raises:
        DataError: they do not.
    """
    if rows and all(_LIST_AS_TEXT.fullmatch(name) for name in counts):
        raise DataError(
            f'{request.name}: the column "{columns.label}" holds lists that were written as text, '
            f'such as "{shortened(next(iter(counts)))}"; join the labels with "|" instead, as '
            'pandas does with column.str.join("|"), or write the rows as JSON Lines or Parquet'
        )
    if len(counts) < 2:
        raise DataError(
            f'{request.name}: the column "{columns.label}" holds only the label '
            f'"{listed(counts)}"{bad_rows}; at least two are needed; name another column with '
            "--label-column, or list all labels in data.labels"
        )
    if len(counts) > max(_FEW_LABELS, rows // 2):
        raise _too_many(counts, rows, columns, request)


def _too_many(
    counts: Mapping[str, int], rows: int, columns: ChosenColumns, request: _Request
) -> DataError:
    problem = (
        f'{request.name}: the column "{columns.label}" has {len(counts):,} different values in '
        f"{rows:,} rows"
    )
    if all(_INTEGER.fullmatch(name) for name in counts):
        return DataError(
            f"regression is not supported: {problem}; round them to classes, or name the column of "
            "the label with label_column"
        )
    example = shortened(next(iter(counts)))
    return DataError(
        f'{problem}, such as "{example}", so they are not classes; name the column of the label '
        "with label_column, or what joins several labels with data.label_separator"
    )


def _ordered(
    counts: Mapping[str, int], values: LabelValues, class_names: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """Return the labels in order, and the order in words."""
    if class_names and set(counts) <= set(class_names):
        return class_names, "in the order that the file lists"
    if values.are_booleans:
        return tuple(sorted(counts)), "false before true"
    if all(_INTEGER.fullmatch(name) for name in counts):
        return tuple(sorted(counts, key=lambda name: (int(name), name))), "by value"
    return tuple(sorted(counts)), "sorted as text"


def _like_missing(labels: tuple[str, ...]) -> list[str]:
    """Return a note if a label may stand for a missing one."""
    return [
        f'the label "{label}" is a class; if it stands for a missing label, leave the cell empty'
        for label in labels
        if label.casefold() in _LIKE_MISSING
    ]


def _differing_in_case(labels: tuple[str, ...]) -> list[str]:
    """Return a note if two labels differ in nothing but case."""
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(label.casefold(), label)
        if other != label:
            return [f'the labels "{shortened(other)}" and "{shortened(label)}" differ only in case']
    return []

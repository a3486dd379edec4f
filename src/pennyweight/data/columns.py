"""Decide which columns of a file hold the text, or the two texts of a pair, and the label.

Columns that a source names go first, then the usual names, in any case. Where neither is there, the
first rows decide, and only if they leave exactly one choice.
"""

from __future__ import annotations

import difflib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pennyweight.data.shown import listed, shortened
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pennyweight.data.read import Columns, OpenFile, Record
    from pennyweight.data.source import Source

__all__ = ["ChosenColumns", "choose_columns"]

# In order of preference: a file that has several of these is read by the first.
_PAIR_NAMES: tuple[tuple[str, ...], ...] = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("question", "sentence"),
)
_TEXT_NAMES: tuple[tuple[str, ...], ...] = (
    ("text",),
    ("title", "description"),
    ("sentence",),
    ("content",),
    ("review",),
)
_LABEL_NAMES = ("label", "labels", "class", "category", "target")
_SAMPLE_ROWS = 200
_NUMBER = re.compile(r"\s*[-+]?(\d+([.,]\d*)?|[.,]\d+)\s*")
_LETTER = re.compile(r"[^\W\d_]")
# A name longer than this, or of more words, is a text.
_LONGEST_NAME = 60
_MOST_WORDS_IN_NAME = 8


@dataclass(frozen=True, slots=True)
class ChosenColumns:
    """The columns of a file that are read.

    Attributes:
        texts: the column or columns whose texts are joined by a space; or the two columns of a
            pair, in order.
        is_pair: whether `texts` are the two texts of a pair.
        label: the column with the label or labels; None if no single column has them.
        label_columns: columns of 0 and 1, one for each class, named like the classes; often ().
        note: says which columns were chosen by their content; "" if none were.
        are_texts_by_content: whether `texts` were.
    """

    texts: Columns
    is_pair: bool
    label: str | None = None
    label_columns: Columns = ()
    note: str = ""
    are_texts_by_content: bool = False

    @property
    def every(self) -> Columns:
        """All columns that are read."""
        return (*self.texts, *([self.label] if self.label is not None else self.label_columns))


def choose_columns(
    file: OpenFile,
    source: Source,
    *,
    name: str,
    labelled: bool,
    pairs: bool | None = None,
    labels: Columns = (),
) -> ChosenColumns:
    """Return the columns of a file that are read.

    Args:
        file: the file; its first rows are read only if column names alone do not decide.
        source: names the columns, if they do not have the usual names.
        name: the source's name in messages.
        labelled: whether a label is needed.
        pairs: whether the rows must be pairs of texts; None if the file decides. Two text columns
            that the source names are the pair then.
        labels: names of the classes of a multi-label task, which may be columns of 0 and 1.

    Raises:
        DataError: a column is missing, or several could be the one; or a delimited file seems to
            have no header.
    """
    _check_source(source, name, pairs=pairs)
    texts, is_pair = _texts_by_name(file.columns, source, pairs=pairs)
    label, label_columns = _label_by_name(file.columns, source, labels) if labelled else (None, ())
    is_label_missing = labelled and label is None and not label_columns
    if texts and not is_label_missing:
        return ChosenColumns(texts, is_pair, label, label_columns)
    records = list(itertools.islice(file.records(None), _SAMPLE_ROWS))
    _check_header(file, records, name)
    sample = _Sample(records)
    notes, by_content = [], not texts
    label_names = {label, *label_columns}
    if not texts:
        free = [column for column in file.columns if column not in label_names]
        texts = _text_by_content(sample, free, source, name=name, pairs=pairs)
        if not texts:
            raise _missing_text(file.columns, source, name=name, pairs=pairs)
        notes.append(f'the text is read from the column "{shortened(texts[0])}"')
    if is_label_missing:
        free = [column for column in file.columns if column not in texts]
        label = None if _names_label(source) else sample.only_label(free)
        if label is None:
            raise _missing_label(file.columns, source, name)
        notes.append(f'the label is read from the column "{shortened(label)}"')
    note = f"{name}: {', and '.join(notes)}"
    return ChosenColumns(texts, is_pair, label, label_columns, note, by_content)


class _Sample:
    """The first rows of a file, to judge what a column holds."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._rows = [record.values for record in records if record.values is not None]

    def values(self, column: str) -> list[object]:
        """Return the values of a column that are there and not empty."""
        values = (row.get(column) for row in self._rows)
        return [value for value in values if value is not None and value != ""]

    def is_text(self, column: str) -> bool:
        """Return whether most values are texts of several words, and few of them recur."""
        values = self.values(column)
        texts = [value for value in values if isinstance(value, str) and _is_wordy(value)]
        return bool(texts) and 2 * len(texts) > len(values) and 2 * len(set(texts)) > len(texts)

    def only_label(self, columns: Sequence[str]) -> str | None:
        """Return the only column whose values are classes; None if there is not exactly one."""
        labels = [column for column in columns if self._is_label(column)]
        return labels[0] if len(labels) == 1 else None

    def _is_label(self, column: str) -> bool:
        values = self.values(column)
        if not all(isinstance(value, str | int) for value in values):
            return False
        different = len(set(map(str, values)))
        return 0 < different <= len(values) // 2


def _is_wordy(text: str) -> bool:
    words = len(text.split())
    has_many_characters = words > 1 or (not text.isascii() and len(text) > 3)
    return has_many_characters and _LETTER.search(text) is not None


def _check_source(source: Source, name: str, *, pairs: bool | None) -> None:
    if source.text_columns and source.pair_columns:
        raise DataError(
            f"{name}: both text_columns and pair_columns are set; text_columns are joined into one "
            "text, pair_columns are the two texts of a pair: leave one of them out"
        )
    if source.label_column and source.label_columns:
        raise DataError(
            f"{name}: both label_column and label_columns are set; leave one of them out"
        )
    if pairs and source.text_columns and len(source.text_columns) != 2:
        raise DataError(
            f"{name}: text_columns are set, but the classifier reads pairs of texts; name the two "
            "columns with pair_columns instead"
        )
    if pairs is False and source.pair_columns:
        raise DataError(
            f"{name}: pair_columns are set, but the classifier reads single texts; name the "
            "column with text_columns instead"
        )


def _texts_by_name(
    available: Columns, source: Source, *, pairs: bool | None
) -> tuple[Columns, bool]:
    """Return the columns of the text or pair, and whether they are a pair; () if none is found."""
    named = source.pair_columns or source.text_columns
    if named:
        is_there = all(column in available for column in named)
        return (named if is_there else ()), bool(pairs or source.pair_columns)
    candidates = [(names, True) for names in _PAIR_NAMES] if pairs is not False else []
    if not pairs:
        # A pair's names are looked for before those of single texts, except for plain "text".
        candidates[1:1] = [(_TEXT_NAMES[0], False)]
        candidates += [(names, False) for names in _TEXT_NAMES]
    for names, is_pair in candidates:
        if columns := _existing(available, names):
            return columns, is_pair
    return (), bool(pairs)


def _existing(available: Columns, names: Columns) -> Columns:
    """Return the columns with these names, in any case; () if one of them is missing."""
    folded = {column.strip().casefold(): column for column in reversed(available)}
    columns = tuple(name if name in available else folded.get(name) for name in names)
    return tuple(column for column in columns if column is not None) if all(columns) else ()


def _names_label(source: Source) -> bool:
    return bool(source.label_column or source.label_columns)


def _label_by_name(
    available: Columns, source: Source, labels: Columns
) -> tuple[str | None, Columns]:
    """Return the column of the label, or the columns of 0 and 1; None and () if none is found."""
    if source.label_columns:
        is_there = all(column in available for column in source.label_columns)
        return None, source.label_columns if is_there else ()
    if source.label_column:
        return (source.label_column if source.label_column in available else None), ()
    for name in _LABEL_NAMES:
        if column := _existing(available, (name,)):
            return column[0], ()
    return None, labels if labels and all(label in available for label in labels) else ()


def _text_by_content(
    sample: _Sample, columns: Sequence[str], source: Source, *, name: str, pairs: bool | None
) -> Columns:
    """Return the only column whose values are texts.

    Raises:
        DataError: several columns could be the text.
    """
    if pairs or source.text_columns or source.pair_columns:
        return ()
    texts = [column for column in columns if sample.is_text(column)]
    if len(texts) > 1:
        choice = f'"{shortened(texts[0])}", "{shortened(texts[1])}"'
        raise DataError(
            f"{name}: several columns could be the text: {listed(texts, quoted=True)}; name one "
            "with --text-column, which can be repeated to join columns, or in the recipe the two "
            f"of a pair: --set 'data.train.pair_columns=[{choice}]'"
        )
    return tuple(texts)


def _check_header(file: OpenFile, records: Sequence[Record], name: str) -> None:
    """Check that the first row of a delimited file holds names and not values.

    Raises:
        DataError: it looks like a row of values.
    """
    if not file.has_header:
        return
    sample = _Sample(records)
    for column in file.columns:
        is_text = len(column) > _LONGEST_NAME or len(column.split()) > _MOST_WORDS_IN_NAME
        if is_text or _NUMBER.fullmatch(column) or column in sample.values(column):
            raise DataError(
                f'{name}: the first row looks like data and not like column names: "'
                f'{shortened(column)}"; add a first line that names the columns, such as '
                f"{_example_header(len(file.columns))}"
            )


def _example_header(width: int) -> str:
    names = ["text", "label", *(f"column{number}" for number in range(3, width + 1))]
    return ",".join(names[:width][:6])


def _missing_text(
    available: Columns, source: Source, *, name: str, pairs: bool | None
) -> DataError:
    named = source.pair_columns or source.text_columns
    usual = _PAIR_NAMES if pairs else _TEXT_NAMES
    candidates = (named,) if named else usual
    expected = " or ".join(listed(columns, quoted=True, joint=" and ") for columns in candidates)
    if pairs or source.pair_columns:
        content = "pair of text columns"
        advice = (
            "in training, name the two columns with --set "
            """'data.train.pair_columns=["FIRST", "SECOND"]'; other files need columns of the """
            "same names"
        )
    else:
        content = "text column"
        advice = (
            "name the column with --text-column, or in a recipe: "
            'data.train = { location = "FILE", text_columns = ["COLUMN"] }'
        )
    meant = _meant(available, named or ())
    return DataError(
        f"{name}: no {content}: {_what_is_there(available)}; expected {expected}; {meant}{advice}"
    )


def _missing_label(available: Columns, source: Source, name: str) -> DataError:
    if source.label_columns:
        missing = [column for column in source.label_columns if column not in available]
        return DataError(
            f"{name}: no column {listed(missing, quoted=True)} of label_columns: "
            f"{_what_is_there(available)}"
        )
    expected = (source.label_column,) if source.label_column else _LABEL_NAMES
    meant = _meant(available, expected if source.label_column else ())
    return DataError(
        f"{name}: no label column: {_what_is_there(available)}; expected "
        f"{listed(expected, quoted=True, joint=' or ')}; {meant}name the column with "
        '--label-column, or in a recipe: data.train = { location = "FILE", label_column = '
        '"COLUMN" }; in training, columns of 0 and 1 are named with '
        '--set \'data.train.label_columns=["A", "B"]\''
    )


def _meant(available: Columns, named: Sequence[str]) -> str:
    """Return a question after a column of a similar name; "" if there is none."""
    for name in named:
        others = [column for column in available if column not in named]
        if name not in available and (similar := difflib.get_close_matches(name, others, n=1)):
            return f'did you mean "{similar[0]}"? otherwise '
    return ""


def _what_is_there(available: Columns) -> str:
    return f"the file has {listed(available, quoted=True) or 'no columns'}"

"""CSV and TSV with a header, and the row splitting that every delimited format shares.

A row that cannot be taken apart costs exactly its first physical line: the other lines that it
had swallowed are pushed back and read again. One stray quote is therefore one bad row, however
far away the next quote is, and each line of the file ends up in some record.
"""

from __future__ import annotations

import csv
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from pennyweight.data.read.lines import (
    TOO_LONG,
    Line,
    check_text,
    problem_of,
    source_of,
    text_lines,
)
from pennyweight.data.read.record import Columns, Opened, Record
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["open_csv", "open_tsv", "split_rows"]

# A quoted field may hold line breaks; a row of more lines than this is an unclosed quote.
_MAX_LINES_PER_ROW = 1000
_NEVER_CLOSED = "broken quoting: a quote is opened and not closed"


class _RowTooLong(Exception):  # noqa: N818 - never leaves this file
    """The row that is being read takes more lines than any row should."""


class _Tape:
    """The physical lines as the csv module pulls them: remembered, and able to go back."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._waiting: deque[Line] = deque()
        self.taken: list[Line] = []

    def __iter__(self) -> _Tape:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        taken = self.taken
        taken.append(line)
        if line.problem is TOO_LONG or len(taken) > _MAX_LINES_PER_ROW:
            raise _RowTooLong
        return line.text

    def keep_first(self) -> None:
        """Pushes all but the first taken line back."""
        self._waiting.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def split_rows(
    path: Path,
    *,
    delimiter: str,
    width: int,
    has_header: bool,
    values: Callable[[list[str]], Mapping[str, object]],
) -> Iterator[Record]:
    """Streams a delimited file's rows; empty lines are ignored.

    Args:
        path: the file.
        delimiter: the character between two fields.
        width: the number of fields a row must have.
        has_header: whether the first row names the columns, and is no record.
        values: makes a row's values of its fields; a ValueError's text is the row's problem.
    """
    tape = _Tape(text_lines(path))
    reader = csv.reader(tape, delimiter=delimiter, strict=True)
    number = -1 if has_header else 0
    while True:
        tape.taken = []
        fields, problem = _next_row(reader, tape, width)
        taken = tape.taken
        if not taken:
            return
        if not fields and problem is None:
            continue
        number += 1
        if number == 0:
            continue
        # Most rows are one sound line; only the others need a second look.
        if problem is not None or len(taken) > 1 or taken[0].problem is not None:
            problem = problem_of(taken, also=problem)
        row = None
        if problem is None:
            try:
                row = values(fields)
            except ValueError as error:
                problem = str(error)
        yield Record(number, taken[0].number, row, problem, source_of(taken))


def _next_row(reader: Iterator[list[str]], tape: _Tape, width: int) -> tuple[list[str], str | None]:
    """One row's fields, or what is wrong with the line that is left in `tape.taken`."""
    try:
        fields = next(reader)
    except StopIteration:
        return [], None
    except csv.Error as error:
        problem = _describe(error)
    except _RowTooLong:
        problem = TOO_LONG if tape.taken[0].problem is TOO_LONG else _NEVER_CLOSED
    else:
        if not fields or len(fields) == width:
            return fields, None
        problem = f"{len(fields)} columns instead of {width}"
    tape.keep_first()
    return [], problem


def _describe(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return _NEVER_CLOSED
    if "field larger than field limit" in text:
        return f"a field longer than {csv.field_size_limit():,} characters, or a quote not closed"
    return f"broken quoting: {text}"


def _header(path: Path, delimiter: str) -> Columns:
    """The names in the first row that is not empty."""
    check_text(path)
    tape = _Tape(text_lines(path))
    try:
        for fields in csv.reader(tape, delimiter=delimiter, strict=True):
            problem = problem_of(tape.taken)
            if problem is not None:
                break
            if fields:
                return tuple(fields)
            tape.taken = []
        else:
            raise DataError(f"{path}: the file is empty")
    except csv.Error as error:
        problem = _describe(error)
    except _RowTooLong:
        problem = _NEVER_CLOSED
    raise DataError(f"{path}: the header (line {tape.taken[0].number}) cannot be read: {problem}")


def _open(path: Path, split: str | None, *, delimiter: str) -> Opened:
    columns = _header(path, delimiter)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f'{path}: the header names the column "{twice[0]}" twice; rename one')

    def values(fields: list[str]) -> Mapping[str, object]:
        return dict(zip(columns, fields, strict=True))

    rows = partial(
        split_rows,
        path,
        delimiter=delimiter,
        width=len(columns),
        has_header=True,
        values=values,
    )
    return Opened(columns, lambda wanted: rows())


def open_csv(path: Path, split: str | None) -> Opened:
    """Opens a comma-separated file whose first row names the columns.

    Raises:
        DataError: the file is empty or no UTF-8, or its header cannot be used.
    """
    return _open(path, split, delimiter=",")


def open_tsv(path: Path, split: str | None) -> Opened:
    """Opens a tab-separated file whose first row names the columns.

    Raises:
        DataError: the file is empty or no UTF-8, or its header cannot be used.
    """
    return _open(path, split, delimiter="\t")

"""CSV and TSV with a header, and the row splitting shared by all delimited formats.

A file called CSV may be separated by semicolons or tabs; its header and first rows tell.

If a row cannot be split into fields, only its first physical line is given up: the other lines that
the row had consumed are pushed back and read again. A stray quote therefore makes one bad row, no
matter how far away the next quote is, and every line of the file is part of exactly one record.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING

from pennyweight.data.read.lines import (
    MAX_BYTES,
    TOO_LONG,
    Line,
    check_text,
    problem_of,
    source_of,
    text_lines,
)
from pennyweight.data.read.record import FIRST_ROW, Columns, OpenFile, Position, Record
from pennyweight.data.shown import shortened
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pennyweight.data.read.storage import AnyFile

__all__ = ["open_csv", "open_tsv", "split_rows"]

# In order of preference, for a file that is called CSV.
_DELIMITERS = (",", ";", "\t")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
_ROWS_TO_JUDGE = 20
# A quoted field may contain line breaks. A row with more lines than this has an unclosed quote.
_MAX_LINES_PER_ROW = 1000
_NEVER_CLOSED = "broken quoting: a quote is opened but not closed"


class _RowTooLong(Exception):  # noqa: N818 - never leaves this module
    """The current row has too many lines, or one that is too long."""


class _RewindableLines:
    """Feeds physical lines to the csv module, and can push back those of the current row.

    Attributes:
        row_lines: the lines consumed since the caller last cleared the list.
    """

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._pushed_back: deque[Line] = deque()
        self.row_lines: list[Line] = []

    def __iter__(self) -> _RewindableLines:
        return self

    def __next__(self) -> str:
        line = self._pushed_back.popleft() if self._pushed_back else next(self._lines)
        row_lines = self.row_lines
        row_lines.append(line)
        if line.problem is TOO_LONG or len(row_lines) > _MAX_LINES_PER_ROW:
            raise _RowTooLong
        return line.text

    def keep_first(self) -> None:
        """Push back all lines of the row except the first."""
        self._pushed_back.extendleft(reversed(self.row_lines[1:]))
        del self.row_lines[1:]


def split_rows(
    path: AnyFile,
    *,
    delimiter: str,
    width: int,
    has_header: bool,
    parse: Callable[[list[str]], Mapping[str, object]],
    start: Position = FIRST_ROW,
) -> Iterator[Record]:
    """Stream the rows of a delimited file, ignoring empty lines.

    Args:
        path: the file.
        delimiter: the character between two fields.
        width: number of fields that a row must have.
        has_header: whether the first row names the columns and is not a record.
        parse: turns a row's fields into values by column; the text of a ValueError that it raises
            becomes the row's problem.
        start: where reading begins.
    """
    lines = _RewindableLines(text_lines(path, start))
    # Lines are limited before they reach the reader, whose own limit is a hundredth of theirs.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_BYTES))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = -1 if has_header and not start.byte else start.row
    while True:
        lines.row_lines = []
        fields, problem = _next_row(reader, lines, width)
        row_lines = lines.row_lines
        if not row_lines:
            return
        if not fields and problem is None:
            continue
        number += 1
        if number == 0:
            continue
        # Nearly all rows are one line without a problem; only the others need a closer look.
        if problem is not None or len(row_lines) > 1 or row_lines[0].problem is not None:
            problem = problem_of(row_lines, also=problem)
        values = None
        if problem is None:
            try:
                values = parse(fields)
            except ValueError as error:
                problem = str(error)
        line, end = row_lines[0].number, row_lines[-1].end
        yield Record(number, line, values, problem, source_of(row_lines), end)


def _next_row(
    reader: Iterator[list[str]], lines: _RewindableLines, width: int
) -> tuple[list[str], str | None]:
    """Return a row's fields, or no fields and the problem of the line in `lines.row_lines`."""
    try:
        fields = next(reader)
    except StopIteration:
        return [], None
    except csv.Error as error:
        problem = _describe(error)
    except _RowTooLong:
        problem = TOO_LONG if lines.row_lines[0].problem is TOO_LONG else _NEVER_CLOSED
    else:
        if not fields or len(fields) == width:
            return fields, None
        problem = f"{len(fields)} columns instead of {width}"
    lines.keep_first()
    return [], problem


def _describe(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return _NEVER_CLOSED
    if "field larger than field limit" in text:
        return f"a field longer than {csv.field_size_limit():,} characters, or an unclosed quote"
    return f"broken quoting: {text}"


def _header(path: AnyFile, delimiter: str) -> Columns:
    """Return the fields of the first row that is not empty, of a file that can be text."""
    lines = _RewindableLines(text_lines(path))
    try:
        for fields in csv.reader(lines, delimiter=delimiter, strict=True):
            problem = problem_of(lines.row_lines)
            if problem is not None:
                break
            if fields:
                return tuple(fields)
            lines.row_lines = []
        else:
            raise DataError(f"{path}: the file is empty")
    except csv.Error as error:
        problem = _describe(error)
    except _RowTooLong:
        problem = _NEVER_CLOSED
    line = lines.row_lines[0].number
    raise DataError(f"{path}: the header (line {line}) cannot be read: {problem}")


def _delimiter(path: AnyFile) -> str:
    """Return the delimiter of a file called CSV: a comma, unless its rows are split by another.

    Another delimiter must split the header, which no comma splits, and most of the first rows into
    as many fields.
    """
    if len(_header(path, ",")) > 1:
        return ","
    for delimiter in _DELIMITERS[1:]:
        if _splits(path, delimiter):
            return delimiter
    return ","


def _splits(path: AnyFile, delimiter: str) -> bool:
    """Return whether a delimiter splits the header and most of the first rows, all alike."""
    try:
        columns = _header(path, delimiter)
    except DataError:
        return False
    if len(columns) < 2 or not all(map(str.strip, columns)):
        return False
    rows = split_rows(
        path, delimiter=delimiter, width=len(columns), has_header=True, parse=lambda fields: {}
    )
    judged = [row.problem is None for row in itertools.islice(rows, _ROWS_TO_JUDGE)]
    return 2 * sum(judged) >= len(judged)


def _open(path: AnyFile, *, delimiter: str) -> OpenFile:
    columns = _header(path, delimiter)
    repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
    if repeated:
        raise DataError(
            f'{path}: the header has more than one column "{shortened(repeated[0])}"; rename all '
            "but one, or add a header if the first row is a row of values"
        )

    def parse(fields: list[str]) -> Mapping[str, object]:
        return dict(zip(columns, fields, strict=True))

    rows = partial(
        split_rows,
        path,
        delimiter=delimiter,
        width=len(columns),
        has_header=True,
        parse=parse,
    )
    return OpenFile(
        columns,
        lambda requested: rows(),
        has_header=True,
        records_from=lambda requested, start: rows(start=start),
    )


def open_csv(path: AnyFile, split: str | None) -> OpenFile:
    """Open a file whose first row names the columns, separated by commas, semicolons or tabs.

    Raises:
        DataError: the file is empty or not UTF-8, or its header cannot be used.
    """
    check_text(path)
    return _open(path, delimiter=_delimiter(path))


def open_tsv(path: AnyFile, split: str | None) -> OpenFile:
    """Open a tab-separated file whose first row names the columns.

    Raises:
        DataError: the file is empty or not UTF-8, or its header cannot be used.
    """
    check_text(path)
    if len(_header(path, "\t")) == 1:
        for delimiter in _DELIMITERS[:2]:
            if _splits(path, delimiter):
                raise DataError(
                    f"{path}: the header has no tab, but the fields seem to be separated by "
                    f'{_NAMES[delimiter]}; name the format "csv"'
                )
    return _open(path, delimiter="\t")

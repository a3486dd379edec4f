"""Types shared by all readers: a record, an open file, and an entry in the table of readers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa

    from pennyweight.data.read.storage import AnyFile

__all__ = ["FIRST_ROW", "Columns", "OpenFile", "Position", "Reader", "Record"]

Columns = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two rows of a file, at which reading can begin.

    Attributes:
        row: number of rows before it, without the header.
        byte: number of bytes before it in the decompressed text; 0 in binary formats.
        line: number of the line that begins there, counted from 1.
    """

    row: int = 0
    byte: int = 0
    line: int = 1


FIRST_ROW = Position()


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file, readable or not.

    Attributes:
        number: number of the row, counted from 1 without the header.
        line: number of the row's first physical line, counted from 1; None in binary formats.
        values: value of each column; None if the row could not be split into columns.
        problem: why the row is malformed; None if it is not.
        source: the row's text in the file; None in binary formats.
        end: number of bytes of the text up to the end of the row; None in binary formats.
    """

    number: int
    line: int | None
    values: Mapping[str, object] | None
    problem: str | None = None
    source: str | None = None
    end: int | None = None

    @property
    def raw(self) -> str:
        r"""The complete row as text, for the file of bad rows.

        In text formats these are the physical lines with their line ends. If the problem is invalid
        UTF-8, such bytes are escaped as `\xNN` and backslashes as `\\`, so that the bytes can be
        restored. In binary formats these are the columns that were read, as JSON.
        """
        if self.source is not None:
            return self.source
        return json.dumps(dict(self.values or {}), ensure_ascii=False, default=repr)

    @property
    def after(self) -> Position:
        """The place behind the row."""
        if self.end is None or self.line is None:
            return Position(self.number)
        return Position(self.number, self.end, self.line + (self.source or "").count("\n"))


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file whose columns are known and whose rows can be streamed.

    Attributes:
        columns: names of the columns, in the file's order.
        records: streams all rows from the first one. Its argument lists the columns to read, None
            for all; formats that cannot skip columns ignore it.
        class_names: class names behind a column's integers, or behind its lists of integers, for
            columns where the file stores them.
        has_header: whether the columns are named by the first row of the file.
        first_class: the integer that stands for the first class, where integers are indices.
        records_from: streams the rows from a position on, with the columns as for `records`; None
            where reading always begins at the first row.
        rows: number of rows, where it is known without reading them.
        schema: the Arrow types of the columns, where the file has them.
    """

    columns: Columns
    records: Callable[[Columns | None], Iterator[Record]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_header: bool = False
    first_class: int = 0
    records_from: Callable[[Columns | None, Position], Iterator[Record]] | None = None
    rows: int | None = None
    schema: pa.Schema | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """An entry in the table of formats.

    Attributes:
        name: the format's name in recipes.
        summary: one line of documentation.
        endings: file name endings of the format, each with its dot; () for directories.
        open: opens a path, given the name of a split or None; raises DataError.
    """

    name: str
    summary: str
    endings: tuple[str, ...]
    open: Callable[[AnyFile, str | None], OpenFile]

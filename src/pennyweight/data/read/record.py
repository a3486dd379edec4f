"""Types shared by all readers: a record, an open file, and an entry in the table of readers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Columns", "OpenFile", "Reader", "Record"]

Columns = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file, readable or not.

    Attributes:
        number: number of the row, counted from 1 without the header.
        line: number of the row's first physical line, counted from 1; None in binary formats.
        values: value of each column; None if the row could not be split into columns.
        problem: why the row is malformed; None if it is not.
        source: the row's text in the file; None in binary formats.
    """

    number: int
    line: int | None
    values: Mapping[str, object] | None
    problem: str | None = None
    source: str | None = None

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
    """

    columns: Columns
    records: Callable[[Columns | None], Iterator[Record]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_header: bool = False
    first_class: int = 0


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
    open: Callable[[Path, str | None], OpenFile]

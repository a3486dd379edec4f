"""The nouns of reading: one row, an opened file, and one entry of the table of readers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Columns", "Opened", "Reader", "Record"]

Columns = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file, good or bad.

    Attributes:
        number: the row's number from 1, a header not counted.
        line: the number, from 1, of the row's first physical line; None in binary formats.
        values: column -> value; None where the row could not be taken apart.
        problem: what is wrong with the row as it stands in the file; None when nothing is.
        source: the row as the file had it; None in binary formats.
    """

    number: int
    line: int | None
    values: Mapping[str, object] | None
    problem: str | None = None
    source: str | None = None

    @property
    def raw(self) -> str:
        r"""The row for setting aside, losing nothing.

        Text formats give the physical lines, line ends included. Where the problem names invalid
        UTF-8, such a byte stands as `\xNN` and a backslash as `\\`, which can be undone. Binary
        formats give the columns that were read, as JSON.
        """
        if self.source is not None:
            return self.source
        return json.dumps(dict(self.values or {}), ensure_ascii=False, default=repr)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that was found readable: its columns, and a way to its rows.

    Attributes:
        columns: the names of the columns, in the file's order.
        records: given the wanted columns (None: all), streams the rows from the first one on.
        class_names: column -> the names of the classes that its integers stand for, where the
            file says so.
    """

    columns: Columns
    records: Callable[[Columns | None], Iterator[Record]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reader:
    """One entry of the table of formats.

    Attributes:
        name: what a recipe calls the format.
        summary: one line for `--help`.
        endings: file name endings that say so, each with its dot; () for directories.
        open: given a path and the name of a split (None for most), opens it; raises DataError.
    """

    name: str
    summary: str
    endings: tuple[str, ...]
    open: Callable[[Path, str | None], Opened]

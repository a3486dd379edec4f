"""The values of a label column as they stand in a file, counted."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pennyweight.data.read import Record

__all__ = ["LabelValues", "is_boolean", "is_missing", "place_of"]


@dataclass(slots=True)
class LabelValues:
    """The different values of a label column and how often each occurs.

    Attributes:
        singles: values that are no list, by name.
        lists: lists of names, as tuples.
        are_booleans: whether all values are true or false.
        rows: number of values.
        bad: number of rows that cannot be read.
        first_bad: place and problem of the first of them; "" if there is none.
    """

    singles: Counter[str] = field(default_factory=Counter)
    lists: Counter[tuple[str, ...]] = field(default_factory=Counter)
    are_booleans: bool = True
    rows: int = 0
    bad: int = 0
    first_bad: str = ""

    def add(self, value: object, names: Sequence[str | None]) -> None:
        """Count a value, or a list of values, by the names of its labels."""
        self.rows += 1
        parts = value if isinstance(value, list | tuple) else [value]
        self.are_booleans &= all(map(is_boolean, parts))
        known = tuple(name for name in names if name is not None)
        if isinstance(value, list | tuple):
            self.lists[known] += 1
        else:
            self.singles.update(known)

    def note_bad(self, record: Record, problem: object) -> None:
        """Count a row that cannot be read."""
        self.first_bad = self.first_bad or f"{place_of(record)}: {problem}"
        self.bad += 1

    def of_bad_rows(self) -> str:
        """Return the end of a message on rows that cannot be read; "" without such rows."""
        if not self.bad:
            return ""
        rows = "one row" if self.bad == 1 else f"{self.bad:,} rows"
        return f"; {rows} cannot be read, first {self.first_bad}"


def place_of(record: Record) -> str:
    """Return where a record stands in its file, for messages."""
    return f"row {record.number}" + ("" if record.line is None else f" (line {record.line})")


def is_missing(value: object) -> bool:
    """Return whether a cell holds no label."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_boolean(value: object) -> bool:
    """Return whether a label is true or false, or the text of one."""
    return isinstance(value, bool) or (
        isinstance(value, str) and value.strip().casefold() in {"true", "false"}
    )

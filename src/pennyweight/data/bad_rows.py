"""The rows that cannot be used, with the reason for each."""

from __future__ import annotations

import json
from itertools import islice
from typing import IO, TYPE_CHECKING

from pennyweight.data.label import BadRow
from pennyweight.data.label_values import place_of
from pennyweight.environment import without_home
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pennyweight.data.read import Record
    from pennyweight.data.row import RowParser

__all__ = ["BadRowLog"]

# The rows after a bad one in which others are counted before an error stops the reading.
_LOOKED_AT = 10_000


class BadRowLog:
    """Writes bad rows to a JSON Lines file, with the reason for each."""

    def __init__(self, file: IO[str], source_name: str) -> None:
        self._file = file
        self._source_name = source_name
        self.rows = 0
        self.first_problem = ""

    def describe(self, record: Record, problem: BadRow) -> str:
        """Return the row's place and its problem in one line."""
        return f"{self._source_name}: {place_of(record)}: {problem}"

    def error(
        self, record: Record, problem: BadRow, *, following: Iterator[Record], parser: RowParser
    ) -> DataError:
        """Return the error that stops at a bad row, and counts those that follow it.

        Args:
            record: the bad row.
            problem: why it cannot be used.
            following: the rows after it, of which some are read.
            parser: finds the bad ones among them.
        """
        bad, looked_at = _count_bad(islice(following, _LOOKED_AT), parser)
        others, rows = "", "row"
        if bad:
            rows = "rows"
            others = f"; {bad:,} of the next {looked_at:,} rows cannot be used either"
        return DataError(
            f"{self.describe(record, problem)}{others}; fix the {rows}, or set bad rows aside with "
            "--skip-bad-rows"
        )

    def add(self, record: Record, problem: BadRow) -> None:
        """Write a bad row."""
        self.rows += 1
        self.first_problem = self.first_problem or self.describe(record, problem)
        row = {
            "file": without_home(self._source_name),
            "row": record.number,
            "line": record.line,
            "problem": str(problem),
            "raw": record.raw,
        }
        # JSON's default ASCII output, because a lone surrogate cannot be encoded as UTF-8.
        self._file.write(json.dumps(row) + "\n")


def _count_bad(records: Iterator[Record], parser: RowParser) -> tuple[int, int]:
    """Return the number of bad rows, and of all rows as far as they can be read."""
    bad = looked_at = 0
    try:
        for record in records:
            looked_at += 1
            try:
                parser(record)
            except BadRow:
                bad += 1
    except DataError:
        # The file itself is damaged there, which an error says once the row is mended.
        pass
    return bad, looked_at

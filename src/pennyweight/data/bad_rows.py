"""The rows that cannot be used, with the reason for each."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING

from pennyweight.environment import without_home
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from pennyweight.data.label import BadRow
    from pennyweight.data.read import Record

__all__ = ["BadRowLog"]


class BadRowLog:
    """Writes bad rows to a JSON Lines file, with the reason for each."""

    def __init__(self, file: IO[str], source_name: str) -> None:
        self._file = file
        self._source_name = source_name
        self.rows = 0
        self.first_problem = ""

    def describe(self, record: Record, problem: BadRow) -> str:
        """Return the row's place and its problem in one line."""
        line = "" if record.line is None else f" (line {record.line})"
        return f"{self._source_name}: row {record.number}{line}: {problem}"

    def error(self, record: Record, problem: BadRow) -> DataError:
        """Return the error that stops at a bad row."""
        return DataError(
            f"{self.describe(record, problem)}; fix the row, or set bad rows aside with "
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

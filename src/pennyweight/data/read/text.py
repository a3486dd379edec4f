"""Plain text: one text per line, in the single column `text`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pennyweight.data.read.lines import check_text, source_of, text_lines
from pennyweight.data.read.record import Columns, OpenFile, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["open_lines"]


def open_lines(path: Path, split: str | None) -> OpenFile:
    """Open a text file; empty lines at its end are ignored, other empty lines are empty rows.

    Raises:
        DataError: the file is empty or not UTF-8.
    """
    check_text(path)

    def records(columns: Columns | None) -> Iterator[Record]:
        empty = 0
        for line in text_lines(path):
            text = line.text.removesuffix("\n").removesuffix("\r")
            if not text:
                empty += 1
                continue
            # Empty lines become rows only once a text follows; they may be the end of the file.
            for number in range(line.number - empty, line.number):
                yield Record(number, number, {"text": ""}, None, "\n")
            empty = 0
            yield Record(line.number, line.number, {"text": text}, line.problem, source_of([line]))

    return OpenFile(("text",), records)

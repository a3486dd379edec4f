"""Plain text: one text per line, in the single column `text`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pennyweight.data.read.lines import Line, check_text, source_of, text_lines
from pennyweight.data.read.record import FIRST_ROW, OpenFile, Position, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pennyweight.data.read.storage import AnyFile

__all__ = ["open_lines"]


def open_lines(path: AnyFile, split: str | None) -> OpenFile:
    """Open a text file; empty lines at its end are ignored, other empty lines are empty rows.

    Raises:
        DataError: the file is empty or not UTF-8.
    """
    check_text(path)

    def records(start: Position) -> Iterator[Record]:
        empty: list[Line] = []
        for line in text_lines(path, start):
            text = line.text.removesuffix("\n").removesuffix("\r")
            if not text:
                empty.append(line)
                continue
            # Empty lines become rows only once a text follows; they may be the end of the file.
            for one in empty:
                yield Record(one.number, one.number, {"text": ""}, None, "\n", one.end)
            empty.clear()
            source = source_of([line])
            yield Record(line.number, line.number, {"text": text}, line.problem, source, line.end)

    return OpenFile(
        ("text",),
        lambda columns: records(FIRST_ROW),
        records_from=lambda columns, start: records(start),
    )

"""JSON Lines: one object per line; empty lines are ignored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pennyweight.data.read.lines import Line, check_text, source_of, text_lines
from pennyweight.data.read.record import FIRST_ROW, Columns, OpenFile, Position, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pennyweight.data.read.storage import AnyFile

__all__ = ["open_jsonl"]

# Objects may have different keys, so the columns are the union over the first objects: a hundred,
# and those that a single read of a remote file brings as well.
_OBJECTS_FOR_COLUMNS = 100
_BYTES_FOR_COLUMNS = 2**15


def open_jsonl(path: AnyFile, split: str | None) -> OpenFile:
    """Open a JSON Lines file.

    Raises:
        DataError: the file is empty or not UTF-8.
    """
    check_text(path)
    names: dict[str, None] = {}
    for record in _records(path):
        names.update(dict.fromkeys(record.values or ()))
        if record.number >= _OBJECTS_FOR_COLUMNS and (record.end or 0) >= _BYTES_FOR_COLUMNS:
            break
    return OpenFile(
        tuple(names),
        lambda columns: _records(path, columns),
        records_from=lambda columns, start: _records(path, columns, start),
    )


def _records(
    path: AnyFile, columns: Columns | None = None, start: Position = FIRST_ROW
) -> Iterator[Record]:
    number = start.row
    for line in text_lines(path, start):
        if not line.text.strip(" \t\r\n"):
            continue
        number += 1
        values, problem = _parse(line) if columns != () else ({}, None)
        yield Record(number, line.number, values, problem, source_of([line]), line.end)


def _parse(line: Line) -> tuple[dict[str, object] | None, str | None]:
    if line.problem is not None:
        return None, line.problem
    try:
        values = json.loads(line.text)
    except json.JSONDecodeError as error:
        return None, f"invalid JSON: {error.msg} at character {error.colno}"
    except (ValueError, RecursionError) as error:
        return None, f"invalid JSON: {error}"
    if not isinstance(values, dict):
        return None, "not a JSON object"
    return values, None

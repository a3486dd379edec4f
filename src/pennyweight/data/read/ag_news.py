r"""The original CSV of AG News: no header; class from 1 to N, title, description.

Every field is quoted, quotes inside a field are doubled, and `\n` is documented as a line break.
In the file, however, a lone backslash is a line break too, and can come directly before a word that
begins with n: "both its\northern" means "northern". `\n` is therefore decoded only if no
lower-case letter follows. Other backslashes are kept; the cleaning step "backslashes" removes them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pennyweight.data.read.delimited import split_rows
from pennyweight.data.read.lines import check_text
from pennyweight.data.read.record import FIRST_ROW, OpenFile, Position, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pennyweight.data.read.storage import AnyFile

__all__ = ["open_ag_news"]

_COLUMNS = ("label", "title", "description")
_LINE_BREAK = re.compile(r"\\n(?![a-z])")
_CLASS = re.compile(r"[1-9][0-9]{0,5}")


def _parse(fields: list[str]) -> Mapping[str, object]:
    number, title, description = fields
    if not _CLASS.fullmatch(number):
        raise ValueError(f'class "{number[:40]}" is not an integer of at least 1')
    return {
        "label": int(number),
        "title": _LINE_BREAK.sub("\n", title),
        "description": _LINE_BREAK.sub("\n", description),
    }


def open_ag_news(path: AnyFile, split: str | None) -> OpenFile:
    """Open the original CSV of AG News; its classes are numbered from 1.

    Raises:
        DataError: the file is empty or not UTF-8.
    """
    check_text(path)

    def records(start: Position) -> Iterator[Record]:
        return split_rows(path, delimiter=",", width=3, has_header=False, parse=_parse, start=start)

    return OpenFile(
        _COLUMNS,
        lambda columns: records(FIRST_ROW),
        first_class=1,
        records_from=lambda columns, start: records(start),
    )

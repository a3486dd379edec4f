r"""AG News as its authors gave it out: no header, class 1 to N, title, description.

Every field is quoted, quotes inside are doubled, and `\n` is documented as a line break. Yet in
the file a lone backslash is a line break too, and may stand directly before a word that begins
with n: "both its\northern" is "northern". So `\n` is decoded only where no lower-case letter
follows, and every other backslash is kept; the cleaning step "backslashes" takes those.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pennyweight.data.read.delimited import split_rows
from pennyweight.data.read.lines import check_text
from pennyweight.data.read.record import Columns, Opened, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["open_ag_news"]

_COLUMNS = ("label", "title", "description")
_LINE_BREAK = re.compile(r"\\n(?![a-z])")
_CLASS = re.compile(r"[1-9][0-9]{0,5}")


def _values(fields: list[str]) -> Mapping[str, object]:
    number, title, description = fields
    if not _CLASS.fullmatch(number):
        raise ValueError(f'class "{number[:40]}" is not a number from 1')
    return {
        "label": int(number) - 1,
        "title": _LINE_BREAK.sub("\n", title),
        "description": _LINE_BREAK.sub("\n", description),
    }


def open_ag_news(path: Path, split: str | None) -> Opened:
    """Opens AG News' own CSV; its classes from 1 become labels from 0.

    Raises:
        DataError: the file is empty, or no UTF-8.
    """
    check_text(path)

    def records(columns: Columns | None) -> Iterator[Record]:
        return split_rows(path, delimiter=",", width=3, has_header=False, values=_values)

    return Opened(_COLUMNS, records)

"""Values and names in messages, shortened so that no message repeats a whole text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["listed", "shortened", "shown"]

_CHARACTERS = 60
_NAMES = 12


def shortened(text: str) -> str:
    """Return a text in one line of at most 60 characters."""
    line = " ".join(text.split())
    return line if len(line) <= _CHARACTERS else f"{line[: _CHARACTERS - 3]}..."


def shown(value: object) -> str:
    """Return a value as JSON of at most 60 characters."""
    # Only the beginning of a long string is encoded.
    value = value[: 2 * _CHARACTERS] if isinstance(value, str) else value
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 3]}..."


def listed(names: Iterable[str], *, quoted: bool = False, joint: str = ", ") -> str:
    """Return the first 12 names, shortened, and the number of the others."""
    every = list(names)
    first = [shortened(name) for name in every[:_NAMES]]
    text = joint.join(f'"{name}"' for name in first) if quoted else joint.join(first)
    rest = len(every) - len(first)
    return f"{text} and {rest:,} more" if rest else text

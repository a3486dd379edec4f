"""Patterns over module names: one language for targets, ranks and alphas.

A pattern is a sequence of dot-separated parts that must match adjacent parts of a module's name;
`*` matches any text within one part. `query` matches every query matrix, `layer.11` everything in
layer 11, `layer.3.attention.self.value` a single matrix, and `*` everything. `adapter.targets`
matches the end of a name only, as PEFT's target modules do (see `matches_end`). A matrix that has
another name in BERT and RoBERTa is matched by either (see `budget.usual_names`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeVar

__all__ = ["lookup", "matches", "matches_end", "unmatched"]

Value = TypeVar("Value")


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> str:
    return r"\.".join(map(_part_expression, pattern.split(".")))


def _part_expression(part: str) -> str:
    """Return the expression of one part, which takes time in proportion to the name's length.

    Each piece between two stars is matched where it first occurs, once and for all: the atomic
    groups keep the engine from trying every other division of the name.
    """
    first, *others = map(re.escape, part.split("*"))
    if not others:
        return first
    *middle, last = others
    pieces = "".join(f"(?>[^.]*?{piece})" for piece in middle if piece)
    # The greedy star of the last piece finds its last occurrence.
    return rf"{first}{pieces}[^.]*{last}"


def matches(pattern: str, *names: str) -> bool:
    """Return whether the parts of `pattern` match adjacent parts anywhere in one of the names."""
    expression = rf"(?:^|\.){_expression(pattern)}(?:\.|$)"
    return any(re.search(expression, name) is not None for name in names)


def matches_end(pattern: str, *names: str) -> bool:
    """Return whether the last parts of a name match `pattern`, as PEFT matches target modules."""
    expression = rf"(?:^|\.){_expression(pattern)}$"
    return any(re.search(expression, name) is not None for name in names)


def lookup(table: Mapping[str, Value], *names: str) -> Value | None:
    """Return the value of the last pattern that matches one of the names, or None if none does."""
    values = [value for pattern, value in table.items() if matches(pattern, *names)]
    return values[-1] if values else None


def unmatched(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the patterns that match none of the names."""
    known = list(names)
    return [pattern for pattern in patterns if not matches(pattern, *known)]

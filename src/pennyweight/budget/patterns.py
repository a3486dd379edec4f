"""Patterns over module names, one language for targets, ranks and alphas.

A pattern is dot-separated parts that must match neighbouring parts of a module's name; `*`
stands for any text within a part. So `query` is every query matrix, `layer.11` everything in
layer 11, `layer.3.attention.self.value` a single matrix and `*` everything. A pattern that
speaks of the end of a name only, as PEFT's target modules do, is `targets`' meaning: see `ends`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeVar

__all__ = ["ends", "lookup", "occurs", "unused"]

Value = TypeVar("Value")


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> str:
    return r"\.".join(
        ".*".join(map(re.escape, part.split("*"))).replace(".*", r"[^.]*")
        for part in pattern.split(".")
    )


def occurs(pattern: str, name: str) -> bool:
    """Whether the parts of `pattern` stand next to each other anywhere in `name`."""
    return re.search(rf"(?:^|\.){_expression(pattern)}(?:\.|$)", name) is not None


def ends(pattern: str, name: str) -> bool:
    """Whether `name` ends with the parts of `pattern`, as PEFT matches target modules."""
    return re.search(rf"(?:^|\.){_expression(pattern)}$", name) is not None


def lookup(table: Mapping[str, Value], name: str) -> Value | None:
    """The value for `name`: of all patterns that occur in it, the last one wins."""
    found = None
    for pattern, value in table.items():
        if occurs(pattern, name):
            found = value
    return found


def unused(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The patterns that occur in none of the names."""
    known = list(names)
    return [pattern for pattern in patterns if not any(occurs(pattern, name) for name in known)]

"""Values as TOML on one line, for overrides that are written as `KEY=VALUE`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tomli_w

__all__ = ["inline_toml"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def inline_toml(value: Any) -> str:
    """Return a value as TOML without line breaks: tables are inline tables.

    Args:
        value: strings, numbers, true or false, dates, and lists and tables of these.
    """
    if isinstance(value, Mapping):
        entries = (f"{_key(key)} = {inline_toml(each)}" for key, each in value.items())
        return f"{{ {', '.join(entries)} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline_toml, value))}]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else inline_toml(name)

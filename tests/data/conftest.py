"""Fixtures for tests of reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pennyweight.data.ingest import ReadOptions, Rows, read_rows
from pennyweight.data.source import Source
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABELS = ("World", "Sports", "Business", "Sci/Tech")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def read(tmp_path: Path, cache: Path) -> Callable[..., Rows]:
    """Write content to a file, and read it with any fields of `ReadOptions` and `Source`."""

    def write_and_read(
        content: str | bytes, name: str = "rows.csv", *, labelled: bool = True, **fields: Any
    ) -> Rows:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        names = ("text_columns", "label_column", "pair_columns", "label_columns")
        columns = {key: fields.pop(key) for key in names if key in fields}
        defaults = {"labels": LABELS, "clean": (), "on_bad_row": "stop", "cache": cache}
        options = ReadOptions(**(defaults | fields))
        return read_rows("rows", Source(str(path), **columns), options, labelled=labelled)

    return write_and_read


@pytest.fixture
def message() -> Callable[[Callable[[], object]], str]:
    """Call something that must raise a DataError of one line, and return that line."""

    def caught(call: Callable[[], object]) -> str:
        with pytest.raises(DataError) as raised:
            call()
        text = str(raised.value)
        assert "\n" not in text
        return text

    return caught

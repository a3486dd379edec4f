"""Fixtures for tests of reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pennyweight.data.ingest import Rows, Source, ingest
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
    """Writes content to a file of a name, and ingests it with any options."""

    def written(content: str | bytes, name: str = "rows.csv", **options: Any) -> Rows:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        columns = {
            key: options.pop(key) for key in ("text_columns", "label_column") if key in options
        }
        return ingest(Source(str(path), **columns), cache=cache, **({"labels": LABELS} | options))

    return written


@pytest.fixture
def message() -> Callable[[Callable[[], object]], str]:
    """Calls something that must raise a DataError of one line; gives that line."""

    def caught(call: Callable[[], object]) -> str:
        with pytest.raises(DataError) as raised:
            call()
        text = str(raised.value)
        assert "\n" not in text
        return text

    return caught

"""Folders of rows, here and elsewhere."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tiny import news


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Return a folder with three CSV files of 50, 7 and 40 rows, in two levels."""
    folder, rows = tmp_path / "many", news(97, seed=21)
    for name, part in (("a.csv", rows[:50]), ("b/c.csv", rows[50:57]), ("b/d.csv", rows[57:])):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("id", "text"), *enumerate(text for _, text in part)])
    (folder / "README.md").write_text("not rows")
    (folder / "_later.csv").write_text("not rows either")
    return folder


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]

"""Derived rows are written once with their manifest, and a changed file is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pennyweight.errors import DataError
from pennyweight.lab import manifest
from pennyweight.lab.manifest import derive_once, read_derived


def test_rows_are_derived_once_and_a_changed_file_is_noticed(tmp_path: Path) -> None:
    calls = []

    def derive() -> tuple[pa.Table, dict[str, object]]:
        calls.append(1)
        return pa.table({"text": ["a"], "label": [0]}), {"labels": ["x"]}

    derived = derive_once(tmp_path, {"seed": 1}, derive)
    cached = derive_once(tmp_path, {"seed": 1}, derive)
    assert len(calls) == 1
    assert cached.path == derived.path
    assert cached.manifest == derived.manifest
    assert cached.rows.equals(derived.rows)
    assert derive_once(tmp_path, {"seed": 2}, derive).path != derived.path
    assert derived.manifest["rows"] == 1
    derived.path.write_bytes(derived.path.read_bytes() + b" ")
    with pytest.raises(DataError, match="changed since it was written"):
        read_derived(derived.path)


def test_rows_that_were_just_derived_are_not_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "read_derived", lambda path: pytest.fail("the file was read"))
    rows = pa.table({"text": ["a"], "label": [0]})
    assert derive_once(tmp_path, {"seed": 1}, lambda: (rows, {})).rows is rows

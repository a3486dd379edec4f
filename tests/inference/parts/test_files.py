"""Finding the files of a prediction, and looking at their columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pennyweight.errors import DataError
from pennyweight.inference.parts.files import find_files
from pennyweight.inference.parts.predict_files import predict_files
from tiny import news


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", {"a.csv"}),
        ("**/*.csv", {"a.csv", "b/c.csv", "b/d.csv"}),
        ("_*.csv", {"_later.csv"}),
        ("[a_]*.csv", {"a.csv"}),
        ("_old/*.csv", {"e.csv"}),
        ("**/_old/*.csv", {"_old/e.csv"}),
        ("*/*.csv", {"b/c.csv", "b/d.csv"}),
    ],
)
def test_a_pattern_leaves_out_hidden_names_unless_it_gives_them(
    tmp_path: Path, pattern: str, names: set[str]
) -> None:
    for name in ("a.csv", "b/c.csv", "b/d.csv", "_later.csv", ".hidden.csv", "._a.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text\nnew\n")
    (tmp_path / "_old").mkdir()
    for name in ("_old/e.csv", "_old/_f.csv"):
        (tmp_path / name).write_text("text\nold\n")
    assert {file.name for file in find_files(f"{tmp_path}/{pattern}")} == names


def test_the_columns_of_all_files_are_checked_first_with_small_reads_of_remote_ones(
    run: Path, tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text for _, text in news(3000, seed=23)]
    table = pa.table({"id": range(3000), "text": texts})
    (tmp_path / "jsonl").mkdir()
    (tmp_path / "parquet").mkdir()
    pq.write_table(table, tmp_path / "parquet" / "a.parquet", compression="none")
    rows = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    (tmp_path / "jsonl" / "a.jsonl").write_text(rows)
    (tmp_path / "jsonl" / "b.jsonl").write_text('{"id": 1}\n' * 200)
    pq.write_table(table.select(["id"]), tmp_path / "parquet" / "b.parquet", compression="none")
    reads: list[int] = []
    cat_file = type(memory).cat_file

    def counting(self: Any, path: str, start: int, end: int) -> bytes:
        reads.append(end - start)
        return bytes(cat_file(self, path, start=start, end=end))

    for data_format in ("jsonl", "parquet"):
        assert (tmp_path / data_format / f"a.{data_format}").stat().st_size > 2**16
        memory.put(str(tmp_path / data_format), f"/rows-{data_format}", recursive=True)
        with monkeypatch.context() as patch:
            patch.setattr(type(memory), "cat_file", counting)
            with pytest.raises(DataError, match=rf"rows-{data_format}/b\.{data_format}: .*text"):
                predict_files(
                    run, f"memory://rows-{data_format}/*.{data_format}", out=str(tmp_path / "out")
                )
        assert not [path for path in (tmp_path / "out").iterdir() if path.name != ".lock"]
    # The first file is read to settle the columns, and again with all others.
    assert len(reads) <= 12
    assert max(reads) <= 2**16

"""Compressed and remote files of rows are read like any other."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from pennyweight.data.read import Position, RemoteFile, detect, open_file
from pennyweight.errors import DataError

ROWS = b'{"text": "one"}\n{"text": "two"}\n\n{"text": "three"}\n'


def arrow(codec: str) -> Callable[[bytes], bytes]:
    def compress(content: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, codec) as file:
            file.write(content)
        return bytes(sink.getvalue())

    return compress


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": arrow("zstd"),
    ".lz4": arrow("lz4"),
}


def texts(path: Path | RemoteFile, start: Position | None = None) -> list[object]:
    file = open_file(path)
    assert file.records_from is not None
    records = file.records(None) if start is None else file.records_from(None, start)
    return [(record.number, record.line, (record.values or {})["text"]) for record in records]


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_a_compressed_file_has_the_rows_and_positions_of_its_content(
    tmp_path: Path, ending: str
) -> None:
    plain, path = tmp_path / "rows.jsonl", tmp_path / f"rows.JSONL{ending}"
    plain.write_bytes(ROWS)
    path.write_bytes(COMPRESSIONS[ending](ROWS))
    assert detect(path) == "jsonl"
    assert texts(path) == texts(plain) == [(1, 1, "one"), (2, 2, "two"), (3, 4, "three")]
    after_first = next(iter(open_file(path).records(None))).after
    assert after_first == Position(1, 16, 2)
    assert texts(path, after_first) == texts(plain, after_first) == texts(plain)[1:]


def test_gzip_files_may_have_several_members(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(ROWS[:16]) + gzip.compress(ROWS[16:]))
    assert len(texts(path)) == 3


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_a_damaged_or_cut_file_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.jsonl{ending}"
    content = COMPRESSIONS[ending](bytes(range(256)) * 4000)
    for damaged in (b"no archive at all", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"rows.jsonl.*: cannot be decompressed: \S") as caught:
            texts(path)
        assert "\n" not in str(caught.value)


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENNYWEIGHT_MAX_EXPANDED_MIB", "1")
    path = tmp_path / "rows.txt.bz2"
    path.write_bytes(bz2.compress(b"a line\n" * 2**19))
    with pytest.raises(DataError, match="unpacks to more than 200 times its size; if it is right"):
        texts(path)


def test_a_remote_file_is_read_and_a_missing_one_named() -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file("/rows/a.jsonl.gz", gzip.compress(ROWS))
    assert len(texts(RemoteFile("memory://rows/a.jsonl.gz"))) == 3
    with pytest.raises(DataError, match=r"^memory://rows/b\.jsonl: no such file$"):
        texts(RemoteFile("memory://rows/b.jsonl"))
    system.rm("/rows", recursive=True)
    system.pipe_file("/a.pkl", b"\x80\x04")
    with pytest.raises(DataError, match="a file of this format is read from a local path only"):
        open_file(RemoteFile("memory://a.pkl"))
    system.rm("/a.pkl")

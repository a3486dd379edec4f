"""Requirements that every reader in the table meets, and the reader that a path gets."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pennyweight.data.ingest import ReadOptions, read_rows
from pennyweight.data.read import READERS, Record, detect, existing_path, open_file
from pennyweight.data.source import Source
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# One file per format: rows 1, 2 and 4 are good, row 3 is as bad as the format allows.
GOOD = ("first text", "zweiter Text, ß", "fourth, and last")


def columns() -> dict[str, list[object]]:
    return {"text": [*GOOD[:2], None, GOOD[2]], "label": [0, 1, 2, 3]}


def write_ag_news(path: Path) -> None:
    path.write_text(
        f'"1","","{GOOD[0]}"\n"2","","{GOOD[1]}"\n"3","","bad\n"4","","{GOOD[2]}"\n',
        encoding="utf-8",
    )


def write_csv(path: Path) -> None:
    path.write_text(
        f'text,label\n{GOOD[0]},0\n"{GOOD[1]}",1\n"bad,2\n"{GOOD[2]}",3\n', encoding="utf-8"
    )


def write_tsv(path: Path) -> None:
    path.write_text(
        f"text\tlabel\n{GOOD[0]}\t0\n{GOOD[1]}\t1\nbad\n{GOOD[2]}\t3\n", encoding="utf-8"
    )


def write_jsonl(path: Path) -> None:
    rows = [json.dumps({"text": text, "label": 0}) for text in GOOD]
    path.write_text("\n".join([*rows[:2], '{"text": ', rows[2]]), encoding="utf-8")


def write_lines(path: Path) -> None:
    path.write_bytes("\n".join([*GOOD[:2], "bad \udcff", GOOD[2]]).encode(errors="surrogateescape"))


WRITERS: dict[str, Callable[[Path], object]] = {
    "ag_news_csv": write_ag_news,
    "csv": write_csv,
    "tsv": write_tsv,
    "jsonl": write_jsonl,
    "parquet": lambda path: pq.write_table(pa.table(columns()), path),
    "datasets": lambda path: datasets.Dataset.from_dict(columns()).save_to_disk(path),
    "lines": write_lines,
    "pickle": lambda path: path.write_bytes(pickle.dumps(datasets.Dataset.from_dict(columns()))),
}


def test_every_reader_has_a_file_to_be_tested_with() -> None:
    assert set(WRITERS) == set(READERS)


@pytest.fixture(params=READERS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    name = str(request.param)
    path = tmp_path / f"rows{(READERS[name].endings or ('',))[0]}"
    WRITERS[name](path)
    return name, path


def test_its_own_files_are_detected(written: tuple[str, Path]) -> None:
    name, path = written
    assert detect(path) == name


def test_rows_are_numbered_from_one_without_a_gap(written: tuple[str, Path]) -> None:
    name, path = written

    read = list(open_file(path, format=name).records(None))

    assert [record.number for record in read] == [1, 2, 3, 4]
    assert all(isinstance(record, Record) and record.raw for record in read)
    lines = [record.line for record in read]
    assert lines == [None] * 4 or all(line is not None for line in lines)
    assert set(open_file(path).columns) >= set(read[0].values or ())


def test_the_bad_row_is_named_and_set_aside_in_full(
    written: tuple[str, Path], tmp_path: Path
) -> None:
    name, path = written
    labels = ("World", "Sports", "Business", "Sci/Tech")
    bad_rows = tmp_path / "bad"
    source = Source(str(path), format=name)
    options = ReadOptions(labels, (), "stop", tmp_path / "cache", bad_rows)

    with pytest.raises(DataError) as caught:
        read_rows("rows", source, options, labelled=False)
    assert f"{path}: row 3" in str(caught.value)
    assert str(caught.value).endswith("; fix the row, or set bad rows aside with --skip-bad-rows")
    assert "\n" not in str(caught.value)

    rows = read_rows("rows", source, replace(options, on_bad_row="set-aside"), labelled=False)

    assert rows.table["text"][:] == list(GOOD)
    assert rows.table["row"][:] == [1, 2, 4]
    assert (rows.read, rows.bad, rows.bad_rows_file) == (4, 1, bad_rows / "rows.jsonl")
    lines = (bad_rows / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    (bad,) = map(json.loads, lines)
    assert bad["file"] == str(path)
    assert bad["row"] == 3
    assert bad["problem"]
    assert bad["raw"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows", b"PAR1", "parquet"),
        ("rows.csv", b"PAR1", "parquet"),
        ("rows", b"\x80\x04N.", "pickle"),
        ("rows.pkl", b"(dp0\n.", "pickle"),
        ("rows", b'\xef\xbb\xbf{"text": 1}', "jsonl"),
        ("rows.CSV", b"a,b\n", "csv"),
        ("rows.csv", b'"1","a","b"\n', "ag_news_csv"),
        ("rows", b'\xef\xbb\xbf"1","a","b"\n', "ag_news_csv"),
        ("rows.txt", b'"1","a","b"\n', "lines"),
        ("rows.tsv", b"a\tb\n", "tsv"),
    ],
)
def test_the_format_is_detected_by_the_content_and_then_by_the_ending(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert detect(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "rows.doc",
            b"text",
            "the format cannot be detected; rename the file to one of the known endings, .csv, ",
        ),
        ("rows.csv", b"\x1f\x8b\x08", "compressed with gzip; decompress it first"),
        ("rows.csv", b"PK\x03\x04", "compressed with zip; decompress it first"),
        ("rows.json", b'[\n {"text": "a"}]', "a JSON array; write JSON Lines instead"),
    ],
)
def test_a_format_that_cannot_be_detected_is_an_error(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        detect(tmp_path / name)
    assert expected in str(caught.value)


def test_a_missing_file_is_an_error_that_suggests_a_similar_name(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{}", encoding="utf-8")

    with pytest.raises(DataError) as caught:
        existing_path(tmp_path / "trian.jsonl")
    assert str(caught.value).endswith(f'no such file; did you mean "{tmp_path / "train.jsonl"}"?')
    with pytest.raises(DataError, match=r"no such file$"):
        existing_path(tmp_path / "other.csv")
    with pytest.raises(DataError, match=r"folder .* does not exist either"):
        existing_path(tmp_path / "no" / "train.jsonl")


def test_a_folder_that_is_not_a_saved_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder that datasets' save_to_disk did not write"):
        detect(tmp_path)


def test_an_unknown_format_and_a_split_of_a_plain_file_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\na\n", encoding="utf-8")

    with pytest.raises(DataError, match='unknown format "xml"; available: ag_news_csv, csv'):
        open_file(path, format="xml")
    with pytest.raises(DataError, match='a file of format csv has no splits; leave out ":train"'):
        open_file(path, split="train")
    with pytest.raises(DataError, match="Is a directory"):
        open_file(tmp_path, format="csv")

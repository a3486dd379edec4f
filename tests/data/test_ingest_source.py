"""Reading rows: where they come from, and the cache of their tables."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import datasets
import pytest

from pennyweight.data.ingest import ReadOptions, Rows, read_rows
from pennyweight.data.source import Source, locate

LABELS = ("World", "Sports", "Business", "Sci/Tech")
Read = Callable[..., Rows]
Message = Callable[[Callable[[], object]], str]


def read_with(location: str, cache: Path, *, labelled: bool = True) -> Rows:
    options = ReadOptions(LABELS, (), "stop", cache)
    return read_rows("rows", Source(location), options, labelled=labelled)


def test_the_same_source_read_the_same_way_comes_from_the_cache(
    read: Read, cache: Path, tmp_path: Path
) -> None:
    content, bad_rows = "label,text\n1,a\n9,b\n", tmp_path / "bad"
    first = read(content, on_bad_row="set-aside", bad_rows=bad_rows)
    path = tmp_path / "rows.csv"
    table = Path(first.table.cache_files[0]["filename"])
    written_at = table.stat().st_mtime_ns
    (bad_rows / "rows.jsonl").unlink()

    options = ReadOptions(LABELS, (), "set-aside", cache, bad_rows)
    again = read_rows("rows", Source(str(path)), options)

    assert again.table.cache_files == first.table.cache_files
    assert table.stat().st_mtime_ns == written_at
    assert (again.fingerprint, again.read, again.bad) == (first.fingerprint, 2, 1)
    assert again.bad_rows_file == bad_rows / "rows.jsonl"
    assert len(again.bad_rows_file.read_text(encoding="utf-8").splitlines()) == 1


def test_a_change_of_content_or_of_options_is_read_anew(read: Read, tmp_path: Path) -> None:
    content = "label,text\n1,a\n2,b\n"
    first = read(content)
    os.utime(tmp_path / "rows.csv", ns=(1, 1))
    others = [
        read_with(str(tmp_path / "rows.csv"), tmp_path / "cache"),
        read("label,text\n1,a\n2,c\n"),
        read(content, labelled=False),
        read(content, labels=("a", "b", "c")),
        read(content, clean=("punctuation",)),
    ]

    files = {str(rows.table.cache_files[0]["filename"]) for rows in [first, *others]}
    assert len(files) == 6


def test_a_higher_limit_of_a_row_is_used_at_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["short", "long " * 300_000]
    datasets.Dataset.from_dict({"text": texts, "label": ["a", "b"]}).to_parquet(
        str(tmp_path / "rows.parquet")
    )
    options = ReadOptions(("a", "b"), (), "set-aside", cache)
    bad = []
    for limit in ("1", "16"):
        monkeypatch.setenv("PENNYWEIGHT_MAX_ROW_MIB", limit)
        bad.append(read_rows("rows", Source(str(tmp_path / "rows.parquet")), options).bad)
    assert bad == [1, 0]


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.csv", "same.csv", "other.csv")]
    for path, label in zip(paths, ("a", "a", "b"), strict=True):
        path.write_text(f"text,label\nx,{label}\n")
    os.utime(paths[1], ns=(1, 1))
    one, same, other = (locate(Source(str(path))).digest() for path in paths)
    assert one == same != other


def test_a_cache_entry_that_is_not_whole_is_made_again(read: Read, cache: Path) -> None:
    first = read("label,text\n1,a\n")
    (entry,) = cache.iterdir()
    os.utime(entry.parent / entry.name / "rows.arrow", ns=(1, 1))

    for damage in (
        lambda: (entry / "summary.json").write_text("{", encoding="utf-8"),
        lambda: (entry / "rows.arrow").unlink(),
        lambda: (entry / "rows.arrow").write_bytes(b"\xff" * 40),
    ):
        damage()
        assert read_with(first.source, cache).table["text"][:] == ["a"]
    assert list(cache.iterdir()) == [entry]


def test_many_may_read_the_same_source_at_once(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("label,text\n" + "1,a\n" * 2000, encoding="utf-8")

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(read_with, str(path), cache) for _ in range(4)]
        read = {call.result().fingerprint for call in calls}

    assert len(read) == 1
    assert len(list(cache.iterdir())) == 1


def test_a_failed_read_leaves_nothing_in_the_cache(
    read: Read, cache: Path, message: Message
) -> None:
    message(lambda: read("label,text\n1,a\n9,b\n"))

    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_an_error(
    read: Read, cache: Path, message: Message
) -> None:
    cache.write_text("a file where a folder should be", encoding="utf-8")

    assert "cannot be read into the cache" in message(lambda: read("label,text\n1,a\n"))


def with_classes(*names: str) -> datasets.Dataset:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))}
    )
    columns = {"text": list(names), "label": list(range(len(names)))}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("World", "Sports", "Business", "Sci/Tech"), [0, 1, 2, 3]),
        (("sports", "world"), [1, 0]),
        (("World", "Sports", "Economy"), [0, 1, 2]),
        (("0", "1"), [0, 1]),
    ],
)
def test_named_classes_keep_their_meaning(
    tmp_path: Path, classes: tuple[str, ...], expected: list[int]
) -> None:
    with_classes(*classes).to_parquet(tmp_path / "rows.parquet")

    rows = read_with(str(tmp_path / "rows.parquet"), tmp_path / "cache")

    assert rows.table["label"][:] == expected


def test_classes_in_another_order_that_are_not_all_labels_are_an_error(
    tmp_path: Path, message: Message
) -> None:
    with_classes("Sports", "Economy").to_parquet(tmp_path / "rows.parquet")

    text = message(lambda: read_with(str(tmp_path / "rows.parquet"), tmp_path / "cache"))

    assert "the file's classes are Sports, Economy, in another order than the labels World" in text


def test_a_split_of_a_saved_dict_is_named_after_a_colon(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a"], "label": [1]})
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "saved")

    read = read_with(f"{tmp_path}/saved:train", tmp_path / "cache")

    assert read.format == "datasets"
    assert read.table["label"][:] == [1]


def test_a_missing_file_is_an_error_that_suggests_a_similar_name(
    tmp_path: Path, read: Read, message: Message
) -> None:
    read("label,text\n1,a\n", "train.csv")

    text = message(lambda: read_with(f"{tmp_path}/tain.csv", tmp_path / "cache"))

    assert text == f'{tmp_path}/tain.csv: no such file; did you mean "{tmp_path}/train.csv"?'


@pytest.mark.parametrize("split", ["train", "validation", "test", "shifted"])
def test_the_shipped_sample_is_read_by_name(split: str, tmp_path: Path) -> None:
    if not (resources.files("pennyweight.data") / "sample" / f"{split}.jsonl").is_file():
        pytest.skip(f"the package ships no sample {split}")

    rows = read_with(f"sample:{split}", tmp_path / "cache")

    assert rows.source == f"sample:{split}"
    assert rows.bad == 0


def test_a_sample_that_does_not_exist_is_an_error(tmp_path: Path, message: Message) -> None:
    text = message(lambda: read_with("sample:dev", tmp_path / "cache"))

    assert text.startswith("sample:dev: no such sample; available: sample:")


def test_the_competition_rows_are_the_same_from_pickle_and_csv(
    shared_data: Path, tmp_path: Path
) -> None:
    pickled, written = (
        read_with(
            str(shared_data / "competition" / f"test_unlabelled{ending}"), tmp_path, labelled=False
        )
        for ending in (".pkl", ".csv")
    )

    assert len(pickled.table) == 8000
    assert pickled.fingerprint == written.fingerprint
    assert pickled.table["text"][:] == written.table["text"][:]

"""Parquet and `save_to_disk` directories."""

from __future__ import annotations

import tempfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pennyweight.data.read import detect, open_file
from pennyweight.errors import DataError, PennyweightError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROWS = st.lists(
    st.fixed_dictionaries({"text": st.one_of(TEXTS, st.none()), "label": st.integers(-9, 9)}),
    max_size=12,
)
SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int64())])


@settings(max_examples=40)
@given(rows=ROWS, group=st.integers(1, 5))
def test_any_parquet_that_pyarrow_writes_reads_back(
    rows: list[dict[str, object]], group: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=group)
        read = list(open_file(path).records(None))

    assert [record.values for record in read] == rows
    assert [record.number for record in read] == list(range(1, len(rows) + 1))
    assert {record.line for record in read} <= {None}


@settings(max_examples=60)
@given(content=st.binary(max_size=200), framed=st.booleans())
def test_random_bytes_raise_a_pennyweight_error(content: bytes, framed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        path.write_bytes(b"PAR1" + content + b"PAR1" if framed else content)
        with pytest.raises(PennyweightError) as caught:
            list(open_file(path, format="parquet").records(None))
    assert "\n" not in str(caught.value)


def test_only_requested_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": [1], "title": ["t"]}), path)

    opened = open_file(path)

    assert opened.columns == ("text", "label", "title")
    assert [record.values for record in opened.records(("label", "text"))] == [
        {"label": 1, "text": "a"}
    ]


def broken_utf8() -> pa.Table:
    whole = pa.array([b"one", b"caf\xe9", None], pa.binary()).view(pa.string())
    return pa.table({"text": whole, "label": [0, 1, 2]})


def test_a_text_in_parquet_that_is_not_utf8_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(broken_utf8(), path)

    read = list(open_file(path).records(None))

    assert [record.problem is None for record in read] == [True, False, True]
    assert str(read[1].problem).startswith("invalid UTF-8")
    assert read[1].raw == '{"text": "caf\\\\xe9", "label": 1}'


def test_class_names_are_read_from_the_file(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a"], "label": [1]}, features=features)
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.save_to_disk(tmp_path / "saved")

    for path in (tmp_path / "rows.parquet", tmp_path / "saved"):
        assert open_file(path).class_names == {"label": ("no", "yes")}


def test_a_saved_dataset_is_read_in_its_own_order(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 2]})
    rows.select([2, 0]).save_to_disk(tmp_path / "saved")

    assert detect(tmp_path / "saved") == "datasets"
    read = list(open_file(tmp_path / "saved").records(("text",)))

    assert [record.values for record in read] == [{"text": "c"}, {"text": "a"}]


def test_a_saved_dict_needs_the_name_of_one_of_its_splits(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    rows = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(path)

    assert len(list(open_file(path, split="test").records(None))) == 1
    with pytest.raises(DataError, match="has the splits train, test; name one, as in"):
        open_file(path)
    with pytest.raises(DataError, match='no split "dev"; available: train, test'):
        open_file(path, split="dev")
    with pytest.raises(DataError, match="has only one split"):
        open_file(path / "test", split="test")


def test_a_damaged_saved_dataset_is_a_data_error(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["some text"] * 50})
    rows.save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    whole = arrow.read_bytes()

    for content in (b"", whole[: len(whole) // 2], b"\xff" * 400, whole[:300] + b"\xff" * 400):
        arrow.write_bytes(content)
        with pytest.raises(DataError):
            list(open_file(tmp_path / "saved").records(None))


def test_the_training_rows_are_67284(shared_data: Path) -> None:
    path = shared_data / "ag_news" / "train.parquet"

    labels = [(record.values or {})["label"] for record in open_file(path).records(("label",))]

    assert len(labels) == 67_284
    assert set(labels) == {0, 1, 2, 3}

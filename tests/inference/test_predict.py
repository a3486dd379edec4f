"""Predicting every row of a file."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference.damage import make_weights_nan
from pennyweight.errors import DataError, NonFiniteLogitsError, RunError
from pennyweight.inference import rows as module
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.output import format_of
from pennyweight.inference.predict import OutputOptions, PredictedRows, predict
from tiny import LABELS


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("rows_per_block", [8, 4096])
def test_predictions_are_in_the_order_of_the_rows_with_their_probabilities(
    run: Path,
    texts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows_per_block: int,
) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_BLOCK", rows_per_block)
    out = tmp_path / "predictions.csv"
    counts = predict(run, str(tmp_path / "unlabelled.csv"), out=out)
    assert counts == PredictedRows(predicted=21, read=21)
    rows, classifier = _rows(out), Classifier.load(run)
    assert [row["label"] for row in rows] == classifier.predict(texts)
    numbers = [int(row["row"]) for row in rows]
    assert numbers == list(range(numbers[0], numbers[0] + 21))
    expected = classifier.predict_probabilities(texts)
    for row, probabilities in zip(rows, expected, strict=True):
        values = [float(row[f"probability of {label}"]) for label in LABELS]
        assert values == pytest.approx(probabilities.tolist(), abs=1e-5)
        assert float(row["confidence"]) == max(values)


def test_a_missing_folder_is_named_and_not_created(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"there is no directory .*/away; create it first"):
        predict(run, str(tmp_path / "unlabelled.csv"), out=tmp_path / "away" / "out.csv")
    assert not (tmp_path / "away").exists()


def test_predictions_do_not_replace_their_rows(
    run: Path, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = Path("unlabelled.csv").read_bytes()
    Path("link.csv").symlink_to("unlabelled.csv")
    for out in ("unlabelled.csv", tmp_path / "link.csv"):
        with pytest.raises(RunError, match="the file of the rows, which stays as it is; name "):
            predict(run, "unlabelled.csv", out=out)
    assert Path("unlabelled.csv").read_bytes() == before
    assert Path("link.csv").is_symlink()


def test_weights_that_are_nan_leave_the_old_predictions(
    copied_run: Path, texts: list[str], tmp_path: Path
) -> None:
    make_weights_nan(copied_run)
    out = tmp_path / "predictions.csv"
    out.write_text("old")
    with pytest.raises(NonFiniteLogitsError, match=r"^texts: .*NaN or infinite for 21 of 21 rows$"):
        predict(copied_run, str(tmp_path / "unlabelled.csv"), out=out)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "predictions.csv",
        "run",
        "unlabelled.csv",
    ]


TICKETS = (
    '{"id": "a", "text": "the goal", "label": "mine", "tags": [1, 2]}\n'
    '{"id": "b", "text": 7}\n'
    '{"id": "c", "text": "a bank", "label": null}\n'
)


@pytest.fixture
def tickets(tmp_path: Path) -> str:
    path = tmp_path / "tickets.jsonl"
    path.write_text(TICKETS)
    return str(path)


def test_columns_are_copied_beside_their_rows_and_bad_rows_are_counted(
    copied_run: Path, tickets: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    counts = predict(copied_run, tickets, out=out, on_bad_row="set-aside")
    bad_rows = copied_run / "bad_rows" / "predict.jsonl"
    assert counts == PredictedRows(2, 3, bad_rows, {"label": "input label"})
    first, second = _rows(out)
    assert list(first)[:7] == [
        *("row", "id", "text", "input label", "tags"),
        *("label", "confidence"),
    ]
    assert (first["row"], first["id"], first["input label"], first["tags"]) == (
        *("1", "a", "mine"),
        "[1, 2]",
    )
    assert (second["row"], second["id"], second["input label"]) == ("3", "c", "")
    assert first["label"] == Classifier.load(copied_run).predict("the goal")


def test_json_lines_hold_the_values_as_they_are_with_all_probabilities(
    copied_run: Path, tickets: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    options = OutputOptions(columns=("tags", "id"))
    predict(copied_run, tickets, out=out, on_bad_row="set-aside", output=options)
    first, _ = (json.loads(line) for line in out.read_text().splitlines())
    assert list(first) == ["row", "tags", "id", "label", "confidence", "probabilities"]
    assert first["tags"] == [1, 2]
    assert list(first["probabilities"]) == list(LABELS)
    assert first["confidence"] == max(first["probabilities"].values())


def test_the_best_labels_can_be_written_instead_of_every_class(run: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out.csv", OutputOptions(columns=(), top_k=2)
    predict(run, ["the goal", "a bank"], out=out, output=options)
    rows = _rows(out)
    assert list(rows[0]) == ["row", "label", "confidence", "label 2", "confidence 2"]
    probabilities = Classifier.load(run).predict_probabilities(["the goal"])[0]
    assert rows[0]["label 2"] == LABELS[int(probabilities.argsort()[-2])]
    assert float(rows[0]["confidence 2"]) == pytest.approx(sorted(probabilities)[-2], abs=1e-6)
    out = tmp_path / "out.jsonl"
    predict(run, ["the goal"], out=out, output=options)
    top = json.loads(out.read_text())["top"]
    assert [entry["label"] for entry in top] == [rows[0]["label"], rows[0]["label 2"]]
    with pytest.raises(RunError, match="--top-k 5: the run has 4 classes; give a number from 1 t"):
        predict(run, ["the goal"], out=out, output=OutputOptions(top_k=5))


def test_a_column_that_does_not_exist_is_named_with_those_that_do(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    options = OutputOptions(columns=("id",))
    with pytest.raises(DataError, match=r'no column "id" to copy; the columns are text$'):
        predict(run, str(tmp_path / "unlabelled.csv"), out=tmp_path / "o.csv", output=options)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("the goal\na bank\n", ["the goal", "a bank"]),
        ('\n{"text": "the goal"}\n{"text": "a bank"}\n', ["the goal", "a bank"]),
    ],
)
def test_standard_input_is_read_as_lines_or_as_json_objects(
    run: Path,
    content: str,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    predict(run, "-")
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["text"] for row in rows] == expected
    assert [row["label"] for row in rows] == Classifier.load(run).predict(expected)


def test_an_error_in_standard_input_does_not_show_a_temporary_file(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(DataError, match=r"^standard input: the file is empty$"):
        predict(run, "-")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\nb\n")))
    with pytest.raises(DataError, match=r"^standard input: row 2 \(line 2\): empty text"):
        predict(run, "-")


def test_parquet_has_the_columns_of_csv_and_goes_to_a_file_only(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    table, out = tmp_path / "out.csv", tmp_path / "out.parquet"
    for path in (table, out):
        predict(run, str(tmp_path / "unlabelled.csv"), out=path)
    read = pq.read_table(out)
    rows = _rows(table)
    assert read.column_names == list(rows[0])
    assert read["text"].to_pylist() == texts
    assert read["confidence"].to_pylist() == [float(row["confidence"]) for row in rows]
    with pytest.raises(RunError, match="parquet: a binary file; name it with --out FILE"):
        predict(run, ["the goal"], output=OutputOptions(output_format="parquet"))


@pytest.mark.parametrize("name", ["a.xlsx", "A.JSON", "a.feather"])
def test_a_known_format_that_is_not_written_is_refused(name: str) -> None:
    with pytest.raises(RunError, match=r"this format is not written; end the name with \.csv"):
        format_of(name)
    assert format_of("a.txt") == "csv"


def test_json_lines_have_null_for_what_json_cannot_hold(run: Path, tmp_path: Path) -> None:
    values = {"text": ["the goal"], "score": [float("nan")], "sizes": [[1.0, float("inf")]]}
    pq.write_table(pa.table({**values, "raw": [b"\xff\x00"]}), tmp_path / "rows.parquet")
    out = tmp_path / "out.jsonl"
    predict(run, str(tmp_path / "rows.parquet"), out=out)
    row = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert (row["score"], row["sizes"], row["raw"]) == (None, [1.0, None], "/wA=")

"""Classifying texts, files and standard input on the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pennyweight.cli.main import app
from pennyweight.errors import DataError, PennyweightError
from tiny import LABELS


def test_texts_are_printed_with_their_label_and_its_probability(
    pennyweight: Callable[..., str], in_workspace: Path
) -> None:
    lines = pennyweight("predict", "runs/one", "the goal", "a bank").splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == ["the goal", "a bank"]
    for line in lines:
        label, probability, _ = line.split(maxsplit=2)
        assert label in LABELS
        assert 0.25 < float(probability) <= 1
    best = pennyweight("predict", "runs/one", "the goal", "--top-k", "4").splitlines()
    assert sorted(line.split()[0] for line in best) == sorted(LABELS)
    assert best[0] == lines[0]


def test_standard_input_goes_to_standard_output(in_workspace: Path) -> None:
    arguments = ["predict", "runs/one", "--columns", "none"]
    result = CliRunner().invoke(app, arguments, input="the goal\na bank\n")
    assert result.exit_code == 0
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [row["row"] for row in rows] == ["1", "2"]
    assert list(rows[0])[:3] == ["row", "label", "confidence"]
    objects = '{"id": 1, "text": "the goal"}\n'
    arguments = ["predict", "runs/one", "--data", "-", "--format-out", "jsonl"]
    result = CliRunner().invoke(app, arguments, input=objects)
    assert json.loads(result.stdout)["id"] == 1


def test_the_message_counts_the_rows_that_were_set_aside(
    pennyweight: Callable[..., str], in_workspace: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"text": "the goal", "row": 5}\n{"text": 7}\n')
    options = ["--data", str(data), "--out", str(out), "--skip-bad-rows"]
    output = pennyweight("predict", "runs/one", *options)
    assert 'the input column "row" is written as "input row"\n' in output
    assert output.endswith(
        f"1 of 2 rows predicted in {out}, 1 set aside in runs/one/bad_rows/predict.jsonl\n"
    )
    assert json.loads(out.read_text())["input row"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("the goal", " "), "text 2 is empty; leave it out, or write its words in quotes"),
        (("test.csv",), "test.csv is a file; to classify its rows, write --data test.csv"),
        (("a goal", "--data", "test.csv"), "texts and --data were both given"),
        (("a goal", "--text-column", "body"), "describe --data, not texts"),
        (("a goal", "--columns", "id"), "texts have no columns"),
        (("a goal", "--out", "out/"), "--out out/: a folder, into which only the rows of --data"),
        # Many rows need a folder.
        (("--data", "*.csv"), r"--data \*.csv: the files of a .* as in --out predictions/"),
        (("--data", "*.csv", "--out", "out.csv"), "are predicted into a folder; add it"),
        (("--data", "*.csv", "--out", "out.ndjson"), "are predicted into a folder; add it"),
        (("a goal", "--engine", "ray"), "--rows-per-part are for many rows: give --data"),
        (
            ("--data", "file:///x/new.csv", "--out", "h.csv"),
            "--data file:///x/new.csv: rows behind a URL are predicted into a folder; add it",
        ),
        (
            ("--data", "test.csv", "--out", "out.csv", "--engine", "ray"),
            "--rows-per-part are for many rows: give --data, and a folder as --out",
        ),
        (("--data", "test.csv", "--out", "out/", "--engine", "dask"), "--engine dask: unknown"),
    ],
)
def test_unclear_input_is_refused(
    arguments: tuple[str, ...],
    message: str,
    pennyweight: Callable[..., str],
    in_workspace: Path,
) -> None:
    with pytest.raises(PennyweightError, match=message):
        pennyweight("predict", "runs/one", *arguments)


def test_rows_of_low_confidence_get_no_label_and_are_counted(
    pennyweight: Callable[..., str], in_workspace: Path, tmp_path: Path
) -> None:
    table, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    arguments = ["predict", "runs/one", "--data", "test.csv"]
    output = pennyweight(*arguments, "--coverage", "0.5", "--out", str(table))
    rows = list(csv.DictReader(table.read_text().splitlines()))
    empty = [row for row in rows if not row["label"]]
    assert f"{len(empty)} of {len(rows)} rows" in output
    threshold = float(output.split("confidence is below ")[1].split(";")[0])
    assert "; on validation, 50.0% of the rows get a label, and " in output
    assert all((float(row["confidence"]) < threshold) == (not row["label"]) for row in rows)
    pennyweight(*arguments, "--abstain-below", "1", "--out", str(lines))
    assert {json.loads(line)["label"] for line in lines.read_text().splitlines()} == {None}
    printed = pennyweight("predict", "runs/one", "the goal", "--abstain-below", "1")
    assert printed.startswith("(no label)")


def test_many_files_are_predicted_into_a_folder_once(
    pennyweight: Callable[..., str], in_workspace: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "rows", tmp_path / "out"
    data.mkdir()
    for name in ("a", "b"):
        (data / f"{name}.csv").write_text("row,text\n1,the goal\n,\n1,a bank\n")
    command = ["predict", "runs/one", "--data", str(data), "--out", str(out), "--skip-bad-rows"]
    printed = pennyweight(*command, "--rows-per-part", "2")
    assert printed.splitlines() == [
        'the input column "row" is written as "input row"',
        f"4 rows in 4 files in {out}, 2 bad rows in {out}/_bad_rows",
    ]
    again = pennyweight(*command, "--rows-per-part", "2")
    assert f"4 rows in 4 files in {out} (4 earlier, 0 now)" in again


def test_one_file_is_predicted_in_parts_if_the_output_is_a_folder(
    pennyweight: Callable[..., str], in_workspace: Path, tmp_path: Path
) -> None:
    out = f"{tmp_path}/out/"
    assert pennyweight("predict", "runs/one", "--data", "test.csv", "--out", out, "--top-k", "1")
    assert (tmp_path / "out" / "test.csv.part-00000.csv").is_file()


def test_keys_that_come_late_are_copied_or_refused_and_never_lost(
    pennyweight: Callable[..., str], in_workspace: Path
) -> None:
    # Long enough that columns are settled by the first hundred objects.
    first = [{"text": "a goal" + " " * 700}] * 100
    rows = [*first, {"text": "a bank", "late": 1}, {"text": "x", "label": 2}]
    Path("late.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("predict", "runs/one", "--data", "late.jsonl", "--out")
    pennyweight(*arguments, "out.jsonl")
    whole = Path("out.jsonl").read_text()
    objects = list(map(json.loads, whole.splitlines()))
    assert list(objects[0])[:4] == ["row", "text", "label", "confidence"]
    assert (objects[100]["late"], objects[101]["input label"]) == (1, 2)
    pennyweight(*arguments, "out/", "--rows-per-part", "101")
    parts = [path.read_text() for path in sorted(Path("out").glob("*.jsonl"))]
    assert "".join(parts).count("\n") == 102
    assert (json.loads(parts[1])["input label"], json.loads(parts[0][-500:].splitlines()[-1])) == (
        2,
        objects[100],
    )
    pennyweight(*arguments, "out.csv")
    with Path("out.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert list(cells[0])[:5] == ["row", "text", "late", "input label", "label"]
    assert (cells[0]["late"], cells[100]["late"], cells[101]["input label"]) == ("", "1", "2")
    refused = ("--format-out", "csv", "--rows-per-part", "60")
    with pytest.raises(
        DataError, match=r"late.jsonl: row 101 \(line 101\): the key \"late\" is no"
    ):
        pennyweight(*arguments, "csv/", *refused)
    assert "2 bad rows in csv/_bad_rows" in pennyweight(
        *arguments, "csv/", *refused, "--skip-bad-rows"
    )
    pennyweight(*arguments, "text.jsonl", "--columns", "text")
    assert "late" not in Path("text.jsonl").read_text()
    pennyweight(*arguments, "named.csv", "--columns", "late")
    assert Path("named.csv").read_text().startswith("row,late,label,")

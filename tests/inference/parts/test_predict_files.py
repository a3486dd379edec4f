"""Predicting many files, or a large one, in parts."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pennyweight.errors import DataError, PennyweightError, RunError
from pennyweight.inference.layout import OutputOptions
from pennyweight.inference.parts import engines
from pennyweight.inference.parts import predict_files as module
from pennyweight.inference.parts.manifest import MANIFEST, ManifestWriter
from pennyweight.inference.parts.predict_files import PartOptions, PredictedFiles, predict_files
from pennyweight.inference.parts.predictor import PartPredictor
from pennyweight.inference.predict import predict
from tiny import news

OPTIONS = PartOptions(rows_per_part=20)


def contents(out: Path) -> dict[str, bytes]:
    """Return every file of an output, without the lock and the manifest."""
    paths = (path for path in out.rglob("*") if path.is_file())
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in paths
        if path.name not in (MANIFEST, ".lock")
    }


def rows_of(out: Path, pattern: str = "*.csv") -> list[dict[str, str]]:
    rows = []
    for path in sorted(out.rglob(pattern)):
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    return rows


def manifest_of(out: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out / MANIFEST).read_text())
    return values


def test_every_row_has_one_row_in_the_order_of_files_and_rows(
    run: Path, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    counts = predict_files(run, str(many), out=str(out), options=OPTIONS)
    assert counts == PredictedFiles(3, 6, 97, 0, 0, 0, None, {})
    assert sorted(contents(out)) == [
        *(f"a.csv.part-0000{number}.csv" for number in range(3)),
        "b/c.csv.part-00000.csv",
        *(f"b/d.csv.part-0000{number}.csv" for number in range(2)),
    ]
    rows = rows_of(out)
    assert [int(row["row"]) for row in rows] == [*range(1, 51), *range(1, 8), *range(1, 41)]
    single = tmp_path / "single.csv"
    for name, part in (("a.csv", rows[:50]), ("b/d.csv", rows[57:])):
        predict(run, str(many / name), out=single)
        with single.open(encoding="utf-8", newline="") as file:
            expected = list(csv.DictReader(file))
        assert list(part[0]) == list(expected[0])
        assert [row["text"] for row in part] == [row["text"] for row in expected]
        for row, other in zip(part, expected, strict=True):
            assert float(row["confidence"]) == pytest.approx(float(other["confidence"]), abs=2e-6)


def test_a_manifest_lists_the_parts_with_their_hashes(
    run: Path, many: Path, tmp_path: Path
) -> None:
    import hashlib

    out = tmp_path / "out"
    predict_files(run, str(many / "a.csv"), out=str(out), options=OPTIONS)
    manifest = manifest_of(out)
    assert manifest["status"] == "complete"
    assert [file["name"] for file in manifest["files"]] == ["a.csv"]
    assert [(part["first_row"], part["rows"]) for part in manifest["parts"]] == [
        *((1, 20), (21, 20), (41, 10))
    ]
    for part in manifest["parts"]:
        content = (out / part["path"]).read_bytes()
        assert part["sha256"] == hashlib.sha256(content).hexdigest()
        assert part["bytes"] == len(content)


class Stopped(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.parametrize("parts", [0, 2, 5])
@pytest.mark.parametrize("saves", [True, False])
def test_a_prediction_that_was_stopped_goes_on_and_gives_the_same_bytes(
    run: Path,
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parts: int,
    saves: bool,
) -> None:
    whole, out, seen = tmp_path / "whole", tmp_path / "out", []
    predict_files(run, str(many), out=str(whole), options=OPTIONS)
    original, save = PartPredictor.__call__, ManifestWriter.save

    def until(self: PartPredictor, part: Any) -> Any:
        if len(seen) == parts:
            raise Stopped
        seen.append(part)
        return original(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(PartPredictor, "__call__", until)
        if not saves:  # as after SIGKILL, before the manifest was written again
            patch.setattr(ManifestWriter, "save", lambda self: save(self) if not seen else None)
        with pytest.raises(Stopped):
            predict_files(run, str(many), out=str(out), options=OPTIONS)
    lines: list[str] = []
    counts = predict_files(run, str(many), out=str(out), options=OPTIONS, log=lines.append)
    assert contents(out) == contents(whole)
    assert counts.predicted == 97
    assert counts.predicted_before == sum(part.rows for part in seen if saves)
    assert manifest_of(out)["parts"] == manifest_of(whole)["parts"]


def test_a_complete_prediction_is_not_repeated_and_a_missing_part_is(
    run: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    predict_files(run, str(many), out=str(out), options=OPTIONS)
    before = contents(out)
    with monkeypatch.context() as patch:
        patch.setattr(engines, "PartPredictor", None)
        patch.setattr(module, "ENGINES", {"local": None})
        lines: list[str] = []
        counts = predict_files(run, str(many), out=str(out), options=OPTIONS, log=lines.append)
        assert counts.predicted_before == 97
        assert lines == ["parts done already: 6 (rows: 97); nothing is left to do"]
    (out / "a.csv.part-00001.csv").unlink()
    (out / "b/c.csv.part-00000.csv").write_text("cut")
    lines.clear()
    counts = predict_files(run, str(many), out=str(out), options=OPTIONS, log=lines.append)
    assert counts.predicted - counts.predicted_before == 27
    assert lines == [
        "parts that are missing or have another size: 2; they are predicted again",
        "parts done already: 4 (rows: 70); the rest follows",
    ]
    assert contents(out) == before


def test_a_changed_run_setting_or_input_is_refused_and_named(
    copied_run: Path, run: Path, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict_files(run, str(many), out=str(out), options=OPTIONS)
    before = contents(out)

    def refused(reason: str, **changes: Any) -> None:
        arguments = {"run": run, "data": str(many), "options": OPTIONS, **changes}
        lines: list[str] = []
        with pytest.raises(RunError, match=reason):
            predict_files(out=str(out), log=lines.append, **arguments)
        assert not lines
        assert contents(out) == before

    refused(
        r"with other settings: top_k \(none then, 2 now\); name a new",
        output=OutputOptions(top_k=2),
    )
    refused(
        r"with other settings: rows_per_part \(20 then, 30 now\)",
        options=PartOptions(rows_per_part=30),
    )
    record = json.loads((copied_run / "record.json").read_text())
    record["recipe"]["seed"] = 7
    (copied_run / "record.json").write_text(json.dumps(record))
    refused("of another run: the weights, the base or the recipe of .* differ", run=copied_run)
    with (many / "b/c.csv").open("a") as file:
        file.write("8,the goal\n")
    (many / "b/d.csv").unlink()
    refused(
        r"of other files: b/c.csv changed \(restore it, or delete its predictions\); "
        r"b/d.csv missing \(put it back, or delete its predictions\); or name a new folder"
    )


def test_files_without_a_finished_part_may_go_and_others_may_come(
    run: Path, many: Path, tmp_path: Path
) -> None:
    whole, out, broken = tmp_path / "whole", tmp_path / "out", many / "b" / "c.csv"
    broken.write_text("id,text\n1,\n")
    with pytest.raises(DataError, match=r"b/c\.csv: "):
        predict_files(run, str(many), out=str(out), options=OPTIONS)
    broken.unlink()
    stray = out / "b" / "c.csv.part-00007.csv"
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("left by a process that was killed")
    (out / "mine.part-00000.csv").write_text("of nobody")
    predict_files(run, str(many), out=str(out), options=OPTIONS)
    shutil.copy(many / "a.csv", many / "Z.csv")
    counts = predict_files(run, str(many), out=str(out), options=OPTIONS)
    assert (counts.predicted, counts.predicted_before) == (140, 90)
    predict_files(run, str(many), out=str(whole), options=OPTIONS)
    (out / "mine.part-00000.csv").unlink()
    assert contents(out) == contents(whole)


def test_a_broken_file_is_named_and_the_rest_follows_once_it_is_repaired(
    run: Path, many: Path, tmp_path: Path
) -> None:
    out, broken = tmp_path / "out", many / "b" / "c.csv"
    content = broken.read_text()
    broken.write_text(content.replace("text", "story", 1))
    with pytest.raises(DataError, match=r'b/c.csv: no column "text" to copy; the columns are id'):
        predict_files(run, str(many), out=str(out), options=OPTIONS)
    assert contents(out) == {}
    broken.write_text(content.replace("id,text", "id,text,more", 1).replace("\n", ",1\n")[:-2])
    with pytest.raises(DataError, match=r"b/c\.csv: "):
        predict_files(run, str(many), out=str(out), options=OPTIONS)
    broken.write_text(content + "9,\n")
    with pytest.raises(DataError, match=r"b/c.csv: row 8 \(line 9\): empty text; fix the row"):
        predict_files(run, str(many), out=str(out), options=OPTIONS)
    skipping = PartOptions(rows_per_part=20, on_bad_row="set-aside")
    counts = predict_files(run, str(many), out=str(out), options=skipping)
    assert (counts.predicted, counts.bad, counts.predicted_before) == (97, 1, 50)
    (bad,) = (out / "_bad_rows/b/c.csv.part-00000.csv.jsonl").read_text().splitlines()
    assert json.loads(bad)["row"] == 8
    broken.write_text(content)
    (out / "b/c.csv.part-00000.csv").unlink()
    assert predict_files(run, str(many), out=str(out), options=OPTIONS).bad == 0
    assert not any(name.startswith("_bad_rows") for name in contents(out))


@pytest.mark.parametrize(
    ("data", "out", "error"),
    [
        ("none-*.csv", "out", r"none-\*.csv: the pattern matches no file"),
        ("nowhere", "out", "nowhere: no such file"),
        ("sample:test", "out", "sample:test: is predicted as a whole; give --out FILE"),
        ("empty", "out", "empty: no file of rows in this folder; known: .csv"),
        ("mixed", "out", r"files of different formats: a.csv \(csv\) and b.jsonl \(jsonl\); name "),
        ("zero.csv", "out", "zero.csv: the file is empty; remove it"),
        ("nope://a/*.csv", "out", "nope://a/.*: Protocol not known: nope"),
        ("a.csv", "full", "full: not empty, and not an earlier prediction: _manifest.json is"),
        ("a.csv", "damaged", "_manifest.json: damaged, or of another version of Pennyweight: "),
        ("a.csv", "a.csv", "a.csv: a file, not a folder"),
        ("a.csv", "./", "not empty, and not an earlier prediction"),
        ("alone", "alone", "alone: --out lies around all the rows; name another folder"),
        ("alone/*.csv", "./", r"alone/\*.csv: --out lies around all the rows; name another"),
    ],
)
def test_what_cannot_be_predicted_is_refused_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, out: str, error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "mixed", "full", "damaged", "alone"):
        Path(name).mkdir()
    for name in ("mixed/a.csv", "a.csv", "alone/a.csv"):
        Path(name).write_text("text\nthe goal\n")
    Path("mixed/b.jsonl").write_text('{"text": "a"}\n')
    Path("zero.csv").touch()
    Path("full/x").touch()
    Path("damaged", MANIFEST).write_text('{"version": 1}')
    with pytest.raises(PennyweightError, match=error) as caught:
        predict_files(run, data, out=out)
    assert "\n" not in str(caught.value)


def test_two_processes_do_not_predict_into_one_folder(
    run: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")

    def again(*arguments: Any, **options: Any) -> None:
        with pytest.raises(RunError, match="another process is predicting into this folder"):
            predict_files(run, str(many), out=out, options=OPTIONS)
        raise Stopped

    monkeypatch.setattr(module, "ENGINES", {"local": again})
    with pytest.raises(Stopped):
        predict_files(run, str(many), out=out, options=OPTIONS)


def test_rows_and_predictions_can_be_on_another_file_system(
    run: Path, many: Path, tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    local = tmp_path / "local"
    predict_files(run, str(many), out=str(local), options=OPTIONS)
    memory.put(str(many), "/rows", recursive=True)
    predict_files(run, "memory://rows", out="memory://out", options=OPTIONS)
    again = predict_files(run, "memory://rows/**/[a-d].csv", out="memory://out", options=OPTIONS)
    assert again.predicted_before == 97
    for name, content in contents(local).items():
        assert memory.cat_file(f"/out/{name}") == content
    memory.pipe_file("/rows/b/c.csv", b"id,text\n1,the goal\n")
    with pytest.raises(RunError, match=r"of other files: b/c\.csv changed"):
        predict_files(run, "memory://rows", out="memory://out", options=OPTIONS)


@pytest.mark.parametrize("output_format", ["csv", "jsonl", "parquet"])
def test_parquet_rows_keep_their_types_and_values(
    run: Path, tmp_path: Path, output_format: Any
) -> None:
    texts = [text for _, text in news(45, seed=22)]
    table = pa.table(
        {
            "id": pa.array(range(45), pa.int32()),
            "text": pa.array(texts).dictionary_encode(),
            "tags": pa.array([["a", None]] * 44 + [None]),
            "day": pa.array([date(2024, 1, 2)] * 45),
            "price": pa.array([Decimal("1.50")] * 45),
        }
    )
    data, out = tmp_path / "rows.parquet", tmp_path / "out"
    pq.write_table(table, data, row_group_size=9)
    output = OutputOptions(output_format=output_format, top_k=1, abstain_below=0.99999)
    counts = predict_files(run, str(data), out=str(out), options=OPTIONS, output=output)
    assert (counts.predicted, counts.parts, counts.abstained) == (45, 3, 45)
    if output_format == "csv":
        rows: list[dict[str, Any]] = list(rows_of(out))
        assert (rows[3]["id"], rows[3]["tags"], rows[3]["label"]) == ("3", '["a", null]', "")
        assert (rows[3]["day"], rows[3]["price"]) == ("2024-01-02", "1.50")
    elif output_format == "jsonl":
        lines = "".join(path.read_text() for path in sorted(out.glob("*.jsonl"))).splitlines()
        rows = list(map(json.loads, lines))
        assert (rows[3]["id"], rows[44]["tags"], rows[3]["label"]) == (3, None, None)
        assert (rows[3]["day"], rows[3]["price"]) == ("2024-01-02", "1.50")
    else:
        read = pq.read_table(out)
        assert read.schema.field("id").type == pa.int32()
        assert read.schema.field("confidence").type == pa.float64()
        rows = read.to_pylist()
        assert (rows[3]["tags"], rows[3]["label"]) == (["a", None], None)
    assert [row["text"] for row in rows] == texts


def test_a_file_without_rows_gives_a_part_without_rows(
    run: Path, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (many / "b" / "c.csv").write_text("id,text\n")
    counts = predict_files(run, str(many), out=str(out), options=OPTIONS)
    assert (counts.predicted, counts.parts) == (90, 6)
    header = (out / "a.csv.part-00000.csv").read_text().splitlines()[0]
    assert (out / "b/c.csv.part-00000.csv").read_text() == f"{header}\n"


def test_the_output_may_be_a_folder_among_the_rows(
    run: Path, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(many / "b")
    for _ in range(2):
        counts = predict_files(run, "..", out="../predictions/", options=OPTIONS)
        assert (counts.predicted, counts.parts) == (97, 6)


def test_unknown_engines_and_impossible_numbers_are_refused(
    run: Path, many: Path, tmp_path: Path
) -> None:
    for options, error in (
        (PartOptions(engine="spark"), "--engine spark: unknown; choose from local, ray"),
        (PartOptions(rows_per_part=0), "--rows-per-part 0: give a whole number from 1"),
        (PartOptions(workers=0), "--workers 0: give a whole number from 1"),
        (PartOptions(workers=2), "--workers 2: the engine local has one worker; use --engine ray"),
    ):
        with pytest.raises(RunError, match=error):
            predict_files(run, str(many), out=str(tmp_path / "out"), options=options)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_finished_part_takes_any_settings(
    run: Path, many: Path, tmp_path: Path
) -> None:
    out, broken = tmp_path / "out", many / "a.csv"
    content = broken.read_text()
    broken.write_text(content.replace("\n0,", "\n0,\n0,", 1))
    with pytest.raises(DataError, match=r"a\.csv: row 1 \(line 2\): empty text"):
        predict_files(run, str(many), out=str(out), options=OPTIONS)
    assert manifest_of(out)["parts"] == []
    broken.write_text(content)
    options = PartOptions(rows_per_part=50)
    counts = predict_files(
        run, f"{many}/b/*.csv", out=str(out), options=options, output=OutputOptions(top_k=2)
    )
    assert (counts.predicted, counts.parts) == (47, 2)

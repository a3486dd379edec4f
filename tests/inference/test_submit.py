"""Submissions: a label for every row, or no file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inference.damage import make_weights_nan
from pennyweight.errors import DataError, NonFiniteLogitsError, RunError
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.submit import submit
from pennyweight.runs.record import load_record, save_record
from tiny import LABELS


def test_a_submission_has_an_id_and_a_label_as_whole_numbers_for_every_row(
    run: Path, texts: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "submission.csv"
    assert submit(run, str(tmp_path / "unlabelled.csv"), out=out) == 21
    labels = [LABELS.index(label) for label in Classifier.load(run).predict(texts)]
    lines = [f"{number},{label}" for number, label in enumerate(labels)]
    assert out.read_text(encoding="utf-8") == "\n".join(["ID,Label", *lines]) + "\n"


def test_a_submission_with_a_bad_row_is_not_written_and_the_old_one_is_left(
    run: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "bad.jsonl", tmp_path / "submission.csv"
    data.write_text('{"text": "the goal"}\n{"text": 7}\n{"text": "a bank"}\n')
    out.write_text("old")
    with pytest.raises(DataError, match="row 2"):
        submit(run, str(data), out=out)
    assert out.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.jsonl", "submission.csv"]


def test_a_failure_while_writing_leaves_no_file_behind(
    run: Path, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(tmp_path / "unlabelled.csv")
    submit(run, data, out=tmp_path / "first.csv")
    (tmp_path / "first.csv").unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match="cannot be written: No space left"):
        submit(run, data, out=tmp_path / "submission.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["unlabelled.csv"]


def test_weights_that_are_nan_give_no_submission(
    copied_run: Path, texts: list[str], tmp_path: Path
) -> None:
    make_weights_nan(copied_run)
    out = tmp_path / "submission.csv"
    with pytest.raises(NonFiniteLogitsError, match=r"NaN or infinite for 21 of 21 rows$"):
        submit(copied_run, str(tmp_path / "unlabelled.csv"), out=out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "unlabelled.csv"]


def test_a_run_over_its_budget_gives_no_submission(
    copied_run: Path, texts: list[str], tmp_path: Path
) -> None:
    record = load_record(copied_run)
    assert record.parameters is not None
    counts = record.parameters.model_copy(update={"budget": 643})
    plan = replace(record.plan, budget=643, within_budget=False)
    save_record(copied_run, record.with_changes(parameters=counts, plan=plan))
    with pytest.raises(RunError, match="644 parameters were trained and 643 are allowed"):
        submit(copied_run, str(tmp_path / "unlabelled.csv"), out=tmp_path / "submission.csv")
    assert not (tmp_path / "submission.csv").exists()


def test_a_submission_does_not_replace_the_rows(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "unlabelled.csv"
    data.write_text("text\nthe goal\n")
    before = data.read_bytes()
    with pytest.raises(RunError, match="the file of the rows, which stays as it is"):
        submit(run, str(data), out=data)
    assert data.read_bytes() == before

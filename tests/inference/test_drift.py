"""Comparing new text with the rows of a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pennyweight.cli.main import app
from pennyweight.errors import DataError
from pennyweight.inference.drift import drift
from pennyweight.runs.record import load_record
from pennyweight.training.train import train
from tiny import news, tiny_recipe, write_news, write_several_labels


@pytest.fixture(scope="module")
def known(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run and rows of its own, which tests may remove."""
    folder = tmp_path_factory.mktemp("drift")
    rows = news(260, seed=5)
    write_news(folder / "train.csv", rows[:120])
    write_news(folder / "validation.csv", rows[120:180])
    write_news(folder / "test.csv", rows[180:220])
    write_news(folder / "same.csv", rows[220:])
    shouted = [(label, f"{text.upper()}!!! ZZZ QQQ") for label, text in rows[220:]]
    write_news(folder / "other.csv", shouted)
    train(tiny_recipe(bert, folder, train={"epochs": 2}), out=folder / "run")
    return folder


def test_text_of_another_kind_is_told_apart_and_text_of_the_same_kind_is_not(known: Path) -> None:
    same = drift(known / "run", str(known / "same.csv"))
    other = drift(known / "run", str(known / "other.csv"))
    assert same.notes == other.notes == ()
    assert same.rows == other.rows == 40
    assert same.text_area is not None
    assert other.text_area is not None
    assert same.text_area < 0.65
    assert other.text_area > 0.95
    assert same.distance is not None
    assert other.distance is not None
    assert same.distance.p > 0.01
    assert other.distance.distance > 2 * other.distance.chance
    record = load_record(known / "run")
    assert same.validation_accuracy == record.metrics["validation"].accuracy
    assert [each.label for each in same.shares] == list(record.recipe.data.label_names)
    assert [each.training for each in same.shares] == [0.25] * 4
    assert sum(each.predicted for each in same.shares) == pytest.approx(1.0)
    assert [each.method for each in same.expected] == ["atc", "doc"]


def test_without_the_training_rows_the_record_is_used_and_a_note_says_so(
    known: Path, tmp_path: Path
) -> None:
    whole = drift(known / "run", str(known / "same.csv"))
    hidden = (known / "train.csv").rename(tmp_path / "train.csv")
    try:
        part = drift(known / "run", str(known / "same.csv"))
    finally:
        shutil.move(hidden, known / "train.csv")
    (note,) = part.notes
    assert note.startswith("the run's rows cannot be read again: ")
    assert "; only what the run's record holds is used; to compare texts, features and" in note
    assert note.endswith(f"restore the rows that {known / 'run' / 'recipe.toml'} names")
    assert part.text_area is part.distance is None
    assert part.validation_accuracy == whole.validation_accuracy
    assert [each.predicted for each in part.shares] == [each.predicted for each in whole.shares]
    for one, other in zip(part.expected, whole.expected, strict=True):
        assert one.accuracy == pytest.approx(other.accuracy, abs=0.06)


def test_changed_training_rows_are_not_compared_with(known: Path) -> None:
    original = (known / "train.csv").read_text()
    (known / "train.csv").write_text(original.replace("the", "a"))
    try:
        changed = drift(known / "run", ["the goal", "a bank"])
    finally:
        (known / "train.csv").write_text(original)
    assert "the run's train rows have changed since it was trained" in changed.notes[0]
    assert changed.text_area is None


def test_a_multi_label_run_has_no_expected_accuracy(bert: Path, tmp_path: Path) -> None:
    folder = write_several_labels(tmp_path)
    data = {"task": "multi-label", "label_separator": "|"}
    train(tiny_recipe(bert, folder, data=data), out=tmp_path / "run")
    result = drift(tmp_path / "run", ["the goal", "a bank"])
    assert result.expected == ()
    assert "the run is a multi-label run; label some rows" in result.notes[-1]
    assert result.distance is not None
    assert all(each.training is not None for each in result.shares)


def test_a_run_without_validation_rows_has_no_expected_accuracy_and_a_note_says_how_to_get_one(
    bert: Path, known: Path, tmp_path: Path
) -> None:
    data = {"validation": None, "validation_fraction": 0.0}
    train(tiny_recipe(bert, known, data=data, train={"max_steps": 2}), out=tmp_path / "run")
    result = drift(tmp_path / "run", str(known / "same.csv"))
    assert result.expected == ()
    assert result.text_area is not None
    assert result.notes[-1] == (
        f"no expected accuracy: it needs validation rows, and {tmp_path / 'run' / 'record.json'} "
        "has no metrics of any, because the run was trained without them; train again with "
        "data.validation = FILE or data.validation_fraction above 0"
    )


def test_no_rows_are_an_error(known: Path) -> None:
    with pytest.raises(DataError, match=r"no rows|empty"):
        drift(known / "run", [])


def test_the_command_prints_every_figure_and_writes_them_as_json(
    known: Path, tmp_path: Path
) -> None:
    arguments = ["drift", str(known / "run"), "--data", str(known / "other.csv")]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "drift.json")])
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "drift.json").read_text())
    assert f"ROC curve {values['text_area']:.3f}" in result.stdout
    assert f"squared MMD {values['distance']['distance']:.4f}" in result.stdout
    for each in values["expected"]:
        assert f"expected accuracy {each['accuracy']:.1%}" in result.stdout
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(printed.stdout) == values


def test_too_few_rows_to_tell_texts_apart_give_a_note(known: Path) -> None:
    result = drift(known / "run", ["the goal", "a bank"])
    assert result.text_area is None
    assert "the texts are not compared: fewer than 20 training or target rows" in result.notes


def test_the_command_does_not_replace_the_rows(known: Path) -> None:
    data = known / "same.csv"
    arguments = ["drift", str(known / "run"), "--data", str(data), "--out", str(data)]
    result = CliRunner().invoke(app, arguments)
    assert "the file of the rows, which stays as it is" in str(result.exception)

"""The decision between a new run, starting over and resuming, and what it leaves untouched."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pennyweight.errors import RunError
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import Best, RowStep, TrainingRows, save_record
from pennyweight.runs.resume import (
    Opening,
    check_data,
    check_training_rows,
    decide_opening,
    prepare_directory,
)
from runs.records import example_facts, example_recipe, example_record, example_step

RECIPE = example_recipe()


def _run(path: Path, status: str, **changes: object) -> Path:
    """Write an unfinished or complete run with some files of its own."""
    path.mkdir()
    save_record(path, example_record(status=status, combination=None, **changes))
    (path / "recipe.toml").write_text("old")
    (path / "adapter").mkdir()
    (path / "adapter" / "weights").write_text("old")
    (path / ".lock").touch()
    return path


def _files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*")}


def test_a_missing_or_empty_directory_becomes_a_new_run(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "new"):
        opening = decide_opening(out, RECIPE, resume=False)
        assert opening == Opening(RunDirectory(out))
        assert opening.describe() is None
    assert not (tmp_path / "new").exists()


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"not empty, and not a run; name a new directory"):
        decide_opening(tmp_path, RECIPE, resume=False)
    with pytest.raises(RunError, match=r"not a run: record\.json is missing"):
        decide_opening(tmp_path, RECIPE, resume=True)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"--out .*/file: "):
        decide_opening(tmp_path / "file", RECIPE, resume=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_complete_run_is_never_overwritten_nor_resumed(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", "complete")
    with pytest.raises(RunError, match="not empty: it holds a complete run; name a new directory"):
        decide_opening(run, RECIPE, resume=False)
    with pytest.raises(RunError, match="the run is complete already; name a new directory"):
        decide_opening(run, RECIPE, resume=True)


@pytest.mark.parametrize(
    ("status", "failure", "expected"),
    [
        ("failed", "row 7: no label", "the failed run in it (row 7: no label); its 4 steps are"),
        ("interrupted", None, "the interrupted run in it; its 4 steps are"),
        ("running", None, "the unfinished run in it; its 4 steps are"),
    ],
)
def test_an_unfinished_run_is_started_over_and_the_loss_of_its_steps_is_announced(
    status: str, failure: str | None, expected: str, tmp_path: Path
) -> None:
    run = _run(tmp_path / "run", status, failure=failure)
    opening = decide_opening(run, example_recipe(optimizer={"learning_rate": 1.0}), resume=False)
    assert opening.describe() == f"{run}: replacing {expected} lost"
    assert "adapter/weights" in _files(run)
    prepare_directory(opening, log=print)
    # A kill at this moment leaves a run that can be resumed or started over.
    assert _files(run) == {".lock", "record.json"}


def test_a_run_that_failed_before_its_first_checkpoint_loses_no_steps(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", "failed", failure="no label", best=None)
    opening = decide_opening(run, RECIPE, resume=False)
    assert opening.describe() == f"{run}: replacing the failed run in it (no label)"


def test_starting_over_removes_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    run = _run(tmp_path / "run", "failed")
    (run / "link").symlink_to(tmp_path / "precious")
    prepare_directory(decide_opening(run, RECIPE, resume=False), log=print)
    assert _files(run) == {".lock", "record.json"}
    assert (tmp_path / "precious" / "file").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_another_process_completed_in_the_meantime_is_not_touched(
    resume: bool, tmp_path: Path
) -> None:
    run = _run(tmp_path / "run", "running")
    opening = decide_opening(run, RECIPE, resume=resume)
    save_record(run, example_record(status="complete"))
    before = _files(run)
    with pytest.raises(RunError, match="another process has changed this run in the meantime"):
        prepare_directory(opening, log=print)
    assert _files(run) == before


def test_a_run_that_another_process_began_in_the_meantime_is_not_touched(tmp_path: Path) -> None:
    opening = decide_opening(tmp_path / "run", RECIPE, resume=False)
    run = _run(tmp_path / "run", "failed")
    with pytest.raises(RunError, match="another process has changed this run in the meantime"):
        prepare_directory(opening, log=print)
    assert "adapter/weights" in _files(run)


def _trained_on(run: Path, rows: TrainingRows) -> Opening:
    record = example_record(status="running")
    assert record.data is not None
    data = record.data.model_copy(update={"training": rows})
    return Opening(RunDirectory(run), previous=record.with_changes(data=data))


def test_the_same_training_rows_are_resumed_wherever_they_are_stored(tmp_path: Path) -> None:
    one, other = (
        TrainingRows(rows=9, steps=(RowStep(step="filter length", removed=1, file=file),))
        for file in ("a", "b")
    )
    check_training_rows(_trained_on(tmp_path, one), other)


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        (RowStep(step="added", added=3, sha256="b"), "the training rows, in added, differ"),
        (RowStep(step="swap", added=3, sha256="a"), "the training rows, in swap, differ"),
    ],
)
def test_other_training_rows_are_refused_by_the_step_that_gave_them(
    changed: RowStep, where: str, tmp_path: Path
) -> None:
    opening = _trained_on(
        tmp_path, TrainingRows(rows=9, steps=(RowStep(step="added", added=3, sha256="a"),))
    )
    with pytest.raises(RunError, match=where):
        check_training_rows(opening, TrainingRows(rows=9, steps=(changed,)))


def test_an_unfinished_run_is_resumed_with_its_recipe(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", "interrupted")
    opening = decide_opening(run, RECIPE, resume=True)
    assert opening.previous == example_record(status="interrupted", combination=None)
    assert opening.replaced is opening.describe() is None
    before = _files(run)
    prepare_directory(opening, log=print)
    assert _files(run) == before


def test_resuming_recovers_directories_that_a_crash_left_half_renamed(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", "running")
    (run / "adapter").rename(run / ".adapter.old")
    (run / "checkpoints" / ".last.old").mkdir(parents=True)
    (run / "checkpoints" / ".last.new").mkdir()
    prepare_directory(decide_opening(run, RECIPE, resume=True), log=print)
    assert (run / "adapter" / "weights").read_text() == "old"
    assert (run / "checkpoints" / "last").is_dir()


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ({"optimizer": {"learning_rate": 0.02}}, "optimizer.learning_rate"),
        ({"adapter": {"rank": 2, "alpha": 3.0}}, "adapter.rank, adapter.alpha"),
        ({"optimizer": {"method": "sgd"}}, "optimizer.method"),
    ],
)
def test_a_changed_recipe_is_refused_by_the_names_of_its_keys(
    sections: dict[str, dict[str, object]], keys: str, tmp_path: Path
) -> None:
    run = _run(tmp_path / "run", "interrupted")
    with pytest.raises(RunError) as caught:
        decide_opening(run, example_recipe(**sections), resume=True)
    message = str(caught.value)
    assert f"the recipe differs from the one this run was begun with, in {keys}" in message
    assert f"pennyweight train {run} --out {run} --resume" in message


def _opening(**changes: object) -> Opening:
    return Opening(RunDirectory(Path("runs/mine")), previous=example_record(**changes))


def test_changed_rows_are_refused_by_their_set_and_source() -> None:
    previous = example_record()
    assert previous.data is not None
    sets = dict(previous.data.sets)
    opening = Opening(RunDirectory(Path("runs/mine")), previous=previous)
    check_data(opening, sets)
    sets["train"] = dataclasses.replace(sets["train"], fingerprint="other")
    with pytest.raises(RunError) as caught:
        check_data(opening, sets)
    assert str(caught.value) == (
        "runs/mine: the rows of train (train.csv) have changed since this run was begun; restore "
        "them, or train again into a new directory"
    )
    del sets["test"]
    with pytest.raises(RunError, match=r"rows of train \(train\.csv\), test \(test\.csv\) have"):
        check_data(opening, sets)


def test_a_new_run_and_one_that_failed_before_it_read_anything_have_no_rows_to_compare() -> None:
    sets = {"train": example_facts("train")}
    check_data(Opening(RunDirectory(Path("runs/mine"))), sets)
    check_data(_opening(data=None), sets)


def test_steps_are_only_lost_if_something_was_saved(tmp_path: Path) -> None:
    run = _run(
        tmp_path / "run",
        "failed",
        failure=None,
        history=(example_step(1), example_step(2)),
        best=Best(step=2, metric="accuracy", value=0.5),
    )
    description = decide_opening(run, RECIPE, resume=False).describe()
    assert description is not None
    assert description.endswith("; its 2 steps are lost")

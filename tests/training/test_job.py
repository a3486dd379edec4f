"""Refusals before a run's directory is touched, and the treatment of a directory in use."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pennyweight.errors import PennyweightError, RunError
from pennyweight.recipe import Recipe
from pennyweight.runs.record import load_record, save_record
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from runs.locking import another_process_trains
from runs.records import example_record
from tiny import news, tiny_recipe, write_news
from training.outcomes import interrupt_at

Sections = dict[str, dict[str, Any]]


def _short(directory: Path, sets: Path, /, **sections: dict[str, Any]) -> Recipe:
    return tiny_recipe(directory, sets, **{"train": {"max_steps": 1}, **sections})


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _missing_test(folder: Path, base: Path) -> Sections:
    return {"evaluate": {"test": str(folder / "nothing.csv")}}


def _missing_further_test(folder: Path, base: Path) -> Sections:
    return {"evaluate": {"also": {"shifted": str(folder / "nothing.csv")}}}


def _missing_target(folder: Path, base: Path) -> Sections:
    return {"data": {"target": str(folder / "nothing.csv")}}


def _missing_extra(folder: Path, base: Path) -> Sections:
    return {"data": {"extra": [str(folder / "nothing.parquet")]}}


def _unknown_teacher(folder: Path, base: Path) -> Sections:
    return {"distillation": {"teachers": [str(folder / "nothing")]}}


def _unfinished_teacher(folder: Path, base: Path) -> Sections:
    return {"distillation": {"teachers": [str(_unfinished_run(folder))]}}


def _unfinished_run(folder: Path) -> Path:
    (folder / "teacher" / "adapter").mkdir(parents=True)
    save_record(folder / "teacher", example_record(status="interrupted"))
    return folder / "teacher"


def _unfinished_self_training_teacher(folder: Path, base: Path) -> Sections:
    return {
        "data": {"target": str(write_news(folder / "target.csv", news(20, seed=31)))},
        "transduction": {
            "self_training": {"method": "confident", "teachers": [str(_unfinished_run(folder))]}
        },
    }


def _unknown_self_training_teacher(folder: Path, base: Path) -> Sections:
    return {
        "data": {"target": str(write_news(folder / "target.csv", news(20, seed=31)))},
        "transduction": {
            "self_training": {"method": "confident", "teachers": [str(folder / "nothing")]}
        },
    }


def _bad_row(folder: Path, base: Path) -> Sections:
    rows = [*news(20, seed=7), (9, "the label of this row is unknown")]
    return {"data": {"train": str(write_news(folder / "bad.csv", rows))}}


def _missing_tokenizer(folder: Path, base: Path) -> Sections:
    return {"base": {"tokenizer": str(folder / "nothing")}}


def _broken_tokenizer(folder: Path, base: Path) -> Sections:
    broken = shutil.copytree(base, folder / "broken")
    (broken / "tokenizer.json").write_text("{")
    return {"base": {"tokenizer": str(broken)}}


def _missing_base(folder: Path, base: Path) -> Sections:
    return {"base": {"name": str(folder / "nothing")}}


def _broken_base(folder: Path, base: Path) -> Sections:
    broken = shutil.copytree(base, folder / "broken")
    (broken / "config.json").write_text("{")
    return {"base": {"name": str(broken)}}


def _base_without_weights(folder: Path, base: Path) -> Sections:
    broken = shutil.copytree(base, folder / "broken")
    (broken / "model.safetensors").unlink()
    return {"base": {"name": str(broken)}}


def _base_with_broken_weights(folder: Path, base: Path) -> Sections:
    broken = shutil.copytree(base, folder / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    return {"base": {"name": str(broken)}}


def _unknown_tracker(folder: Path, base: Path) -> Sections:
    return {"train": {"trackers": ["nothing"]}}


def _over_budget(folder: Path, base: Path) -> Sections:
    return {"budget": {"trainable_parameters": 10}}


REFUSED: dict[Callable[[Path, Path], Sections], str] = {
    _missing_test: r"nothing\.csv: no such file",
    _missing_further_test: r"nothing\.csv: no such file",
    _missing_target: r"nothing\.csv: no such file",
    _missing_extra: r"data\.extra: .*nothing\.parquet: no such file",
    _unknown_teacher: r"distillation\.teachers: .*nothing: no such directory",
    _unfinished_teacher: "status is interrupted; only a complete run can be used",
    _unfinished_self_training_teacher: "status is interrupted; only a complete run can be used",
    _unknown_self_training_teacher: r"self_training\.teachers: .*nothing: not a run",
    _bad_row: r"bad\.csv: row 21",
    _missing_tokenizer: r"base\.tokenizer: .*nothing: cannot be loaded",
    _broken_tokenizer: r"base\.tokenizer: .*broken: cannot be loaded",
    _missing_base: r"base\.name: .*nothing: no such directory",
    _broken_base: r"base\.name: .*broken: ",
    _base_without_weights: r"base\.name: .*broken: its weights cannot be loaded",
    _base_with_broken_weights: r"base\.name: .*broken: its weights cannot be loaded",
    _unknown_tracker: r"train\.trackers: ",
    _over_budget: "over budget: 644 trainable parameters, 634 more than the 10 allowed",
}


@pytest.mark.parametrize("mistake", REFUSED, ids=lambda mistake: mistake.__name__.strip("_"))
def test_a_mistake_leaves_nothing_at_out_and_the_corrected_call_works_in_the_same_place(
    mistake: Callable[[Path, Path], Sections], bert: Path, sets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(PennyweightError, match=REFUSED[mistake]) as caught:
        train(_short(bert, sets, **mistake(tmp_path, bert)), out=out)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    lines: list[str] = []
    record = train(_short(bert, sets), out=out, watcher=Watcher(log=lines.append))
    assert record.status == "complete"
    assert not any("replacing" in line for line in lines)


def test_an_interrupted_run_is_started_over_by_the_same_call_which_says_what_is_lost(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    out, recipe = tmp_path / "run", tiny_recipe(bert, sets, train={"evaluate_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=out, watcher=interrupt_at(5))
    (out / "left-over.txt").touch()
    lines: list[str] = []
    record = train(recipe, out=out, watcher=Watcher(log=lines.append))
    assert record.status == "complete"
    assert [step.step for step in record.history] == [1, 2, 3, 4, 5, 6]
    assert not (out / "left-over.txt").exists()
    # Four steps were recorded, and step 5 was not.
    assert lines[0] == (
        f"{out}: replacing the interrupted run in it (interrupted from the keyboard); "
        "its 4 steps are lost"
    )


def test_a_failed_run_is_started_over_by_the_corrected_call(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    blown_up = {"optimizer": {"learning_rate": 1e38}, "train": {"max_gradient_norm": "off"}}
    with pytest.raises(PennyweightError):
        train(tiny_recipe(bert, sets, **blown_up), out=out)
    failure = load_record(out).failure
    lines: list[str] = []
    assert train(_short(bert, sets), out=out, watcher=Watcher(log=lines.append)).failure is None
    assert lines[0] == f"{out}: replacing the failed run in it ({failure})"


@pytest.mark.parametrize("resume", [False, True])
def test_a_complete_run_is_not_touched(
    bert: Path, sets: Path, tmp_path: Path, resume: bool
) -> None:
    out, recipe = tmp_path / "run", _short(bert, sets)
    train(recipe, out=out)
    before = _files(out)
    with pytest.raises(RunError, match="name a new directory"):
        train(recipe, out=out, resume=resume)
    assert _files(out) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_of_something_else_is_not_touched(
    bert: Path, sets: Path, tmp_path: Path, resume: bool
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not a run" if resume else "not empty, and not a run"):
        train(_short(bert, sets), out=tmp_path, resume=resume)
    assert _files(tmp_path) == {"notes.txt": b"mine"}
    with pytest.raises(RunError, match="not a run"):
        train(_short(bert, sets), out=tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_another_process_trains_is_refused_with_its_id_and_not_touched(
    bert: Path, sets: Path, tmp_path: Path, resume: bool
) -> None:
    out, recipe = tmp_path / "run", tiny_recipe(bert, sets, train={"evaluate_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=out, watcher=interrupt_at(3))
    with another_process_trains(out) as process:
        save_record(out, load_record(out).with_changes(process_id=process.pid))
        before = _files(out)
        with pytest.raises(RunError, match=f"process {process.pid} is training this run"):
            train(recipe, out=out, resume=resume)
        assert _files(out) == before
        process.kill()
        process.wait()
    # The lock file of the killed process is still there, and nobody holds it.
    assert (out / ".lock").is_file()
    assert train(recipe, out=out, resume=resume).status == "complete"


def test_the_log_names_device_and_plan_before_rows_are_read(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    train(_short(bert, sets), out=tmp_path / "run", watcher=Watcher(log=lines.append))
    assert lines[0].startswith("device: CPU, fp32")
    plan = f"plan: 644 trainable parameters of 1,000,000 allowed, on {bert}"
    assert lines.index(plan) < lines.index("looking for rows that are in two sets")
